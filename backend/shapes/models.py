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

from backend.folder import EMBEDDED
from backend.shapes import networks
from backend.shapes.denoisers import (
    UNPADDED,
    chroma,
    cogvideox,
    flux,
    flux2,
    hunyuan_video,
    hunyuan_video_15,
    latte,
    ltx,
    ltx2,
    mochi,
    pixart,
    qwen_image,
    sana,
    sd3,
    unet,
    wan,
    z_image,
)
from backend.shapes.networks import clip_g, clip_h, clip_h_vision, clip_l, t5, umt5
from backend.shapes.stages import StageWork, decoder, encoder


@dataclass(frozen=True)
class Model:
    """One model: its stages, and what its geometry alone does not say.

    Attributes:
        source: source of the configuration.
        stages: encode, denoise and decode.
        guidance_rows: rows of an image with guidance: 2, or 1 where guidance is an input of the denoiser.
        frame_patch: latent frames a token.
        upcasts: whether its decoder is run in float32 where the rest runs in float16 (``force_upcast``).
        video: whether it makes clips of several lengths.
        frames: latent frames of what it makes, where these are always so many.
        notes: by stages, what a reader must know of what was counted.
    """

    source: str
    stages: dict[str, StageWork]
    guidance_rows: int = 2
    frame_patch: int = 1
    upcasts: bool = False
    video: bool = False
    frames: int = 1
    notes: dict[str, str] = field(default_factory=dict)


def _embedded(part: str) -> Any:
    """The configuration of a part of ``tiny-image``."""
    return json.loads((EMBEDDED / "tiny-image" / part / "config.json").read_text(encoding="utf-8"))


def _tiny_clip() -> Any:
    return transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**_embedded("text_encoder_2")))


_SD2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
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
_SD3: dict[str, Any] = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
_SD3_LARGE: dict[str, Any] = {
    "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}  # fmt: skip
_KLEIN: dict[str, Any] = {"guidance_embeds": False}
_COGVIDEOX: dict[str, Any] = {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}
_COGVIDEOX_15: dict[str, Any] = {
    **_COGVIDEOX, "patch_size_t": 2, "sample_height": 300, "sample_width": 300, "sample_frames": 81,
    "patch_bias": False,
}  # fmt: skip
_WAN_SMALL: dict[str, Any] = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
_WAN_5B: dict[str, Any] = {
    "in_channels": 48,
    "out_channels": 48,
    "num_attention_heads": 24,
    "ffn_dim": 14336,
    "num_layers": 30,
}
_LTX_13B: dict[str, Any] = {
    "num_attention_heads": 32,
    "attention_head_dim": 128,
    "cross_attention_dim": 4096,
    "num_layers": 48,
}

_PROMPT = f"a prompt of {UNPADDED} tokens, to which the pipeline adds no padding"
_TEMPLATE = 34
"""Tokens that Qwen-Image's pipeline puts around a prompt, and drops again."""

_NO_IMAGE = "that the picture to start from goes through the autoencoder is left out"
_WHOLE = "the pipeline decodes whole frames unless it is told to use tiles"


def _sd3_encoder() -> StageWork:
    return encoder((clip_l, 77), (clip_g, 77), (t5, 256))


def _wan_encoder() -> StageWork:
    return encoder((umt5, 512))


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
            "encode": encoder((clip_l, 77)),
            "denoise": unet(lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768)),
            "decode": networks.SD_VAE,
        },
    ),
    "sd21-base": Model(
        "stable-diffusion-2-1-base",
        {
            "encode": encoder((clip_h, 77)),
            "denoise": unet(lambda: diffusers.UNet2DConditionModel(**_SD2)),
            "decode": networks.SD_VAE,
        },
    ),
    "sdxl": Model(
        "stable-diffusion-xl-base-1.0",
        {
            "encode": encoder((clip_l, 77), (clip_g, 77)),
            "denoise": unet(lambda: diffusers.UNet2DConditionModel(**_SDXL)),
            "decode": networks.SD_VAE,
        },
        upcasts=True,
    ),
    "sd3": Model(
        "stable-diffusion-3-medium-diffusers",
        {
            "encode": _sd3_encoder(),
            "denoise": sd3(**_SD3, pos_embed_max_size=192),
            "decode": networks.FLUX_VAE,
        },
    ),
    "sd3.5-medium": Model(
        "stable-diffusion-3.5-medium",
        {
            "encode": _sd3_encoder(),
            "denoise": sd3(**_SD3, pos_embed_max_size=384, dual_attention_layers=tuple(range(13)), qk_norm="rms_norm"),
            "decode": networks.FLUX_VAE,
        },
    ),
    "sd3.5-large": Model(
        "stable-diffusion-3.5-large",
        {"encode": _sd3_encoder(), "denoise": sd3(**_SD3_LARGE), "decode": networks.FLUX_VAE},
    ),
    "flux": Model(
        "FLUX.1-dev",
        {
            "encode": encoder((clip_l, 77), (t5, 512)),
            "denoise": flux(guidance_embeds=True),
            "decode": networks.FLUX_VAE,
        },
        guidance_rows=1,
    ),
    "flux-schnell": Model(
        "FLUX.1-schnell",
        {
            "encode": encoder((clip_l, 77), (t5, 256)),
            "denoise": flux(text=256),
            "decode": networks.FLUX_VAE,
        },
        guidance_rows=1,
        notes={"encode": "256 tokens, of which its model card speaks; the pipeline pads to 512 unless it is told"},
    ),
    "chroma": Model(
        "Chroma1-HD",
        {"encode": encoder((t5, 512)), "denoise": chroma(), "decode": networks.FLUX_VAE},
    ),
    "flux2-dev": Model(
        "FLUX.2-dev",
        {
            "encode": encoder((networks.mistral_24b, 512), held=lambda: [networks.pixtral_vision()]),
            "denoise": flux2(),
            "decode": networks.FLUX2_VAE,
        },
        guidance_rows=1,
    ),
    "flux2-dev-edit": Model(
        "FLUX.2-dev",
        {
            "encode": encoder((networks.mistral_24b, 512), held=lambda: [networks.pixtral_vision()]),
            "denoise": flux2(references=1),
            "decode": networks.FLUX2_VAE,
        },
        guidance_rows=1,
        notes={
            "encode": "that the reference goes through the autoencoder is left out",
            "denoise": "one reference picture of the size of the result",
        },
    ),
    "flux2-klein-4b": Model(
        "FLUX.2-klein-4B",
        {
            "encode": encoder((networks.qwen3_4b, 512)),
            "denoise": flux2(
                num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, **_KLEIN
            ),
            "decode": networks.FLUX2_VAE,
        },
        guidance_rows=1,
    ),
    "flux2-klein-9b": Model(
        "FLUX.2-klein-9B",
        {
            "encode": encoder((networks.qwen3_8b, 512)),
            "denoise": flux2(
                num_layers=8, num_single_layers=24, num_attention_heads=32, joint_attention_dim=12288, **_KLEIN
            ),
            "decode": networks.FLUX2_VAE,
        },
        guidance_rows=1,
    ),
    "qwen-image": Model(
        "Qwen-Image",
        {
            "encode": encoder((networks.qwen25, UNPADDED + _TEMPLATE), held=lambda: [networks.qwen25_vision()]),
            "denoise": qwen_image(),
            "decode": networks.QWEN_VAE,
        },
        notes={"encode": _PROMPT, "denoise": _PROMPT},
    ),
    "z-image": Model(
        "Z-Image",
        {
            "encode": encoder((networks.qwen3_4b_headless, 512)),
            "denoise": z_image(),
            "decode": networks.FLUX_VAE,
        },
        notes={"denoise": f"a prompt of {UNPADDED} tokens; the pipeline drops the padding that its encoder was given"},
    ),
    "pixart-alpha": Model(
        "PixArt-XL-2-1024-MS",
        {
            "encode": encoder((t5, 120)),
            "denoise": pixart(120, use_additional_conditions=True),
            "decode": networks.SD_VAE,
        },
    ),
    "pixart-sigma": Model(
        "PixArt-Sigma-XL-2-1024-MS",
        {
            "encode": encoder((t5, 300)),
            "denoise": pixart(300, use_additional_conditions=False),
            "decode": networks.SD_VAE,
        },
    ),
    "sana": Model(
        "Sana_1600M_1024px_diffusers",
        {"encode": encoder((networks.gemma2_2b, 300)), "denoise": sana(), "decode": networks.DC_AE},
        notes={"encode": "without the instruction that the pipeline may put before a prompt"},
    ),
    "wan-1.3b": Model(
        "Wan2.1-T2V-1.3B-Diffusers",
        {"encode": _wan_encoder(), "denoise": wan(**_WAN_SMALL), "decode": networks.WAN_VAE},
        video=True,
    ),
    "wan-14b": Model(
        "Wan2.1-T2V-14B-Diffusers",
        {"encode": _wan_encoder(), "denoise": wan(), "decode": networks.WAN_VAE},
        video=True,
    ),
    "wan-i2v-14b": Model(
        "Wan2.1-I2V-14B-480P-Diffusers",
        {
            "encode": encoder((umt5, 512), held=lambda: [clip_h_vision()]),
            "denoise": wan(in_channels=36, image_dim=1280, added_kv_proj_dim=5120),
            "decode": networks.WAN_VAE,
        },
        video=True,
        notes={"encode": _NO_IMAGE},
    ),
    "wan-2.2-ti2v-5b": Model(
        "Wan2.2-TI2V-5B-Diffusers",
        {
            "encode": _wan_encoder(),
            "denoise": wan(tokens_have_times=True, **_WAN_5B),
            "decode": networks.WAN_22_VAE,
        },
        video=True,
    ),
    "wan-2.2-a14b": Model(
        "Wan2.2-T2V-A14B-Diffusers",
        {"encode": _wan_encoder(), "denoise": wan(experts=2), "decode": networks.WAN_VAE},
        video=True,
        notes={"denoise": "two experts are held, one of which runs"},
    ),
    "wan-2.2-i2v-a14b": Model(
        "Wan2.2-I2V-A14B-Diffusers",
        {"encode": _wan_encoder(), "denoise": wan(experts=2, in_channels=36), "decode": networks.WAN_VAE},
        video=True,
        notes={"encode": _NO_IMAGE, "denoise": "two experts are held, one of which runs"},
    ),
    "ltx-13b": Model(
        "LTX-Video-0.9.7-dev",
        {"encode": encoder((t5, 128)), "denoise": ltx(**_LTX_13B), "decode": networks.LTX_VAE},
        video=True,
    ),
    "ltx-2": Model(
        "LTX-2",
        {"encode": networks.LTX2_ENCODER, "denoise": ltx2(rope_type="split"), "decode": networks.LTX2_DECODER},
        video=True,
        notes={"denoise": "with sound, at 24 frames a second", "decode": "with sound, at 24 frames a second"},
    ),
    "cogvideox-2b": Model(
        "CogVideoX-2b",
        {"encode": encoder((t5, 226)), "denoise": cogvideox(), "decode": networks.COGVIDEOX_VAE},
        video=True,
        notes={"decode": _WHOLE},
    ),
    "cogvideox-5b": Model(
        "CogVideoX-5b",
        {"encode": encoder((t5, 226)), "denoise": cogvideox(**_COGVIDEOX), "decode": networks.COGVIDEOX_VAE},
        video=True,
        notes={"decode": _WHOLE},
    ),
    "cogvideox-1.5": Model(
        "CogVideoX1.5-5B",
        {"encode": encoder((t5, 226)), "denoise": cogvideox(**_COGVIDEOX_15), "decode": networks.COGVIDEOX_VAE},
        frame_patch=2,
        video=True,
        notes={"decode": _WHOLE},
    ),
    "hunyuanvideo": Model(
        "HunyuanVideo (diffusers)",
        {
            "encode": encoder((networks.llama, 351), (clip_l, 77)),
            "denoise": hunyuan_video(),
            "decode": networks.HUNYUAN_VAE,
        },
        guidance_rows=1,
        video=True,
        notes={"decode": _WHOLE},
    ),
    "hunyuanvideo-1.5": Model(
        "HunyuanVideo-1.5-Diffusers-480p_t2v",
        {
            "encode": encoder((networks.qwen25_headless, 1108), held=lambda: [networks.byt5()]),
            "denoise": hunyuan_video_15(),
            "decode": networks.HUNYUAN_15_VAE,
        },
        video=True,
        notes={
            "encode": "without ByT5, which is held, and runs for prompts that quote something to be written",
            "denoise": "attention with the mask of every pair of tokens that the pipeline makes",
        },
    ),
    "mochi": Model(
        "mochi-1-preview",
        {"encode": encoder((t5, 256)), "denoise": mochi(), "decode": networks.MOCHI_VAE},
        video=True,
    ),
    "latte": Model(
        "Latte-1",
        {"encode": encoder((t5, 120)), "denoise": latte(), "decode": networks.SD_VAE},
        frames=16,
        notes={"denoise": "16 frames, the only number that it makes"},
    ),
}
"""By the names of `traces.geometry.GEOMETRIES`; models that share all networks of another one are not among them."""
