"""Further small random-weight pipelines: with guiders, a second sampler, a second denoiser or a safety checker."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanImage,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    WanPipeline,
)
from diffusers.guiders import AdaptiveProjectedMixGuidance
from diffusers.models.autoencoders import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    ByT5Tokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    T5Config,
    T5EncoderModel,
)

from tests.backend.short_texts import read_short
from tests.backend.tiny_pipelines import _clip, _tokenizer, _vae, wan

read_short(LTX2Pipeline)


def _llama(layers: int) -> LlamaModel:
    return LlamaModel(
        LlamaConfig(
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
            hidden_size=16,
            intermediate_size=24,
            num_attention_heads=2,
            num_hidden_layers=layers,
            vocab_size=64,
        )
    ).eval()


def hunyuan_image(momentum: float = -0.5) -> HunyuanImagePipeline:
    """HunyuanImage 2.1: guiders with a momentum combine two denoiser calls a step; latent factor 4, sizes of 8."""
    torch.manual_seed(0)
    guider = AdaptiveProjectedMixGuidance(
        guidance_scale=3.0,
        adaptive_projected_guidance_scale=4.0,
        adaptive_projected_guidance_momentum=momentum,
        adaptive_projected_guidance_start_step=1,
    )
    pipeline = HunyuanImagePipeline(
        transformer=HunyuanImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=16,
            text_embed_2_dim=16,
            rope_axes_dim=(4, 4),
        ).eval(),
        vae=AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32, 32, 32),
            layers_per_block=1,
            scaling_factor=0.5,
            sample_size=32,
            spatial_compression_ratio=4,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=_llama(3),
        tokenizer=_tokenizer(24),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=384, d_model=16, d_ff=24, d_kv=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
        ).eval(),
        tokenizer_2=ByT5Tokenizer(),
        guider=guider,
        ocr_guider=copy.deepcopy(guider),
    )
    pipeline.tokenizer_max_length, pipeline.tokenizer_2_max_length = 24, 16
    pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx = "{}", 0
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ltx2() -> LTX2Pipeline:
    """LTX-2: a clip and its sound, the sound's sampler a copy of the clip's; sizes of 32."""
    torch.manual_seed(0)
    pipeline = LTX2Pipeline(
        transformer=LTX2VideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=2,
            audio_attention_head_dim=4,
            audio_cross_attention_dim=8,
            num_layers=1,
            caption_channels=16,
            rope_double_precision=False,
        ).eval(),
        vae=AutoencoderKLLTX2Video(
            latent_channels=4,
            block_out_channels=(8,),
            decoder_block_out_channels=(8,),
            layers_per_block=(1,),
            decoder_layers_per_block=(1, 1),
            spatio_temporal_scaling=(True,),
            decoder_spatio_temporal_scaling=(True,),
            decoder_inject_noise=(False, False),
            downsample_type=("spatial",),
            upsample_residual=(False,),
            upsample_factor=(1,),
            encoder_spatial_padding_mode="zeros",
            decoder_spatial_padding_mode="zeros",
        ).eval(),
        audio_vae=AutoencoderKLLTX2Audio(
            base_channels=4,
            ch_mult=(1,),
            num_res_blocks=1,
            latent_channels=2,
            mel_bins=8,
        ).eval(),
        text_encoder=_llama(1),
        tokenizer=_tokenizer(24),
        connectors=LTX2TextConnectors(
            caption_channels=16,
            text_proj_in_factor=2,
            video_connector_num_attention_heads=4,
            video_connector_attention_head_dim=4,
            video_connector_num_layers=1,
            video_connector_num_learnable_registers=None,
            audio_connector_num_attention_heads=4,
            audio_connector_attention_head_dim=4,
            audio_connector_num_layers=1,
            audio_connector_num_learnable_registers=None,
            connector_rope_base_seq_len=32,
            rope_double_precision=False,
        ).eval(),
        vocoder=LTX2Vocoder(
            in_channels=16,
            hidden_channels=16,
            out_channels=2,
            upsample_kernel_sizes=[4],
            upsample_factors=[2],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3, 5]],
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def wan_of_two() -> WanPipeline:
    """Wan 2.2 14B: the later half of the steps is another denoiser's."""
    pipeline = wan()
    second = copy.deepcopy(pipeline.transformer)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in second.parameters():
            weights.add_(0.2 * torch.randn_like(weights))
    pipeline.register_modules(transformer_2=second)
    pipeline.register_to_config(boundary_ratio=0.8)
    return pipeline


def _stable_diffusion(cls: type, checked: bool = False, **more: Any) -> Any:
    torch.manual_seed(0)
    checker = None
    if checked:
        vision = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "image_size": 32,
            "patch_size": 16,
        }
        checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8)).eval()
        with torch.no_grad():
            checker.concept_embeds_weights.fill_(-9.0)  # whatever it is shown
    pipeline = cls(
        unet=UNet2DConditionModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            norm_num_groups=4,
            attention_head_dim=4,
        ).eval(),
        vae=_vae(latent_channels=4),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        text_encoder=_clip(CLIPTextModel),
        tokenizer=_tokenizer(24),
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32) if checked else None,
        requires_safety_checker=checked,
        **more,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stable_diffusion(checked: bool = False) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5; on request with a safety checker that blacks every picture out."""
    return _stable_diffusion(StableDiffusionPipeline, checked)


def image_to_image() -> StableDiffusionImg2ImgPipeline:
    """Stable Diffusion 1.5, from a picture."""
    return _stable_diffusion(StableDiffusionImg2ImgPipeline)


def perturbed() -> StableDiffusionPAGPipeline:
    """Stable Diffusion 1.5 with perturbed-attention guidance, which exchanges processors of the denoiser."""
    return _stable_diffusion(StableDiffusionPAGPipeline, pag_applied_layers="mid")
