"""Text encoders and autoencoders that models share, in the configurations of their published checkpoints."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from backend.coroutine import DenoiserCall
from backend.shapes.stages import Inputs, Shape, StageWork, decoder

_NO_QUANT: dict[str, Any] = {"use_quant_conv": False, "use_post_quant_conv": False}


def clip_l() -> Any:
    """OpenAI's CLIP ViT-L/14."""
    config = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    return transformers.CLIPTextModel(config)


def clip_h() -> Any:
    """OpenCLIP ViT-H/14, of which Stable Diffusion 2 takes the last layer but one."""
    config = transformers.CLIPTextConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, projection_dim=512,
        hidden_act="gelu",
    )  # fmt: skip
    return transformers.CLIPTextModel(config)


def clip_g() -> Any:
    """OpenCLIP ViT-bigG/14."""
    config = transformers.CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280,
        hidden_act="gelu",
    )  # fmt: skip
    return transformers.CLIPTextModelWithProjection(config)


def clip_h_vision() -> Any:
    """OpenCLIP ViT-H/14 on pictures."""
    config = transformers.CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14,
        image_size=224, projection_dim=1024, hidden_act="gelu",
    )  # fmt: skip
    return transformers.CLIPVisionModel(config)


_T5_XXL: dict[str, Any] = {
    "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False, "use_cache": False,
}  # fmt: skip


def t5() -> Any:
    """The encoder of T5 v1.1 XXL."""
    return transformers.T5EncoderModel(transformers.T5Config(vocab_size=32128, **_T5_XXL))


def umt5() -> Any:
    """The encoder of UMT5 XXL."""
    return transformers.UMT5EncoderModel(transformers.UMT5Config(vocab_size=256384, **_T5_XXL))


def byt5() -> Any:
    """The encoder of ByT5 small, for the glyphs that HunyuanVideo 1.5 writes."""
    config = transformers.T5Config(
        vocab_size=1510, d_model=1472, d_ff=3584, d_kv=64, num_layers=12, num_heads=6, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return transformers.T5EncoderModel(config)


def llama() -> Any:
    """Llama 3 8B, the text part of HunyuanVideo's LLaVA."""
    config = transformers.LlamaConfig(
        vocab_size=128320, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192,
    )  # fmt: skip
    return transformers.LlamaModel(config)


_HIDDEN: dict[str, Any] = {"use_cache": False, "output_hidden_states": True}
"""Pipelines take what layers in between have made."""

_QWEN25: dict[str, Any] = {
    "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False, **_HIDDEN,
}  # fmt: skip


def qwen25() -> Any:
    """The text part of Qwen2.5-VL 7B, with its head."""
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**_QWEN25))


def qwen25_headless() -> Any:
    """The text part of Qwen2.5-VL 7B, without its head."""
    return transformers.Qwen2Model(transformers.Qwen2Config(**_QWEN25))


def qwen25_vision() -> Any:
    """The vision part of Qwen2.5-VL 7B."""
    config = Qwen2_5_VLVisionConfig(
        depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584, tokens_per_second=2
    )
    return Qwen2_5_VisionTransformerPretrainedModel(config)


_QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True, **_HIDDEN,
}  # fmt: skip


def qwen3_4b() -> Any:
    """Qwen3 4B, with its head."""
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**_QWEN3_4B))


def qwen3_4b_headless() -> Any:
    """Qwen3 4B, without its head."""
    return transformers.Qwen3Model(transformers.Qwen3Config(**_QWEN3_4B))


def qwen3_8b() -> Any:
    """Qwen3 8B, with its head."""
    config = transformers.Qwen3Config(
        vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, tie_word_embeddings=False, **_HIDDEN,
    )  # fmt: skip
    return transformers.Qwen3ForCausalLM(config)


def mistral_24b() -> Any:
    """The text part of Mistral Small 3.2, with its head."""
    config = transformers.MistralConfig(
        vocab_size=131072, hidden_size=5120, intermediate_size=32768, num_hidden_layers=40, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, sliding_window=None, tie_word_embeddings=False, **_HIDDEN,
    )  # fmt: skip
    return transformers.MistralForCausalLM(config)


def pixtral_vision() -> Any:
    """The vision part of Mistral Small 3.2, without the layers that join it to the text."""
    config = transformers.PixtralVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=1540,
        patch_size=14,
    )  # fmt: skip
    return transformers.PixtralVisionModel(config)


def gemma2_2b() -> Any:
    """Gemma 2 2B, without its head."""
    config = transformers.Gemma2Config(
        vocab_size=256000, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
        num_key_value_heads=4, head_dim=256, use_cache=False,
    )  # fmt: skip
    return transformers.Gemma2Model(config)


def gemma3_12b() -> Any:
    """The text part of Gemma 3 12B, with its head."""
    config = transformers.Gemma3TextConfig(
        vocab_size=262208, hidden_size=3840, intermediate_size=15360, num_hidden_layers=48, num_attention_heads=16,
        num_key_value_heads=8, head_dim=256, **_HIDDEN,
    )  # fmt: skip
    return transformers.Gemma3ForCausalLM(config)


def gemma3_vision() -> Any:
    """The vision part of Gemma 3, without the layers that join it to the text."""
    config = transformers.SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=896,
        patch_size=14, vision_use_head=False,
    )  # fmt: skip
    return transformers.SiglipVisionModel(config)


def _image_vae(channels: int, **config: Any) -> StageWork:
    blocks = {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    return decoder(channels, lambda: diffusers.AutoencoderKL(**blocks, **config))


def _dc_ae() -> Any:
    blocks = ("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock", "EfficientViTBlock")
    return diffusers.AutoencoderDC(
        encoder_block_types=blocks, decoder_block_types=blocks, upsample_block_type="interpolate",
        downsample_block_type="conv",
    )  # fmt: skip


def _ltx() -> Any:
    return diffusers.AutoencoderKLLTXVideo(
        block_out_channels=(128, 256, 512, 1024, 2048), decoder_block_out_channels=(256, 512, 1024),
        down_block_types=("LTXVideo095DownBlock3D",) * 4, layers_per_block=(4, 6, 6, 2, 2),
        decoder_layers_per_block=(5, 5, 5, 5), spatio_temporal_scaling=(True, True, True, True),
        decoder_spatio_temporal_scaling=(True, True, True), decoder_inject_noise=(False, False, False, False),
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        upsample_residual=(True, True, True), upsample_factor=(2, 2, 2), timestep_conditioning=True,
    )  # fmt: skip


def _wan_22() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=160, decoder_base_dim=256, z_dim=48, is_residual=True, in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=16, latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
    )  # fmt: skip


def ltx2_sounds(latent_frames: int) -> int:
    """Latents of the sound of a clip of LTX-2: 25 for 24 frames, which are a second."""
    return round((1 + 8 * (latent_frames - 1)) / 24 * 25)


class _Vocoder(LTX2Vocoder):
    def decode(self, spectrum: Any) -> Any:
        return self(spectrum)


def _ltx2_decoder() -> StageWork:
    """Pictures and sound."""

    def make() -> list[Any]:
        video = diffusers.AutoencoderKLLTX2Video(decoder_causal=False)
        return [video, diffusers.AutoencoderKLLTX2Audio(), _Vocoder()]

    def call(index: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        sounds = ltx2_sounds(shape[0])
        inputs = ((rows, 128, *shape), (rows, 8, sounds, 16), (rows, 2, 4 * sounds - 3, 64))
        return DenoiserCall((given.noise(*inputs[index]),), {})

    return StageWork(make, call, "decode")


def _ltx2_encoder(text: int = 1024) -> StageWork:
    """Gemma, and what joins the outcomes of all its layers."""

    def call(index: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        if index == 0:
            return DenoiserCall((given.tokens(rows, text, below=module.config.vocab_size),), {})
        config = module.config
        layers = given.noise(rows, text, config.caption_channels * config.text_proj_in_factor)
        return DenoiserCall((layers, given.mask(rows, text)), {})

    def make() -> list[Any]:
        return [gemma3_12b(), LTX2TextConnectors(rope_type="split")]

    return StageWork(make, call, held=lambda: [gemma3_vision()])


SD_VAE = _image_vae(4)
FLUX_VAE = _image_vae(16, **_NO_QUANT)
FLUX2_VAE = decoder(32, diffusers.AutoencoderKLFlux2)
QWEN_VAE = decoder(16, diffusers.AutoencoderKLQwenImage)
DC_AE = decoder(32, _dc_ae)
WAN_VAE = decoder(16, diffusers.AutoencoderKLWan)
WAN_22_VAE = decoder(48, _wan_22)
LTX_VAE = decoder(128, _ltx)
LTX2_ENCODER = _ltx2_encoder()
LTX2_DECODER = _ltx2_decoder()
COGVIDEOX_VAE = decoder(16, diffusers.AutoencoderKLCogVideoX, ((8, 30, 45), (8, 25, 36)))
HUNYUAN_VAE = decoder(16, diffusers.AutoencoderKLHunyuanVideo, ((5, 32, 32), (3, 24, 24)))
HUNYUAN_15_VAE = decoder(32, diffusers.AutoencoderKLHunyuanVideo15)
MOCHI_VAE = decoder(12, diffusers.AutoencoderKLMochi)
