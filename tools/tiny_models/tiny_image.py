"""The parts of `tiny-image` before training, and how they become one stock SDXL pipeline.

An SDXL-class latent UNet at toy scale: three levels, cross-attention on the two lower ones, text and size
micro-conditioning. Like SDXL's refiner it has only the second text encoder. Nothing here is special to us:
`DiffusionPipeline.from_pretrained` loads what `pipeline().save_pretrained` wrote.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from backend.folder import EMBEDDED
from tools.tiny_models.scenes import all_prompts

FOLDER = EMBEDDED / "tiny-image"
LATENT_CHANNELS = 4
LATENT_FACTOR = 8
NATIVE_SIZE = 128  # pixels; canvases of 64 to 192 in multiples of SIZE_MULTIPLE are trained
SIZE_MULTIPLE = LATENT_FACTOR * 4  # the UNet halves the latent twice
STEPS = 20
GUIDANCE_SCALE = 3.0
TRAIN_TIMESTEPS = 1000
TEXT_WIDTH = 64
TEXT_TOKENS = 16
SIZE_EMBEDDING = 32


@dataclass
class Parts:
    """The trained parts of the model, and its tokenizer.

    diffusers resolves its classes lazily, which hides their methods from type checkers: hence `Any`.
    """

    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModelWithProjection
    unet: Any  # UNet2DConditionModel
    vae: Any  # AutoencoderKL

    @classmethod
    def untrained(cls) -> Parts:
        """Fresh parts, with weights drawn from torch's global generator."""
        tokenizer = word_tokenizer()
        return cls(tokenizer, _text_encoder(tokenizer), _unet(), _vae())

    def pipeline(self) -> Any:
        """The stock pipeline of these very parts (no copies)."""
        return StableDiffusionXLPipeline(
            vae=self.vae,
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=self.text_encoder,
            tokenizer_2=self.tokenizer,
            unet=self.unet,
            scheduler=noise_schedule(),
            force_zeros_for_empty_prompt=False,
            add_watermarker=False,
        )


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the closed grammar; case does not matter, unknown words become `<unk>`."""
    words = sorted({word for prompt in all_prompts() for word in prompt.split()})
    special = ["<pad>", "<start>", "<unk>", "<end>"]
    vocabulary = {word: index for index, word in enumerate(special + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(word, vocabulary[word]) for word in ("<start>", "<end>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=TEXT_TOKENS,
    )


def noise_schedule() -> Any:
    """Velocity prediction on DDPM's linear schedule.

    A flat scene is decided at high noise: the linear schedule ends near zero signal, so the first step
    carries no hint of the background's brightness, and trailing spacing starts sampling right there.
    """
    return EulerDiscreteScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def _text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModelWithProjection:
    # Three layers, because SDXL conditions on the last but one.
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TEXT_TOKENS,
        hidden_act="gelu",
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModelWithProjection(config)


def _unet() -> Any:
    return UNet2DConditionModel(
        sample_size=NATIVE_SIZE // LATENT_FACTOR,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(48, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 2, 3),  # diffusers' name for the number of heads
        cross_attention_dim=TEXT_WIDTH,
        use_linear_projection=True,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=SIZE_EMBEDDING,
        projection_class_embeddings_input_dim=6 * SIZE_EMBEDDING + TEXT_WIDTH,
    )


def _vae() -> Any:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 32, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=NATIVE_SIZE,
        scaling_factor=1.0,
        force_upcast=False,
    )


def save(parts: Parts, folder: Path) -> None:
    """Write the pipeline in diffusers' own folder layout; `folder` appears only when it is complete."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    parts.pipeline().save_pretrained(partial)
    for name in ("unet", "vae"):  # stored in half precision, loaded in any
        weights = partial / name / "diffusion_pytorch_model.safetensors"
        halves = {key: value.half().contiguous() for key, value in load_file(weights).items()}
        save_file(halves, weights, metadata={"format": "pt"})
    # Newer transformers renamed the class and older ones cannot load it by its new name.
    for path in (partial / "model_index.json", partial / "tokenizer_2" / "tokenizer_config.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("TokenizersBackend", "PreTrainedTokenizerFast"), encoding="utf-8")
    partial.rename(folder)


@torch.no_grad()
def normalise_latents(vae: Any, latents: torch.Tensor) -> None:
    """Rescale the VAE's latent space to mean 0 and deviation 1 a channel, judged by `latents` (N, C, h, w).

    The change is folded into the two 1x1 convolutions around the latent, so pictures stay the same and
    `scaling_factor` stays 1.
    """
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    into, out = vae.quant_conv, vae.post_quant_conv
    into.bias[:channels] -= mean
    into.bias[:channels] /= deviation
    into.weight[:channels] /= deviation[:, None, None, None]
    into.bias[channels:] -= 2 * deviation.log()
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation[None, :, None, None]
