"""The models of the suite with random weights on a device, and what their pipelines call them with.

Networks are built where they run, in the type that they run in, as their classes initialise them: no weights travel,
and tables that a class computes when it is built (positions, frequencies) are what they should be. `NARROW` are the
same families, fewer and narrower layers, for smoke runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
import transformers

from backend.coroutine import DenoiserCall
from backend.shapes.denoisers import cogvideox, flux, hunyuan_video, sd3, unet, wan
from backend.shapes.models import MODELS, Model
from backend.shapes.stages import Shape, StageWork, decoder, encoder
from traces.composition import Composition
from traces.errors import BadInput
from traces.geometry import geometry_of
from traces.request import Size
from traces.stages import STAGES

CALLED_TWICE = ("wan-1.3b", "wan-14b")
"""Models whose pipeline calls the denoiser once with the text and once without it, instead of with two rows."""


class Random:
    """What networks are given, drawn on a device; see `backend.shapes.stages.Inputs`."""

    def __init__(self, device: torch.device, dtype: torch.dtype, seed: int = 0) -> None:
        self._device, self._dtype = device, dtype
        self._random = torch.Generator(device).manual_seed(seed)
        self._shared: dict[Any, torch.Tensor] = {}

    def noise(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normal numbers."""
        return torch.randn(shape, dtype=dtype or self._dtype, device=self._device, generator=self._random)

    def times(self, rows: int, most: float = 1000.0, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[rows] one timestep from 0 to ``most``, for all rows of a call."""
        drawn = torch.rand(1, device=self._device, generator=self._random) * most
        return drawn.to(dtype or self._dtype).repeat(rows)

    def fixed(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normal numbers that all calls of one shape share."""
        key = (shape, dtype)
        if key not in self._shared:
            self._shared[key] = self.noise(*shape, dtype=dtype)
        return self._shared[key]

    def tokens(self, *shape: int, below: int) -> torch.Tensor:
        """Token ids from 0 on, int64."""
        return torch.randint(below, shape, device=self._device, generator=self._random)

    def mask(self, *shape: int) -> torch.Tensor:
        """Ones, int64: every token counts."""
        return torch.ones(shape, dtype=torch.int64, device=self._device)

    def positions(self, height: int, width: int) -> torch.Tensor:
        """[height x width, 3] the position ids of the tokens of an image, 0, line, column."""
        key = ("positions", height, width)
        if key not in self._shared:
            lines, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            ids = torch.stack([torch.zeros_like(lines), lines, columns], dim=-1).reshape(-1, 3)
            self._shared[key] = ids.to(self._device, self._dtype)
        return self._shared[key]


def build(stage: StageWork, device: torch.device, dtype: torch.dtype) -> list[Any]:
    """A stage's networks on a device, in evaluation mode, without gradients.

    Every part has the type that it has when diffusers loads the model in ``dtype``.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            made = stage.modules()
    finally:
        torch.set_default_dtype(before)
    return [_as_loaded(module.to(device), dtype).eval().requires_grad_(False) for module in made]


def model_of(name: str, narrow: bool) -> Model:
    """The model called so, or the narrow one of its family.

    Raises:
        BadInput: the suite has no such model.
    """
    known = NARROW if narrow else MODELS
    if name not in known:
        raise BadInput(f"the suite has no model {name!r}; known: {', '.join(known)}")
    return known[name]


def latent_shape(name: str, size: Size, stage: str = "denoise", frame_patch: int = 1) -> Shape:
    """(frames, height, width) of the latent of a size in pixels; a denoiser's frames are padded to whole tokens."""
    _, frames, height, width = geometry_of(name).latent_shape(size)
    return -(-frames // frame_patch) * frame_patch if STAGES[stage].network == "denoiser" else frames, height, width


def sizes_of(composition: Composition) -> list[Size]:
    """The size of each image, one after another."""
    return [size for size, images in composition for _ in range(images)]


def denoiser_calls(
    name: str, model: Model, module: Any, shapes: Sequence[Shape], given: Random
) -> list[list[DenoiserCall]]:
    """The calls of one step of guided images of these latent shapes, as the model's pipeline makes them.

    Returns rounds of one call an image: where a pipeline calls its denoiser twice a step, the second waits for the
    first.
    """
    rounds, rows = (2, 1) if name in CALLED_TWICE else (1, model.guidance_rows)
    stage = model.stages["denoise"]

    def call(index: int, shape: Shape, part: int) -> DenoiserCall:
        made = stage.call(0, module, rows, shape, given)
        kwargs = {key: value for key, value in made.kwargs.items() if value is not None}
        return DenoiserCall(made.args, {**kwargs, "return_dict": False}, f"image{index}", part=part)

    return [[call(index, shape, part) for index, shape in enumerate(shapes)] for part in range(rounds)]


def _as_loaded(module: Any, dtype: torch.dtype) -> Any:
    """A network in the types that diffusers loads it in: what a class keeps in float32, and what lies in its files.

    transformers has such a list for float16 alone.
    """
    if isinstance(module, diffusers.ModelMixin):
        network: Any = module
        kept = set(getattr(network, "_keep_in_fp32_modules", None) or [])
        for name, tensor in network.state_dict(keep_vars=True).items():
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(torch.float32 if kept & set(name.split(".")) else dtype)
    return module


def _narrow_unet() -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=128, cross_attention_dim=64, block_out_channels=(32, 64, 64), norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2), attention_head_dim=(2, 4, 4), layers_per_block=1,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
        use_linear_projection=True,
    )  # fmt: skip


def _narrow_vae(channels: int, **config: Any) -> StageWork:
    blocks = {
        "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "latent_channels": channels, "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    return decoder(channels, lambda: diffusers.AutoencoderKL(**blocks, **config))


def _narrow_clip() -> Any:
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=64,
            projection_dim=16, bos_token_id=0, eos_token_id=2, pad_token_id=1,
        )
    )  # fmt: skip


_NARROW_T5: dict[str, Any] = {
    "vocab_size": 64, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2,
    "feed_forward_proj": "gated-gelu", "is_encoder_decoder": False, "use_cache": False,
}  # fmt: skip


def _narrow_t5() -> Any:
    return transformers.T5EncoderModel(transformers.T5Config(**_NARROW_T5))


def _narrow_umt5() -> Any:
    return transformers.UMT5EncoderModel(transformers.UMT5Config(**_NARROW_T5))


def _narrow_llama() -> Any:
    return transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1,
        )
    )  # fmt: skip


_NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}
_CLIP = (_narrow_clip, 77)

NARROW: dict[str, Model] = {
    "sdxl": Model(
        "narrow SDXL",
        {"encode": encoder(_CLIP, _CLIP), "denoise": unet(_narrow_unet, text=16), "decode": _narrow_vae(4)},
    ),
    "sd3.5-medium": Model(
        "narrow SD3.5",
        {
            "encode": encoder(_CLIP, _CLIP, (_narrow_t5, 32)),
            "denoise": sd3(
                text=24, num_layers=2, num_attention_heads=2, attention_head_dim=16, caption_projection_dim=32,
                joint_attention_dim=32, pooled_projection_dim=32, pos_embed_max_size=96, dual_attention_layers=(0,),
                qk_norm="rms_norm",
            ),
            "decode": _narrow_vae(16, **_NO_QUANT),
        },
    ),
    "flux": Model(
        "narrow Flux",
        {
            "encode": encoder(_CLIP, (_narrow_t5, 32)),
            "denoise": flux(
                text=24, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
                axes_dims_rope=(4, 4, 8), joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True,
            ),
            "decode": _narrow_vae(16, **_NO_QUANT),
        },
        guidance_rows=1,
    ),
    "wan-1.3b": Model(
        "narrow Wan",
        {
            "encode": encoder((_narrow_umt5, 32)),
            "denoise": wan(
                text=24, num_attention_heads=2, attention_head_dim=12, text_dim=32, freq_dim=32, ffn_dim=64,
                num_layers=2,
            ),
            "decode": decoder(
                16, lambda: diffusers.AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
            ),
        },
        video=True,
    ),
    "cogvideox-1.5": Model(
        "narrow CogVideoX",
        {
            "encode": encoder((_narrow_t5, 32)),
            "denoise": cogvideox(
                text=24, num_attention_heads=2, attention_head_dim=16, num_layers=2, time_embed_dim=16,
                text_embed_dim=32, patch_size_t=2, patch_bias=False, use_rotary_positional_embeddings=True,
            ),
            "decode": decoder(
                16,
                lambda: diffusers.AutoencoderKLCogVideoX(
                    down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
                    block_out_channels=(8, 8, 8, 8), latent_channels=16, layers_per_block=1, norm_num_groups=2,
                ),
                MODELS["cogvideox-1.5"].stages["decode"].tiles,
            ),
        },
        frame_patch=2,
        video=True,
    ),
    "hunyuanvideo": Model(
        "narrow HunyuanVideo",
        {
            "encode": encoder((_narrow_llama, 32), _CLIP),
            "denoise": hunyuan_video(
                text=24, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
                num_refiner_layers=1, text_embed_dim=32, pooled_projection_dim=32, rope_axes_dim=(4, 6, 6),
            ),
            "decode": decoder(
                16,
                lambda: diffusers.AutoencoderKLHunyuanVideo(
                    latent_channels=16, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
                ),
                MODELS["hunyuanvideo"].stages["decode"].tiles,
            ),
        },
        guidance_rows=1,
        video=True,
    ),
}  # fmt: skip
"""The families of `backend.shapes.models.MODELS` that the suite measures, by the same names."""
