"""Train `tiny-video` from nothing, on CPU, within a time budget.

    python -m tools.tiny_models.train_video -o FOLDER [--minutes 55] [--seed 0]

Three stages share the budget: the VAE, encoding clips once to latents kept in memory, then text encoder and
transformer together on those. As in `train_image`, the clock and not a step count drives the learning rate, and
Ctrl-C leaves `FOLDER.checkpoint`, from which the same command goes on.

Besides whole scenes the transformer sees windows of larger ones, so that as one tile of a canvas it knows a ground
without a thing and a thing cut by the border. Windows are trained below `WINDOW_SIGMA` only: in pure noise nothing
tells a window from a scene, and what starts there shall be a whole scene.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from tools.tiny_models.moving_scenes import draw_clip, training_scenes
from tools.tiny_models.muon import Muon
from tools.tiny_models.tiny_video import LATENT_FACTOR, SIGMA_SHIFT, Parts, save, set_latent_statistics
from tools.tiny_models.training import CONSOLE, Encoded, Training, encoded, quicker_precision, train

ENCODE_SHARE = 0.08  # of the budget
ENCODED_AT_ONCE = 8
VAE_CROP = 32
VAE_BATCH = 4
VAE_FRAMES = (5, 5, 9)  # short clips are cheaper and have all kinds of latent frames but one
VAE_CANVASES = (32, 48, 64, 96)

BATCH_LATENT_PIXELS = 10 * 16 * 16  # small batches: the time is short, and more steps learn more than larger ones
SHORT_CLIP_SHARE = 0.08  # batches whose clips end after their second latent frame
WINDOW_SIGMA = 0.9

PROMPT_TOKENS = 10  # the longest sentence has nine words and an end
PIPELINE_TOKENS = 512  # WanPipeline pads every prompt with zeros to this length and masks none of them


class Bucket(NamedTuple):
    """One canvas size in pixels: its share of the clips' encoding time, and how often it is trained early and late.

    With a `window` (pixels) only windows of that size are trained, cut anywhere from the canvas' latents.
    """

    height: int
    width: int
    encode: float
    early: float
    late: float
    window: tuple[int, int] | None = None

    @property
    def latent_size(self) -> tuple[int, int]:
        height, width = self.window or (self.height, self.width)
        return height // LATENT_FACTOR, width // LATENT_FACTOR


# Small canvases teach what moves where at a quarter of the price; the native size gets most of the rest.
BUCKETS = (
    Bucket(32, 32, 3, 10, 0.5),
    Bucket(48, 48, 0.8, 1, 0.5),
    Bucket(48, 64, 0.6, 0.3, 0.5),
    Bucket(64, 48, 0.6, 0.3, 0.5),
    Bucket(64, 64, 11, 3, 12),
    Bucket(64, 96, 0.5, 0.1, 0.3),
    Bucket(96, 64, 0.5, 0.1, 0.3),
    Bucket(80, 80, 0.5, 0.1, 0.3),
    Bucket(96, 96, 0.5, 0.1, 0.3),
    Bucket(128, 128, 1.6, 0.1, 1.2, window=(64, 64)),
    Bucket(128, 96, 0.6, 0.1, 0.4, window=(48, 64)),
    Bucket(96, 128, 0.6, 0.1, 0.4, window=(64, 48)),
)


class PlainAttention:
    """Wan's attention as plain matrix products, whose backward pass on CPU is far faster than the fused one's.

    `bias` [keys] is added to the scores of cross-attention. One zero text row with bias `log n` weighs exactly as much
    as the `n` zero rows with which the pipeline fills up its text: training need not carry them.
    """

    def __init__(self, bias: Tensor) -> None:
        self.bias = bias

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.norm_q(attn.to_q(hidden_states).float()).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(source).float()).unflatten(2, (attn.heads, -1))
        value = attn.to_v(source).unflatten(2, (attn.heads, -1))
        if rotary_emb is not None:
            query, key = rotated(query, *rotary_emb), rotated(key, *rotary_emb)
        scores = torch.einsum("bqhd,bkhd->bhqk", query / math.sqrt(query.shape[-1]), key)
        if encoder_hidden_states is not None:
            scores = scores + self.bias
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value)
        return attn.to_out[0](mixed.flatten(2))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [batch, tokens, heads, channels] turned by Wan's rotary tables, in which each angle stands twice."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2].type_as(x), sin[..., 0::2].type_as(x)
    return torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(-2)


class Trainer(Training):
    """Of `tiny-video`."""

    denoiser = "transformer"
    buckets = BUCKETS
    vae_share = 0.22
    kl_weight = 3e-4
    prompt_tokens = PROMPT_TOKENS
    statistics = ("latents_mean", "latents_std")
    save_every_s = 240.0
    leave_for_saving_s = 10.0
    average_decay = 0.997

    def __init__(self, minutes: float, seed: int, checkpoint: Path) -> None:
        super().__init__(minutes, seed, checkpoint, Parts.untrained)
        self.scenes = training_scenes()

    def optimizer_of(
        self, named: Iterable[tuple[str, nn.Parameter]], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """See `Training`."""
        return Muon(named, learning_rate, weight_decay)

    def draw_scene(self, height: int, width: int) -> tuple[NDArray[np.uint8], str]:
        """See `Training`."""
        scene = self.scenes[self.rng.integers(len(self.scenes))]
        return draw_clip(scene, height, width, self.rng), scene.prompt

    def train_vae(self) -> None:
        """See `Training`."""
        channels_last(self.parts.vae)
        super().train_vae()

    def vae_batch(self) -> Tensor:
        """See `Training`."""
        size, frames = int(self.rng.choice(VAE_CANVASES)), int(self.rng.choice(VAE_FRAMES))
        clips, _ = self.drawn(VAE_BATCH, size, size)
        top, left = self.rng.integers(size - VAE_CROP + 1, size=2)
        crop = clips[:, :, :frames, top : top + VAE_CROP, left : left + VAE_CROP]
        return crop.contiguous(memory_format=torch.channels_last_3d)

    def settle_vae(self) -> None:
        """See `Training`."""
        clips, _ = self.drawn(64, 64, 64)
        set_latent_statistics(self.parts.vae, encoded(self.parts.vae, clips, ENCODED_AT_ONCE))

    def encode(self) -> list[Encoded]:
        """Draw and encode as many clips of each bucket as its share of the time allows, at least one batch."""
        shares = sum(bucket.encode for bucket in BUCKETS)
        pools = []
        for bucket in track(BUCKETS, "encode", console=CONSOLE):
            end_s = self.clock.spent_s + ENCODE_SHARE * self.clock.budget_s * bucket.encode / shares
            batches: list[Encoded] = []
            while not batches or self.clock.spent_s < end_s:
                clips, ids = self.drawn(ENCODED_AT_ONCE, bucket.height, bucket.width)
                batches.append(
                    Encoded(normalised(self.parts.vae, encoded(self.parts.vae, clips, ENCODED_AT_ONCE)), ids)
                )
            pools.append(Encoded(*(torch.cat(parts) for parts in zip(*batches, strict=True))))
        CONSOLE.print("clips encoded: " + ", ".join(str(len(pool.ids)) for pool in pools))
        return pools

    def plain_attention(self) -> None:
        """See `Training`."""
        bias = torch.zeros(PROMPT_TOKENS + 1)
        bias[-1] = math.log(PIPELINE_TOKENS - PROMPT_TOKENS)
        for block in self.parts.transformer.blocks:
            block.attn1.set_processor(PlainAttention(bias))
            block.attn2.set_processor(PlainAttention(bias))

    def denoiser_loss(self, bucket: Bucket, pool: Encoded) -> Tensor:
        """Mean squared velocity error of one batch of one size; `x_sigma = (1 - sigma) x + sigma noise`."""
        height, width = bucket.latent_size
        batch = BATCH_LATENT_PIXELS // (height * width)
        chosen = torch.randint(len(pool.ids), (batch,))
        x, ids = pool.latents[chosen], pool.ids[chosen]
        if bucket.window is not None:
            # Even offsets: the transformer's patches are two latent pixels wide, and so are the steps of tiles.
            top = 2 * int(self.rng.integers((x.shape[3] - height) // 2 + 1))
            left = 2 * int(self.rng.integers((x.shape[4] - width) // 2 + 1))
            x = x[..., top : top + height, left : left + width]
        if self.rng.random() < SHORT_CLIP_SHARE:
            x = x[:, :, :2]
        prompts = self.dropped(ids)
        # One noise level from each of `batch` equal slices: the batch sees all of them.
        u = (torch.arange(batch) + torch.rand(batch)) / batch
        sigma = SIGMA_SHIFT * u / (1 + (SIGMA_SHIFT - 1) * u)
        if bucket.window is not None:
            sigma = WINDOW_SIGMA * sigma
        noise = torch.randn_like(x)
        s = sigma.view(-1, 1, 1, 1, 1)
        with quicker_precision():
            predicted = self.parts.transformer((1 - s) * x + s * noise, 1000 * sigma, self._text(prompts)).sample
        return nn.functional.mse_loss(predicted.float(), noise - x)

    def _text(self, ids: Tensor) -> Tensor:
        """What the pipeline would hand the transformer, less the zero rows that `PlainAttention` stands for."""
        real = ids != self.parts.tokenizer.pad_token_id
        states = self.parts.text_encoder(ids, real.long()).last_hidden_state * real.unsqueeze(-1)
        return nn.functional.pad(states, (0, 0, 0, 1))


def channels_last(module: nn.Module) -> None:
    """Lay the weights of convolutions out for the faster kernels; values and shapes stay."""
    for weight in module.parameters():
        if weight.ndim == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def normalised(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the pipeline denoises them, by the statistics in the VAE's configuration."""
    mean, deviation = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return (latents - mean) / deviation


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return train("tiny-video", Trainer, save, arguments)


if __name__ == "__main__":
    sys.exit(main())
