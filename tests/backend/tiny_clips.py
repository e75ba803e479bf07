"""Small random-weight pipelines of clips that have no place elsewhere."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer, CLIPTextModel, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from tests.backend.tiny_families import made
from tests.backend.tiny_pipelines import _clip, _t5, _tokenizer, _vae
from tests.backend.tiny_texts import letters, qwen2, qwen25, qwen25_text, qwen_letters, qwen_processor

_WAN: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}


def _t5_letters() -> dict[str, Any]:
    return {"text_encoder": _t5(T5EncoderModel, T5Config), "tokenizer": _tokenizer(512)}


def wan_autoencoder(channels: int = 16) -> Any:
    """8 pixels and 4 frames a latent pixel."""
    return diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=channels, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )


def _video_autoencoder() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )


def wan_vace() -> Any:
    """Wan VACE: blocks beside the others read what a clip is to keep."""
    return made(
        diffusers.WanVACEPipeline,
        transformer=diffusers.WanVACETransformer3DModel(**_WAN, vace_layers=[0], vace_in_channels=96),
        vae=wan_autoencoder(),
        text_encoder=_t5(UMT5EncoderModel, UMT5Config),
    )


def skyreels(cls: type = diffusers.SkyReelsV2Pipeline) -> Any:
    """SkyReels 2: Wan's blocks, a sampler with a memory."""
    return made(
        cls,
        transformer=diffusers.SkyReelsV2Transformer3DModel(**_WAN, inject_sample_info=False),
        vae=wan_autoencoder(),
        text_encoder=_t5(UMT5EncoderModel, UMT5Config),
        scheduler=diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    )


def skyreels_forcing() -> Any:
    """SkyReels 2 with a timestep a frame, and a sampler for each."""
    return skyreels(diffusers.SkyReelsV2DiffusionForcingPipeline)


def hunyuan_video15() -> Any:
    """HunyuanVideo 1.5: two texts and a picture that is none beside the clip, a guider, 16 pixels a latent pixel."""
    tokenizer = letters(132)
    tokenizer.chat_template = "{{ 'a' * 107 }}{{ messages[-1]['content'] }}"  # the pipeline leaves 108 tokens out
    pipeline = made(
        diffusers.HunyuanVideo15Pipeline,
        transformer=diffusers.HunyuanVideo15Transformer3DModel(
            in_channels=9,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_refiner_layers=1,
            mlp_ratio=2.0,
            text_embed_dim=16,
            text_embed_2_dim=16,
            image_embed_dim=12,
            rope_axes_dim=(2, 2, 4),
            target_size=16,
            task_type="t2v",
        ),
        vae=diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1
        ),
        text_encoder=qwen25_text(),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=384, d_model=16, d_ff=24, d_kv=8, num_layers=1, num_heads=2)),
        tokenizer_2=ByT5Tokenizer(),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
    )
    pipeline.tokenizer_max_length, pipeline.tokenizer_2_max_length, pipeline.vision_num_semantic_tokens = 32, 8, 4
    return pipeline


def kandinsky5() -> Any:
    """Kandinsky 5: the shape of the clip goes with its tokens through every block."""
    return _kandinsky5(diffusers.Kandinsky5T2VPipeline, _video_autoencoder())


def kandinsky5_image() -> Any:
    """Kandinsky 5 for pictures, which makes the nearest of a few sizes whatever it is asked for."""
    pipeline = _kandinsky5(diffusers.Kandinsky5T2IPipeline, _vae(levels=4, latent_channels=4))
    pipeline.resolutions = [(48, 64), (64, 48), (48, 96), (64, 64)]
    return pipeline


def _kandinsky5(cls: type, vae: Any) -> Any:
    tokenizer = qwen_letters()
    pipeline = made(
        cls,
        transformer=diffusers.Kandinsky5Transformer3DModel(
            in_text_dim=16,
            in_text_dim2=16,
            time_dim=16,
            model_dim=32,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=2,
            axes_dims=(4, 6, 6),
        ),
        vae=vae,
        text_encoder=qwen25(tokenizer),
        tokenizer=qwen_processor(tokenizer),
        text_encoder_2=_clip(CLIPTextModel),
        tokenizer_2=_tokenizer(77),
    )
    pipeline.prompt_template, pipeline.prompt_template_encode_start_idx = "{}", 0
    return pipeline


def allegro() -> Any:
    """Allegro: rotary positions come from the pipeline."""
    return made(
        diffusers.AllegroPipeline,
        transformer=diffusers.AllegroTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=24,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            cross_attention_dim=48,
            caption_channels=16,
            sample_width=8,
            sample_height=8,
            sample_frames=8,
        ),
        vae=diffusers.AutoencoderKLAllegro(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2),
        scheduler=diffusers.DDIMScheduler(),
        **_t5_letters(),
    )


def latte() -> Any:
    """Latte: blocks of space and of time in turn, all clips of 16 frames."""
    return made(
        diffusers.LattePipeline,
        transformer=diffusers.LatteTransformer3DModel(
            sample_size=8,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_channels=16,
            in_channels=4,
            cross_attention_dim=16,
            out_channels=8,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
        ),
        vae=_vae(levels=4, latent_channels=4),
        scheduler=diffusers.DDIMScheduler(),
        **_t5_letters(),
    )


def easyanimate() -> Any:
    """EasyAnimate: text and clip in one attention, rotary positions from the pipeline."""
    tokenizer = qwen_letters()
    return made(
        diffusers.EasyAnimatePipeline,
        transformer=diffusers.EasyAnimateTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            patch_size=2,
            sample_width=8,
            sample_height=8,
            num_layers=2,
            mmdit_layers=1,
            time_embed_dim=8,
            text_embed_dim=16,
        ),
        vae=diffusers.AutoencoderKLMagvit(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2
        ),
        text_encoder=qwen2(tokenizer),
        tokenizer=tokenizer,
    )
