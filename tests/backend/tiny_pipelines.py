"""Small random-weight pipelines of real classes, built without any file or download."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    CogVideoXVideoToVideoPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    HeunDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
    WanVideoToVideoPipeline,
)
from diffusers.pipelines.flux import pipeline_flux_kontext
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.backend.short_texts import MOST_TOKENS, read_short

read_short(
    CogVideoXPipeline,
    CogVideoXVideoToVideoPipeline,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    HunyuanVideoPipeline,
    PixArtSigmaPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
    WanPipeline,
    WanVideoToVideoPipeline,
)

KONTEXT_SIDES = ((24, 16), (16, 16), (16, 24))
"""(width, height) of the pictures that `kontext` is shown."""


def _tokenizer(length: int, words: str = "") -> PreTrainedTokenizerFast:
    """One token a letter; or one a word, of which the given ones have tokens of their own."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for unit in words.split() or "abcdefghijklmnopqrstuvwxyz ":
        vocabulary[unit] = len(vocabulary)
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Whitespace() if words else pre_tokenizers.Split("", "isolated")
    letters.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=letters,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=length,
    )


def _clip(cls: type, hidden: int = 16, positions: int = 77) -> Any:
    return cls(
        CLIPTextConfig(
            max_position_embeddings=positions,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
            hidden_size=hidden,
            intermediate_size=24,
            num_attention_heads=2,
            num_hidden_layers=2,
            vocab_size=64,
            projection_dim=hidden,
        )
    ).eval()


def _t5(cls: type, config: type, width: int = 16) -> Any:
    return cls(
        config(vocab_size=64, d_model=width, d_ff=24, d_kv=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    ).eval()


def _vae(levels: int = 2, **kwargs: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        norm_num_groups=4,
        **kwargs,
    ).eval()


def sdxl(heun: bool = False) -> StableDiffusionXLPipeline:
    """SDXL classes, latent factor 2; a second-order sampler on request."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=64,
        cross_attention_dim=32,
        norm_num_groups=4,
    ).eval()
    sampler = HeunDiscreteScheduler if heun else EulerDiscreteScheduler
    pipeline = StableDiffusionXLPipeline(
        unet=unet,
        vae=_vae(latent_channels=4),
        scheduler=sampler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        text_encoder=_clip(CLIPTextModelWithProjection),
        text_encoder_2=_clip(CLIPTextModelWithProjection),
        tokenizer=_tokenizer(24),
        tokenizer_2=_tokenizer(24),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def flux() -> FluxPipeline:
    """Flux classes: guidance is an input, position ids are shared by the batch."""
    torch.manual_seed(0)
    pipeline = FluxPipeline(
        transformer=FluxTransformer2DModel(
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            axes_dims_rope=[4, 4, 8],
            in_channels=4,
            patch_size=1,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            guidance_embeds=True,
        ).eval(),
        vae=_vae(latent_channels=1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=_clip(CLIPTextModel),
        text_encoder_2=_t5(T5EncoderModel, T5Config),
        tokenizer=_tokenizer(24),
        tokenizer_2=_tokenizer(24),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def kontext() -> FluxKontextPipeline:
    """Flux Kontext. It gives the picture that it is shown one of the shapes of its training; here, of few pixels."""
    pipeline_flux_kontext.PREFERRED_KONTEXT_RESOLUTIONS = KONTEXT_SIDES
    pipeline = FluxKontextPipeline(**flux().components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def flux_fill() -> FluxFillPipeline:
    """Flux Fill: the masked picture and the mask lie beside the latents, in channels of their own."""
    made = flux()
    config = {name: value for name, value in made.transformer.config.items() if not name.startswith("_")}
    transformer = FluxTransformer2DModel(**{**config, "in_channels": 24, "out_channels": 4}).eval()
    parts = {name: part for name, part in made.components.items() if name not in ("image_encoder", "feature_extractor")}
    pipeline = FluxFillPipeline(**{**parts, "transformer": transformer})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def wan(expand_timesteps: bool = False) -> WanPipeline:
    """Wan classes: a clip, and two denoiser calls a step (text and no text); a timestep a token on request (2.2 5B)."""
    torch.manual_seed(0)
    pipeline = WanPipeline(
        transformer=WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=16,
            freq_dim=32,
            ffn_dim=32,
            num_layers=1,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        ).eval(),
        vae=AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=_t5(UMT5EncoderModel, UMT5Config),
        tokenizer=_tokenizer(24),
        expand_timesteps=expand_timesteps,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sd3(channels: int = 4) -> StableDiffusion3Pipeline:
    """SD3.5 classes: normed queries and keys, a block with a second attention; latent factor 2."""
    torch.manual_seed(0)
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=channels,
            out_channels=channels,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_projection_dim=16,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            pos_embed_max_size=24,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ).eval(),
        vae=_vae(latent_channels=channels, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=_clip(CLIPTextModelWithProjection),
        text_encoder_2=_clip(CLIPTextModelWithProjection),
        text_encoder_3=_t5(T5EncoderModel, T5Config, width=32),
        tokenizer=_tokenizer(24),
        tokenizer_2=_tokenizer(24),
        tokenizer_3=_tokenizer(24),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pixart() -> PixArtSigmaPipeline:
    """PixArt-sigma classes: text padded to 300 tokens and masked; sizes near 256 px, latent factor 8."""
    torch.manual_seed(0)
    pipeline = PixArtSigmaPipeline(
        transformer=PixArtTransformer2DModel(
            sample_size=32,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_channels=16,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=16,
        ).eval(),
        vae=_vae(levels=4, latent_channels=4),
        scheduler=DPMSolverMultistepScheduler(beta_end=0.002),  # random weights would blow up from deep noise
        text_encoder=_t5(T5EncoderModel, T5Config),
        tokenizer=_tokenizer(24),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def cogvideox(rotary: bool = True) -> CogVideoXPipeline:
    """CogVideoX classes: rotary positions come from the pipeline (5B), or sine ones are added by the model (2B)."""
    torch.manual_seed(0)
    pipeline = CogVideoXPipeline(
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=16,
            text_embed_dim=16,
            num_layers=2,
            sample_width=4,
            sample_height=4,
            sample_frames=9,
            max_text_seq_length=MOST_TOKENS,
            use_rotary_positional_embeddings=rotary,
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


def hunyuan_video() -> HunyuanVideoPipeline:
    """HunyuanVideo classes: masked text behind a long template, guidance as an input; latent factor 8."""
    torch.manual_seed(0)
    words = "a cat two dogs bird whale small red green"
    pipeline = HunyuanVideoPipeline(
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=1,
            text_embed_dim=16,
            pooled_projection_dim=16,
            rope_axes_dim=(2, 4, 4),
        ).eval(),
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=LlamaModel(
            LlamaConfig(
                bos_token_id=0,
                eos_token_id=2,
                pad_token_id=1,
                hidden_size=16,
                intermediate_size=24,
                num_attention_heads=2,
                num_hidden_layers=3,
                vocab_size=64,
            )
        ).eval(),
        tokenizer=_tokenizer(512, words),
        text_encoder_2=_clip(CLIPTextModel),
        tokenizer_2=_tokenizer(24, words),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
