"""The parts of `tiny-video` before training, and how they become one stock Wan pipeline.

A Wan-class text-to-video DiT at toy scale: rotary positions, so any canvas works; self-attention over all frames;
cross-attention to the text; a causal video VAE of whose latent frames the first is one frame and the others are four.
Nothing here is special to us: `DiffusionPipeline.from_pretrained` loads what `pipeline().save_pretrained` wrote.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from backend.folder import EMBEDDED
from tools.tiny_models.moving_scenes import all_scenes

FOLDER = EMBEDDED / "tiny-video"
LATENT_CHANNELS = 8
LATENT_FACTOR = 4
FRAME_FACTOR = 4
NATIVE_SIZE = 64  # pixels; canvases of 32 to 96 are trained
SIZE_MULTIPLE = 16  # WanPipeline takes no other sizes
STEPS = 20
GUIDANCE_SCALE = 6.0
SIGMA_SHIFT = 5.0  # flat things are told apart, and so decided, in strong noise
TEXT_WIDTH = 64
WIDTH = 128
LAYERS = 5


@dataclass
class Parts:
    """The trained parts of the model, and its tokenizer.

    diffusers resolves its classes lazily, which hides their methods from type checkers: hence `Any`.
    """

    tokenizer: PreTrainedTokenizerFast
    text_encoder: UMT5EncoderModel
    transformer: Any  # WanTransformer3DModel
    vae: Any  # AutoencoderKLWan

    @classmethod
    def untrained(cls) -> Parts:
        """Fresh parts, with weights drawn from torch's global generator."""
        tokenizer = word_tokenizer()
        return cls(tokenizer, _text_encoder(tokenizer), _transformer(), _vae())

    def pipeline(self) -> Any:
        """The stock pipeline of these very parts (no copies)."""
        return WanPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=self.vae,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=SIGMA_SHIFT),
            transformer=self.transformer,
        )


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the closed grammar and an end; case does not matter, unknown words become `<unk>`."""
    words = sorted({word for scene in all_scenes() for word in scene.prompt.split()})
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<end>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", vocabulary["<end>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=512,
    )


def _text_encoder(tokenizer: PreTrainedTokenizerFast) -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=2 * TEXT_WIDTH,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return UMT5EncoderModel(config)


def _transformer() -> Any:
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=WIDTH // 4,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=WIDTH,
        ffn_dim=3 * WIDTH,
        num_layers=LAYERS,
        rope_max_seq_len=256,
    )
    quiet_padding(transformer)
    return transformer


@torch.no_grad()
def quiet_padding(transformer: Any) -> None:
    """Start cross-attention on the words.

    The pipeline fills up a prompt of ten tokens with five hundred zero rows that no mask hides. Of freshly drawn
    weights they take 97 % of the attention, and the text is learned very slowly. Here every query starts with a part
    that all keys of padding, and only those, point away from.
    """
    embedder = transformer.condition_embedder.text_embedder
    padding = embedder(torch.zeros(1, TEXT_WIDTH))[0]
    for block in transformer.blocks:
        attention = block.attn2
        attention.to_k.weight *= 4.0
        attention.to_k.bias.copy_(-0.05 - attention.to_k.weight @ padding)
        attention.to_q.bias.fill_(1.0)
        attention.norm_q.weight.fill_(1.5)


def _vae() -> Any:
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        is_residual=True,  # as in Wan 2.2; it learns faster
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        scale_factor_spatial=LATENT_FACTOR,
        scale_factor_temporal=FRAME_FACTOR,
    )


def set_latent_statistics(vae: Any, latents: torch.Tensor) -> None:
    """Write mean and deviation of each channel of `latents` (N, C, f, h, w) into the VAE's configuration.

    The pipeline denoises `(latent - mean) / deviation`, as every Wan model does.
    """
    vae.register_to_config(
        latents_mean=latents.mean((0, 2, 3, 4)).tolist(), latents_std=latents.std((0, 2, 3, 4)).tolist()
    )


def save(parts: Parts, folder: Path) -> None:
    """Write the pipeline in diffusers' own folder layout; `folder` appears only when it is complete."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    parts.pipeline().save_pretrained(partial)
    for name in ("transformer", "vae"):  # stored in half precision, loaded in any
        weights = partial / name / "diffusion_pytorch_model.safetensors"
        halves = {key: value.half().contiguous() for key, value in load_file(weights).items()}
        save_file(halves, weights, metadata={"format": "pt"})
    # Newer transformers renamed the class and older ones cannot load it by its new name.
    for path in (partial / "model_index.json", partial / "tokenizer" / "tokenizer_config.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("TokenizersBackend", "PreTrainedTokenizerFast"), encoding="utf-8")
    partial.rename(folder)
