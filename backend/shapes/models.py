"""Real models without weights: what `python -m backend.shapes` counts.

Each configuration is that of the published checkpoint (its ``config.json``), but for what diffusers has as a default.
 Text encoders run on as many tokens as the model's own pipeline pads prompts to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import diffusers
import transformers

from backend.loading import EMBEDDED
from backend.shapes.stages import StageWork, cogvideox, decoder, encoder, flux, hunyuan_video, sd3, unet, wan


@dataclass(frozen=True)
class Model:
    """One model: its stages, and what its geometry alone does not say.

    Attributes:
        source: source of the configuration.
        guidance_rows: rows of an image with guidance: 2, or 1 where guidance is an input of the denoiser.
        frame_patch: latent frames a token.
        upcasts: whether its decoder is run in float32 where the rest runs in float16 (``force_upcast``).
        stages: encode, denoise and decode.
        video: whether it makes clips.
    """

    source: str
    stages: dict[str, StageWork] = field(default_factory=dict)
    guidance_rows: int = 2
    frame_patch: int = 1
    upcasts: bool = False
    video: bool = False


def _image_vae(channels: int, **config: Any) -> StageWork:
    blocks = {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    return decoder(channels, lambda: diffusers.AutoencoderKL(**blocks, **config))


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
    return json.loads((EMBEDDED / "tiny-image" / part / "config.json").read_text(encoding="utf-8"))


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
_SD3 = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
_COGVIDEOX = {
    "num_attention_heads": 48, "num_layers": 42, "patch_size_t": 2, "sample_height": 300, "sample_width": 300,
    "sample_frames": 81, "use_rotary_positional_embeddings": True, "patch_bias": False,
}  # fmt: skip
_WAN_SMALL = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
_NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}

MODELS: dict[str, Model] = {
    "tiny-image": Model(
        "tiny-image, which ships with Tilecast",
        {
            "encode": encoder((_tiny_clip, 16)),
            "denoise": unet(lambda: diffusers.UNet2DConditionModel.from_config(_embedded("unet")), 16),
            "decode": decoder(4, lambda: diffusers.AutoencoderKL.from_config(_embedded("vae"))),
        },
    ),
    "sd15": Model(
        "stable-diffusion-v1-5",
        {
            "encode": encoder((_clip_l, 77)),
            "denoise": unet(lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768)),
            "decode": _image_vae(4),
        },
    ),
    "sdxl": Model(
        "stable-diffusion-xl-base-1.0",
        {
            "encode": encoder((_clip_l, 77), (_clip_g, 77)),
            "denoise": unet(lambda: diffusers.UNet2DConditionModel(**_SDXL)),
            "decode": _image_vae(4),
        },
        upcasts=True,
    ),
    "sd3": Model(
        "stable-diffusion-3-medium-diffusers",
        {
            "encode": encoder((_clip_l, 77), (_clip_g, 77), (_t5, 256)),
            "denoise": sd3(**_SD3, pos_embed_max_size=192),
            "decode": _image_vae(16, **_NO_QUANT),
        },
    ),
    "sd3.5-medium": Model(
        "stable-diffusion-3.5-medium",
        {
            "encode": encoder((_clip_l, 77), (_clip_g, 77), (_t5, 256)),
            "denoise": sd3(**_SD3, pos_embed_max_size=384, dual_attention_layers=tuple(range(13)), qk_norm="rms_norm"),
            "decode": _image_vae(16, **_NO_QUANT),
        },
    ),
    "flux": Model(
        "FLUX.1-dev",
        {
            "encode": encoder((_clip_l, 77), (_t5, 512)),
            "denoise": flux(guidance_embeds=True),
            "decode": _image_vae(16, **_NO_QUANT),
        },
        guidance_rows=1,
    ),
    "wan-1.3b": Model(
        "Wan2.1-T2V-1.3B-Diffusers",
        {
            "encode": encoder((_umt5, 512)),
            "denoise": wan(**_WAN_SMALL),
            "decode": decoder(16, diffusers.AutoencoderKLWan),
        },
        video=True,
    ),
    "wan-14b": Model(
        "Wan2.1-T2V-14B-Diffusers",
        {
            "encode": encoder((_umt5, 512)),
            "denoise": wan(),
            "decode": decoder(16, diffusers.AutoencoderKLWan),
        },
        video=True,
    ),
    "cogvideox-1.5": Model(
        "CogVideoX1.5-5B",
        {
            "encode": encoder((_t5, 226)),
            "denoise": cogvideox(**_COGVIDEOX),
            "decode": decoder(16, diffusers.AutoencoderKLCogVideoX, ((8, 30, 45), (8, 25, 36))),
        },
        frame_patch=2,
        video=True,
    ),
    "hunyuanvideo": Model(
        "HunyuanVideo (diffusers)",
        {
            "encode": encoder((_llama, 351), (_clip_l, 77)),
            "denoise": hunyuan_video(),
            "decode": decoder(16, diffusers.AutoencoderKLHunyuanVideo, ((5, 32, 32), (3, 24, 24))),
        },
        guidance_rows=1,
        video=True,
    ),
}
"""By the names of `traces.geometry.GEOMETRIES`."""
