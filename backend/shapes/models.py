"""Real models without weights: what `python -m backend.shapes` counts.

Each configuration is that of the published checkpoint (its ``config.json``), but for what diffusers has as a default.
 Text encoders run on as many tokens as the model's own pipeline pads prompts to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
import transformers

from backend.loading import EMBEDDED

Shape = tuple[int, int, int]
"""Of a latent: frames, height, width."""


@dataclass(frozen=True)
class Stage:
    """One stage of a model.

    Attributes:
        modules: its networks, on the meta device; built when asked for.
        run: does the work of ``rows`` rows of one latent shape with them.
        tiles: None, or (latent shape of a tile, how far tiles lie apart) where the whole needs more memory than a
            device has, so that the documentation of its pipeline advises tiles.
    """

    modules: Callable[[], Sequence[Any]]
    run: Callable[[Sequence[Any], int, Shape], Any]
    tiles: tuple[Shape, Shape] | None = None


@dataclass(frozen=True)
class Model:
    """One model: its stages, and what its geometry alone does not say.

    Attributes:
        source: of the configuration.
        guidance_rows: rows of an image with guidance: 2, or 1 where guidance is an input of the denoiser.
        frame_patch: latent frames a token.
        stages: encode, denoise and decode.
        video: whether it makes clips.
    """

    source: str
    stages: dict[str, Stage] = field(default_factory=dict)
    guidance_rows: int = 2
    frame_patch: int = 1
    video: bool = False


def _noise(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _unet(make: Callable[[], Any], text: tuple[int, int], pooled: int = 0) -> Stage:
    """A UNet that is given text of (tokens, width) and, with ``pooled``, SDXL's additions of that width."""

    def run(modules: Sequence[Any], rows: int, shape: Shape) -> None:
        _, height, width = shape
        added = {"text_embeds": _noise(rows, pooled), "time_ids": _noise(rows, 6)} if pooled else None
        modules[0](_noise(rows, 4, height, width), _noise(rows), _noise(rows, *text), added_cond_kwargs=added)

    return Stage(lambda: [make()], run)


def _sd3(**config: Any) -> Stage:
    def run(modules: Sequence[Any], rows: int, shape: Shape) -> None:
        _, height, width = shape
        modules[0](_noise(rows, 16, height, width), _noise(rows, 333, 4096), _noise(rows, 2048), _noise(rows))

    fixed = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
    return Stage(lambda: [diffusers.SD3Transformer2DModel(**fixed, **config)], run)


def _flux() -> Stage:
    def run(modules: Sequence[Any], rows: int, shape: Shape) -> None:
        tokens = shape[1] * shape[2] // 4
        image_ids, text_ids = _noise(tokens, 3), _noise(512, 3)
        modules[0](
            _noise(rows, tokens, 64), _noise(rows, 512, 4096), _noise(rows, 768), _noise(rows), image_ids, text_ids,
            _noise(rows, dtype=torch.float32),
        )  # fmt: skip

    return Stage(lambda: [diffusers.FluxTransformer2DModel(guidance_embeds=True)], run)


def _wan(**config: Any) -> Stage:
    def run(modules: Sequence[Any], rows: int, shape: Shape) -> None:
        modules[0](_noise(rows, 16, *shape), _noise(rows), _noise(rows, 512, 4096))

    return Stage(lambda: [diffusers.WanTransformer3DModel(**config)], run)


def _cogvideox() -> Stage:
    config = {
        "num_attention_heads": 48, "num_layers": 42, "patch_size_t": 2, "sample_height": 300, "sample_width": 300,
        "sample_frames": 81, "use_rotary_positional_embeddings": True, "patch_bias": False,
    }  # fmt: skip

    def run(modules: Sequence[Any], rows: int, shape: Shape) -> None:
        frames, height, width = shape
        tokens = frames // 2 * (height // 2) * (width // 2)
        rotary = (_noise(tokens, 64, dtype=torch.float32), _noise(tokens, 64, dtype=torch.float32))
        latent = _noise(rows, frames, 16, height, width)
        modules[0](latent, _noise(rows, 226, 4096), _noise(rows), image_rotary_emb=rotary)

    return Stage(lambda: [diffusers.CogVideoXTransformer3DModel(**config)], run)


def _hunyuan() -> Stage:
    def run(modules: Sequence[Any], rows: int, shape: Shape) -> None:
        modules[0](
            _noise(rows, 16, *shape), _noise(rows, dtype=torch.int64), _noise(rows, 256, 4096),
            _noise(rows, 256, dtype=torch.int64), _noise(rows, 768), _noise(rows),
        )  # fmt: skip

    return Stage(lambda: [diffusers.HunyuanVideoTransformer3DModel()], run)


def _decoder(channels: int, make: Callable[[], Any], tiles: tuple[Shape, Shape] | None = None) -> Stage:
    def run(modules: Sequence[Any], rows: int, shape: Shape) -> None:
        frames = shape[1:] if isinstance(modules[0], diffusers.AutoencoderKL) else shape
        modules[0].decode(_noise(rows, channels, *frames))

    return Stage(lambda: [make()], run, tiles)


def _image_vae(channels: int, **config: Any) -> Stage:
    blocks = {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    return _decoder(channels, lambda: diffusers.AutoencoderKL(**blocks, **config))


def _encoder(*texts: tuple[Callable[[], Any], int]) -> Stage:
    """Text encoders, each with the tokens it is given."""

    def run(modules: Sequence[Any], rows: int, shape: Shape) -> None:
        for module, (_, tokens) in zip(modules, texts, strict=True):
            module(_noise(rows, tokens, dtype=torch.int64))

    return Stage(lambda: [make() for make, _ in texts], run)


def _clip_l() -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    return transformers.CLIPTextModel(config)


def _clip_g() -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280,
        hidden_act="gelu",
    )  # fmt: skip
    return transformers.CLIPTextModelWithProjection(config)


def _t5() -> Any:
    config = transformers.T5Config(
        vocab_size=32128, d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return transformers.T5EncoderModel(config)


def _umt5() -> Any:
    config = transformers.UMT5Config(
        vocab_size=256384, d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return transformers.UMT5EncoderModel(config)


def _llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=128320, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192,
    )  # fmt: skip
    return transformers.LlamaModel(config)


def _embedded(part: str) -> Any:
    """The configuration of a part of ``tiny-image``."""
    return json.loads((EMBEDDED / "tiny-image" / part / "config.json").read_text())


def _tiny_clip() -> Any:
    return transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**_embedded("text_encoder_2")))


_SDXL = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
_WAN_SMALL = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
_NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}

MODELS: dict[str, Model] = {
    "tiny-image": Model(
        "tiny-image, which ships with Tilecast",
        {
            "encode": _encoder((_tiny_clip, 16)),
            "denoise": _unet(lambda: diffusers.UNet2DConditionModel.from_config(_embedded("unet")), (16, 64), 64),
            "decode": _decoder(4, lambda: diffusers.AutoencoderKL.from_config(_embedded("vae"))),
        },
    ),
    "sd15": Model(
        "stable-diffusion-v1-5",
        {
            "encode": _encoder((_clip_l, 77)),
            "denoise": _unet(lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768), (77, 768)),
            "decode": _image_vae(4),
        },
    ),
    "sdxl": Model(
        "stable-diffusion-xl-base-1.0",
        {
            "encode": _encoder((_clip_l, 77), (_clip_g, 77)),
            "denoise": _unet(lambda: diffusers.UNet2DConditionModel(**_SDXL), (77, 2048), 1280),
            "decode": _image_vae(4),
        },
    ),
    "sd3": Model(
        "stable-diffusion-3-medium-diffusers",
        {
            "encode": _encoder((_clip_l, 77), (_clip_g, 77), (_t5, 256)),
            "denoise": _sd3(pos_embed_max_size=192),
            "decode": _image_vae(16, **_NO_QUANT),
        },
    ),
    "sd3.5-medium": Model(
        "stable-diffusion-3.5-medium",
        {
            "encode": _encoder((_clip_l, 77), (_clip_g, 77), (_t5, 256)),
            "denoise": _sd3(pos_embed_max_size=384, dual_attention_layers=tuple(range(13)), qk_norm="rms_norm"),
            "decode": _image_vae(16, **_NO_QUANT),
        },
    ),
    "flux": Model(
        "FLUX.1-dev",
        {
            "encode": _encoder((_clip_l, 77), (_t5, 512)),
            "denoise": _flux(),
            "decode": _image_vae(16, **_NO_QUANT),
        },
        guidance_rows=1,
    ),
    "wan-1.3b": Model(
        "Wan2.1-T2V-1.3B-Diffusers",
        {
            "encode": _encoder((_umt5, 512)),
            "denoise": _wan(**_WAN_SMALL),
            "decode": _decoder(16, diffusers.AutoencoderKLWan),
        },
        video=True,
    ),
    "wan-14b": Model(
        "Wan2.1-T2V-14B-Diffusers",
        {
            "encode": _encoder((_umt5, 512)),
            "denoise": _wan(),
            "decode": _decoder(16, diffusers.AutoencoderKLWan),
        },
        video=True,
    ),
    "cogvideox-1.5": Model(
        "CogVideoX1.5-5B",
        {
            "encode": _encoder((_t5, 226)),
            "denoise": _cogvideox(),
            "decode": _decoder(16, diffusers.AutoencoderKLCogVideoX, ((8, 30, 45), (8, 25, 36))),
        },
        frame_patch=2,
        video=True,
    ),
    "hunyuanvideo": Model(
        "HunyuanVideo (diffusers)",
        {
            "encode": _encoder((_llama, 351), (_clip_l, 77)),
            "denoise": _hunyuan(),
            "decode": _decoder(16, diffusers.AutoencoderKLHunyuanVideo, ((5, 32, 32), (3, 24, 24))),
        },
        guidance_rows=1,
        video=True,
    ),
}
"""By the names of `traces.geometry.GEOMETRIES`."""
