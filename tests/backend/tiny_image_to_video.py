"""Further small random-weight pipelines of clips: image to video, and CogVideoX 1.5."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoTransformer3DModel,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, T5Config, T5EncoderModel

from tests.backend.short_texts import MOST_TOKENS, read_short
from tests.backend.tiny_pipelines import _t5, _tokenizer, hunyuan_video, wan

read_short(CogVideoXImageToVideoPipeline, HunyuanVideoImageToVideoPipeline, WanImageToVideoPipeline)


def wan_image_to_video(expand_timesteps: bool = False) -> WanImageToVideoPipeline:
    """Wan 2.1: the picture's latents and a mask appended as channels, and its embedding beside the text; on request as
    2.2 5B, which puts it in place of the first frame, at a timestep of its own."""
    torch.manual_seed(0)
    text_to_video = wan()
    embedded: dict[str, Any] = {} if expand_timesteps else {"image_dim": 16, "added_kv_proj_dim": 24}
    pipeline = WanImageToVideoPipeline(
        transformer=WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16 if expand_timesteps else 16 + 4 + 16,
            out_channels=16,
            text_dim=16,
            freq_dim=32,
            ffn_dim=32,
            num_layers=1,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
            **embedded,
        ).eval(),
        vae=text_to_video.vae,
        scheduler=text_to_video.scheduler,
        text_encoder=text_to_video.text_encoder,
        tokenizer=text_to_video.tokenizer,
        image_encoder=None if expand_timesteps else _image_encoder(),
        image_processor=None if expand_timesteps else CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        expand_timesteps=expand_timesteps,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _image_encoder() -> CLIPVisionModel:
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_attention_heads=2,
            num_hidden_layers=2,
            image_size=32,
            patch_size=16,
            projection_dim=16,
        )
    ).eval()


def hunyuan_video_image_to_video(condition: str) -> HunyuanVideoImageToVideoPipeline:
    """The picture as channels (``latent_concat``) or in place of the first frame (``token_replace``); two latent pixels
    a token's side. Without the multimodal text encoder: to be called with embeddings."""
    torch.manual_seed(0)
    text_to_video = hunyuan_video()
    pipeline = HunyuanVideoImageToVideoPipeline(
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=4 + 4 + 1 if condition == "latent_concat" else 4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=2,
            text_embed_dim=16,
            pooled_projection_dim=16,
            rope_axes_dim=(2, 4, 4),
            image_condition_type=condition,
        ).eval(),
        vae=text_to_video.vae,
        scheduler=text_to_video.scheduler,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        image_processor=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _cogvideox(cls: type, **config: Any) -> Any:
    torch.manual_seed(0)
    pipeline = cls(
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            out_channels=4,
            time_embed_dim=16,
            text_embed_dim=16,
            num_layers=1,
            use_rotary_positional_embeddings=True,
            **config,
        ).eval(),
        vae=AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        ).eval(),
        scheduler=CogVideoXDDIMScheduler(),
        text_encoder=_t5(T5EncoderModel, T5Config),
        tokenizer=_tokenizer(24),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def cogvideox15() -> CogVideoXPipeline:
    """CogVideoX 1.5: two latent frames a token, rotary positions up to 16 x 16 latent pixels and no further."""
    return _cogvideox(
        CogVideoXPipeline, in_channels=4, sample_width=16, sample_height=16, patch_size_t=2, patch_bias=False
    )


def cogvideox_image_to_video(learned: bool = False) -> CogVideoXImageToVideoPipeline:
    """CogVideoX 1.5: the picture's latents appended as channels; or 1.0, which adds learned positions for 6 x 4 latent
    pixels and 9 frames."""
    if learned:
        size = {"sample_width": 4, "sample_height": 6, "sample_frames": 9}
        return _cogvideox(
            CogVideoXImageToVideoPipeline,
            in_channels=4 + 4,
            max_text_seq_length=MOST_TOKENS,
            use_learned_positional_embeddings=True,
            **size,
        )
    return _cogvideox(
        CogVideoXImageToVideoPipeline,
        in_channels=4 + 4,
        sample_width=16,
        sample_height=16,
        patch_size_t=2,
        ofs_embed_dim=16,
    )
