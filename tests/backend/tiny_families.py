"""Small random-weight pipelines of families that nothing else in Tilecast knows: all of it is read off them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaConfig,
    GemmaModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from tests.backend import tiny_pipelines
from tests.backend.tiny_image_to_video import cogvideox_image_to_video, wan_image_to_video
from tests.backend.tiny_pipelines import _t5, _tokenizer, _vae

_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
_HEADS = {"num_attention_heads": 2, "num_layers": 1}


def _made(cls: type, **components: Any) -> Any:
    for component in components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    components.setdefault("scheduler", diffusers.FlowMatchEulerDiscreteScheduler())
    components.setdefault("tokenizer", _tokenizer(512))
    pipeline = cls(**components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _gemma() -> Any:
    return Gemma2Model(Gemma2Config(head_dim=8, num_key_value_heads=2, **_TEXT))


def ltx(cls: type = diffusers.LTXPipeline) -> Any:
    """LTX: 32 pixels and 8 frames a latent pixel are told under names of its own."""
    return _made(
        cls,
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, attention_head_dim=8, cross_attention_dim=16, caption_channels=16, **_HEADS
        ),
        vae=diffusers.AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
        ),
        text_encoder=_t5(T5EncoderModel, T5Config),
    )


def ltx_image_to_video() -> Any:
    """LTX from a picture, which its signature lets out and its code does not."""
    return ltx(diffusers.LTXImageToVideoPipeline)


def sana() -> Any:
    """Sana: linear attention, a deep-compression autoencoder."""
    return _made(
        diffusers.SanaPipeline,
        transformer=diffusers.SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=16,
            **_HEADS,
        ),
        vae=diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock",) * 5 + ("EfficientViTBlock",),
            decoder_block_types=("ResBlock",) * 5 + ("EfficientViTBlock",),
            encoder_block_out_channels=(8,) * 6,
            decoder_block_out_channels=(8,) * 6,
            encoder_layers_per_block=(1,) * 6,
            decoder_layers_per_block=(1,) * 6,
            encoder_qkv_multiscales=((),) * 5 + ((5,),),
            decoder_qkv_multiscales=((),) * 5 + ((5,),),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
        ),
        text_encoder=_gemma(),
    )


def mochi() -> Any:
    """Mochi: clips of 1 + 6n frames."""
    return _made(
        diffusers.MochiPipeline,
        transformer=diffusers.MochiTransformer3DModel(
            in_channels=12,
            attention_head_dim=8,
            pooled_projection_dim=16,
            text_embed_dim=16,
            time_embed_dim=4,
            max_sequence_length=256,
            **_HEADS,
        ),
        vae=diffusers.AutoencoderKLMochi(
            latent_channels=12,
            encoder_block_out_channels=(32,) * 4,
            decoder_block_out_channels=(32,) * 4,
            layers_per_block=(1,) * 5,
        ),
        text_encoder=_t5(T5EncoderModel, T5Config),
    )


def lumina2() -> Any:
    """Lumina 2: the text is refined beside the picture."""
    return _made(
        diffusers.Lumina2Pipeline,
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=8,
            in_channels=4,
            hidden_size=24,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(512, 64, 64),
            cap_feat_dim=16,
        ),
        vae=_vae(latent_channels=4, shift_factor=0.06),
        text_encoder=GemmaModel(GemmaConfig(head_dim=8, num_key_value_heads=2, **_TEXT)),
    )


def z_image() -> Any:
    """Z-Image: the sizes of its patches are a list."""
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[512, 64, 64],
    )
    for parameter in transformer.parameters():  # its padding tokens are made of whatever lay in memory
        torch.nn.init.normal_(parameter, std=0.02)
    tokenizer = _tokenizer(512)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return _made(
        diffusers.ZImagePipeline,
        tokenizer=tokenizer,
        transformer=transformer,
        vae=_vae(latent_channels=4, shift_factor=0.06),
        text_encoder=Qwen3Model(Qwen3Config(head_dim=8, num_key_value_heads=2, **_TEXT)),
    )


def qwen_image() -> Any:
    """Qwen-Image: a video autoencoder for pictures, text from a model that also sees."""
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    text = {**_TEXT, "num_key_value_heads": 2, "rope_scaling": rope}
    return _made(
        diffusers.QwenImagePipeline,
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            attention_head_dim=16,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
            **_HEADS,
        ),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "ltx": ltx,
    "ltx image to video": ltx_image_to_video,
    "sana": sana,
    "mochi": mochi,
    "lumina 2": lumina2,
    "z-image": z_image,
    "qwen-image": qwen_image,
    "wan image to video": wan_image_to_video,
    "cogvideox image to video": cogvideox_image_to_video,
    "pixart": tiny_pipelines.pixart,
    "hunyuan video": tiny_pipelines.hunyuan_video,
}
