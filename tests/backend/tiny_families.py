"""Small random-weight pipelines of families that nothing else in Tilecast knows: all of it is read off them."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from transformers import (
    ByT5Tokenizer,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaConfig,
    GemmaModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.backend import tiny_pipelines, tiny_texts
from tests.backend.short_texts import read_short
from tests.backend.tiny_pipelines import _clip, _t5, _tokenizer, _vae
from tests.backend.tiny_texts import (
    HIDDEN,
    glm,
    letters,
    mistral3,
    qwen3,
    qwen3_vl,
    qwen25,
    qwen_letters,
    qwen_processor,
)

_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 64,
}
_HEADS = {"num_attention_heads": 2, "num_layers": 1}


def made(cls: type, **components: Any) -> Any:
    """A pipeline of these components; a flow-matching sampler and a tokenizer of letters where none are given."""
    for component in components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    components.setdefault("scheduler", diffusers.FlowMatchEulerDiscreteScheduler())
    components.setdefault("tokenizer", _tokenizer(512))
    read_short(cls)
    pipeline = cls(**components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _gemma() -> Any:
    return Gemma2Model(Gemma2Config(head_dim=8, num_key_value_heads=2, **_TEXT))


def ltx(cls: type = diffusers.LTXPipeline) -> Any:
    """LTX: 32 pixels and 8 frames a latent pixel are told under names of its own."""
    return made(
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
    return made(
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
    return made(
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
    return made(
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
        vae=_vae(levels=4, latent_channels=4, shift_factor=0.06),
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
    return made(
        diffusers.ZImagePipeline,
        tokenizer=letters(),
        transformer=transformer,
        vae=_vae(latent_channels=4, shift_factor=0.06),
        text_encoder=qwen3(),
    )


def qwen_image() -> Any:
    """Qwen-Image: a video autoencoder for pictures, text from a model that also sees."""
    return made(
        diffusers.QwenImagePipeline,
        transformer=_qwen_transformer(),
        vae=_qwen_autoencoder(),
        text_encoder=qwen25(),
    )


def _qwen_transformer(**config: Any) -> Any:
    return diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        attention_head_dim=16,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
        **_HEADS,
        **config,
    )


def _qwen_autoencoder(**config: Any) -> Any:
    sizes = {"base_dim": 8, "dim_mult": [1, 2, 4], "temperal_downsample": [False, True], **config}
    return diffusers.AutoencoderKLQwenImage(
        z_dim=4, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, **sizes
    )


def _flux_like(**config: Any) -> dict[str, Any]:
    return {
        "in_channels": 4,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        **config,
    }


def _flat_autoencoder(**config: Any) -> Any:
    """An autoencoder of one latent channel, which pipelines pack two by two."""
    return _vae(latent_channels=1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, **config)


def _flux2(cls: type, guided: bool, **text: Any) -> Any:
    return made(
        cls,
        transformer=diffusers.Flux2Transformer2DModel(
            **_flux_like(in_channels=16, joint_attention_dim=3 * HIDDEN, axes_dims_rope=[4, 4, 4, 4]),
            guidance_embeds=guided,
        ),
        vae=diffusers.AutoencoderKLFlux2(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
        ),
        **text,
    )


def flux2_dev() -> Any:
    """FLUX.2 dev: text from the layers of a model that sees, guidance an input, shared modulation."""
    return _flux2(diffusers.Flux2Pipeline, True, text_encoder=mistral3(), tokenizer=letters())


def flux2_klein() -> Any:
    """FLUX.2 klein: smaller, with true guidance where it is not distilled."""
    encoder = qwen3(Qwen3ForCausalLM, layers=3)
    return _flux2(diffusers.Flux2KleinPipeline, False, text_encoder=encoder, tokenizer=letters())


def chroma() -> Any:
    """Chroma: Flux whose modulations come from a small model, and text that is masked."""
    return made(
        diffusers.ChromaPipeline,
        transformer=diffusers.ChromaTransformer2DModel(
            **_flux_like(joint_attention_dim=16, axes_dims_rope=[4, 4, 8]),
            approximator_num_channels=8,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
        vae=_flat_autoencoder(),
        text_encoder=_t5(T5EncoderModel, T5Config),
    )


def pixart_alpha() -> Any:
    """PixArt-alpha: told the size of the picture beside its tokens."""
    sigma = tiny_pipelines.pixart()
    return made(  # of which all pictures are a megapixel: a latent pixel is 32 pixels wide
        diffusers.PixArtAlphaPipeline,
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=128,
            num_layers=2,
            attention_head_dim=12,
            num_attention_heads=2,
            caption_channels=16,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=24,
            use_additional_conditions=True,
        ),
        vae=_vae(levels=6, latent_channels=4),
        scheduler=sigma.scheduler,
        text_encoder=sigma.text_encoder,
        tokenizer=sigma.tokenizer,
    )


def cogview4() -> Any:
    """CogView 4: text padded in front to multiples of 16, sizes as a condition."""
    return made(
        diffusers.CogView4Pipeline,
        transformer=diffusers.CogView4Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=4,
            num_attention_heads=4,
            text_embed_dim=16,
            time_embed_dim=8,
            condition_dim=4,
        ),
        vae=_vae(levels=4, latent_channels=4),
        text_encoder=glm(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )


def krea2() -> Any:
    """Krea 2: several layers of the text encoder, which the model itself puts together; one stream of tokens."""
    return made(
        diffusers.Krea2Pipeline,
        transformer=diffusers.Krea2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=32,
            timestep_embed_dim=8,
            text_hidden_dim=HIDDEN,
            num_text_layers=3,
            text_num_attention_heads=2,
            text_num_key_value_heads=1,
            text_intermediate_size=16,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 2, 2),
            rope_theta=1000.0,
            norm_eps=1e-5,
        ),
        vae=_qwen_autoencoder(),
        text_encoder=qwen3_vl(),
        tokenizer=qwen_letters(),
        text_encoder_select_layers=(1, 2, 3),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def glm_image() -> Any:
    """GLM-Image: a language model writes a sketch in tokens, which the blocks are given with the text."""
    writer, processor = tiny_texts.glm_image()
    return made(
        diffusers.GlmImagePipeline,
        transformer=diffusers.GlmImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=16,
            time_embed_dim=16,
            condition_dim=8,
            prior_vq_quantizer_codebook_size=24,
        ),
        vae=_vae(levels=4, latent_channels=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
        text_encoder=T5EncoderModel(T5Config(vocab_size=384, d_model=16, d_ff=24, d_kv=8, num_layers=1, num_heads=2)),
        tokenizer=ByT5Tokenizer(),
        vision_language_encoder=writer,
        processor=processor,
    )


def ovis_image() -> Any:
    """Ovis-Image: text of one length, of which the padding counts."""
    return made(
        diffusers.OvisImagePipeline,
        transformer=diffusers.OvisImageTransformer2DModel(
            **_flux_like(joint_attention_dim=HIDDEN, axes_dims_rope=(4, 4, 8)), out_channels=4
        ),
        vae=_flat_autoencoder(),
        text_encoder=qwen3(),
        tokenizer=letters(),
    )


def qwen_image_edit() -> Any:
    """Qwen-Image-Edit: the tokens of given pictures follow the picture's. They are made a megapixel large whatever
    they were; here, 32 by 32 pixels."""
    pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE = pipeline_qwenimage_edit_plus.CONDITION_IMAGE_SIZE = 32 * 32
    tokenizer = qwen_letters()
    return made(
        diffusers.QwenImageEditPlusPipeline,
        transformer=_qwen_transformer(zero_cond_t=True),
        vae=_qwen_autoencoder(),
        text_encoder=qwen25(tokenizer),
        tokenizer=tokenizer,
        processor=qwen_processor(tokenizer),
    )


def auraflow() -> Any:
    """AuraFlow: registers in front of the text, positions that are learned."""
    return made(
        diffusers.AuraFlowPipeline,
        transformer=diffusers.AuraFlowTransformer2DModel(
            sample_size=32,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=16,
            pos_embed_max_size=256,
        ),
        vae=_vae(latent_channels=4),
        text_encoder=_t5(UMT5EncoderModel, UMT5Config),
    )


def hidream() -> Any:
    """HiDream: four text encoders, experts of which each token chooses two."""
    llama = LlamaConfig(pad_token_id=1, attn_implementation="eager", **_TEXT)
    pipeline = made(
        diffusers.HiDreamImagePipeline,
        transformer=diffusers.HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_channels=[16, 16],
            text_emb_dim=32,
            axes_dims_rope=(4, 2, 2),
            max_resolution=(16, 16),
            llama_layers=[0, 1],
            force_inference_output=True,
        ),
        vae=_vae(latent_channels=4, shift_factor=0.06),
        text_encoder=_clip(CLIPTextModelWithProjection, positions=128),
        tokenizer=_tokenizer(128),
        text_encoder_2=_clip(CLIPTextModelWithProjection, positions=128),
        tokenizer_2=_tokenizer(128),
        text_encoder_3=_t5(T5EncoderModel, T5Config),
        tokenizer_3=_tokenizer(128),
        text_encoder_4=LlamaForCausalLM(llama),
        tokenizer_4=_tokenizer(128),
    )
    pipeline.default_sample_size = 16  # all its pictures have that area
    return pipeline


def bria() -> Any:
    """Bria: Flux's blocks, and guidance by two calls."""
    return made(
        diffusers.BriaPipeline,
        transformer=diffusers.BriaTransformer2DModel(
            **_flux_like(in_channels=16, joint_attention_dim=16, axes_dims_rope=[4, 4, 8])
        ),
        vae=_vae(latent_channels=4, shift_factor=0.0),
        text_encoder=_t5(T5EncoderModel, T5Config),
    )


def lumina_next() -> Any:
    """Lumina-Next: positions stretched with the size and the time."""
    return made(
        diffusers.LuminaPipeline,
        transformer=diffusers.LuminaNextDiT2DModel(
            sample_size=8,
            in_channels=4,
            hidden_size=24,
            num_layers=1,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=16,
            cross_attention_dim=16,
        ),
        vae=_vae(levels=4, latent_channels=4),
        text_encoder=GemmaModel(GemmaConfig(head_dim=8, num_key_value_heads=2, **_TEXT)),
    )
