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

import argparse
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from tools.tiny_models.moving_scenes import draw_clip, training_scenes
from tools.tiny_models.tiny_video import LATENT_FACTOR, SIGMA_SHIFT, Parts, save, set_latent_statistics
from tools.tiny_models.training import CONSOLE, Clock, Meter, descend, set_learning_rate

VAE_SHARE = 0.28  # of the budget
ENCODE_SHARE = 0.05
VAE_CROP = 32
VAE_BATCH = 4
VAE_FRAMES = (5, 5, 9)  # short clips are cheaper and have all kinds of latent frames but one
VAE_CANVASES = (32, 48, 64, 96)
VAE_LEARNING_RATE = 2e-3
KL_WEIGHT = 1e-3

LEARNING_RATE = 1.5e-3
BATCH_LATENT_PIXELS = 20 * 16 * 16
LARGEST_BATCH = 64
PROMPT_DROPOUT = 0.1  # trains the empty prompt, which guidance subtracts
SHORT_CLIP_SHARE = 0.08  # batches whose clips end after their second latent frame
WINDOW_SIGMA = 0.9
EMA_DECAY = 0.999
SAVE_EVERY_S = 240.0
LEAVE_FOR_SAVING_S = 10.0

PROMPT_TOKENS = 10  # the longest sentence has nine words and an end
PIPELINE_TOKENS = 512  # WanPipeline pads every prompt with zeros to this length and masks none of them


@dataclass(frozen=True)
class Bucket:
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


# Small canvases teach what moves where at a quarter of the price; the native size gets the second half.
BUCKETS = (
    Bucket(32, 32, 5, 10, 1),
    Bucket(48, 48, 1.5, 2, 1),
    Bucket(48, 64, 1, 0.6, 1),
    Bucket(64, 48, 1, 0.6, 1),
    Bucket(64, 64, 9, 2, 10),
    Bucket(64, 96, 0.6, 0.1, 0.4),
    Bucket(96, 64, 0.6, 0.1, 0.4),
    Bucket(80, 80, 0.6, 0.1, 0.4),
    Bucket(96, 96, 0.6, 0.1, 0.3),
    Bucket(128, 128, 2.5, 0.2, 2, window=(64, 64)),
    Bucket(128, 96, 1, 0.1, 0.7, window=(48, 64)),
    Bucket(96, 128, 1, 0.1, 0.7, window=(64, 48)),
)


class Encoded(NamedTuple):
    """Normalised latents [clips, channels, frames, height, width] and token ids [clips, tokens] of one bucket."""

    latents: Tensor
    ids: Tensor


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


class Trainer:
    """The state of one training; `checkpoint` is where it survives an interruption."""

    def __init__(self, minutes: float, seed: int, checkpoint: Path) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.clock = Clock(60.0 * minutes)
        self.checkpoint = checkpoint
        self.parts = Parts.untrained()
        self.average = {name: weight.clone() for name, weight in self._denoiser_weights()}
        self.optimizer: torch.optim.Optimizer | None = None
        self.vae_is_done = False
        self.denoiser_start_s = 0.0
        self.steps = 0
        self.scenes = training_scenes()
        self.prompt_ids = {scene.prompt: self._token_ids(scene.prompt) for scene in self.scenes}
        self.no_prompt = self._token_ids("")

    # ------------------------------------------------------------------ clips and prompts

    def _token_ids(self, prompt: str) -> Tensor:
        ids = self.parts.tokenizer(
            prompt, padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        return ids[0]

    def _drawn(self, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Clips `(count, 3, frames, height, width)` in -1..1 and their token ids `(count, tokens)`."""
        clips, ids = [], []
        for _ in range(count):
            scene = self.scenes[self.rng.integers(len(self.scenes))]
            clips.append(draw_clip(scene, height, width, self.rng))
            ids.append(self.prompt_ids[scene.prompt])
        stacked = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)
        return stacked.float() / 127.5 - 1.0, torch.stack(ids)

    # ------------------------------------------------------------------ stage one: VAE

    def train_vae(self) -> None:
        """Learn to compress clips: L1 and L2 reconstruction and a small pull to a unit normal latent."""
        vae = self.parts.vae.train()
        channels_last(vae)
        optimizer = torch.optim.AdamW(vae.parameters(), VAE_LEARNING_RATE, (0.9, 0.98), weight_decay=1e-3)
        end_s = VAE_SHARE * self.clock.budget_s
        loss_seen = Meter("vae", every=100)
        for share in self.clock.progress("vae", self.clock.spent_s, end_s):
            set_learning_rate(optimizer, VAE_LEARNING_RATE, share)
            clips = self._vae_batch()
            with torch.autocast("cpu", torch.bfloat16):
                posterior = vae.encode(clips).latent_dist
                decoded = vae.decode(posterior.sample()).sample
            error = decoded.float() - clips
            kl = posterior.kl().mean() / posterior.mean[0].numel()
            loss = error.abs().mean() + error.square().mean() + KL_WEIGHT * kl
            descend(optimizer, loss, vae)
            loss_seen.add(error.abs().mean().item())
        vae.eval().requires_grad_(False)
        clips, _ = self._drawn(64, 64, 64)
        set_latent_statistics(vae, encoded(vae, clips))
        self.vae_is_done = True

    def _vae_batch(self) -> Tensor:
        size, frames = int(self.rng.choice(VAE_CANVASES)), int(self.rng.choice(VAE_FRAMES))
        clips, _ = self._drawn(VAE_BATCH, size, size)
        top, left = self.rng.integers(size - VAE_CROP + 1, size=2)
        crop = clips[:, :, :frames, top : top + VAE_CROP, left : left + VAE_CROP]
        return crop.contiguous(memory_format=torch.channels_last_3d)

    # ------------------------------------------------------------------ stage two: clips to latents

    def encode_clips(self) -> list[Encoded]:
        """Draw and encode as many clips of each bucket as its share of the time allows, at least one batch."""
        shares = sum(bucket.encode for bucket in BUCKETS)
        pools = []
        for bucket in track(BUCKETS, "encode", console=CONSOLE):
            end_s = self.clock.spent_s + ENCODE_SHARE * self.clock.budget_s * bucket.encode / shares
            batches: list[Encoded] = []
            while not batches or self.clock.spent_s < end_s:
                clips, ids = self._drawn(8, bucket.height, bucket.width)
                batches.append(Encoded(normalised(self.parts.vae, encoded(self.parts.vae, clips)), ids))
            pools.append(Encoded(*(torch.cat(parts) for parts in zip(*batches, strict=True))))
        CONSOLE.print("clips encoded: " + ", ".join(str(len(pool.ids)) for pool in pools))
        return pools

    # ------------------------------------------------------------------ stage three: text encoder and transformer

    def train_denoiser(self) -> None:
        """Learn to predict the velocity of noised latents from prompt and timestep."""
        pools = self.encode_clips()
        text_encoder, transformer = self.parts.text_encoder.train(), self.parts.transformer.train()
        bias = torch.zeros(PROMPT_TOKENS + 1)
        bias[-1] = math.log(PIPELINE_TOKENS - PROMPT_TOKENS)
        for block in transformer.blocks:
            block.attn1.set_processor(PlainAttention(bias))
            block.attn2.set_processor(PlainAttention(bias))
        both = nn.ModuleList([text_encoder, transformer])
        if self.optimizer is None:
            self.optimizer = self._denoiser_optimizer()
            self.denoiser_start_s = self.clock.spent_s
        saved_s = self.clock.spent_s
        loss_seen = Meter("transformer")
        end_s = self.clock.budget_s - LEAVE_FOR_SAVING_S
        for share in self.clock.progress("transformer", self.denoiser_start_s, end_s):
            set_learning_rate(self.optimizer, LEARNING_RATE, share)
            weights = np.array([b.early + (b.late - b.early) * min(1.0, 1.6 * share) for b in BUCKETS])
            index = int(self.rng.choice(len(BUCKETS), p=weights / weights.sum()))
            loss = self._denoiser_loss(BUCKETS[index], pools[index])
            descend(self.optimizer, loss, both)
            self._update_average()
            loss_seen.add(loss.item())
            if self.clock.spent_s - saved_s > SAVE_EVERY_S:
                self.save_checkpoint()
                saved_s = self.clock.spent_s
        self._use_average()

    def _denoiser_loss(self, bucket: Bucket, pool: Encoded) -> Tensor:
        """Mean squared velocity error of one batch of one size; `x_sigma = (1 - sigma) x + sigma noise`."""
        height, width = bucket.latent_size
        batch = min(LARGEST_BATCH, BATCH_LATENT_PIXELS // (height * width))
        chosen = torch.randint(len(pool.ids), (batch,))
        x, prompts = pool.latents[chosen], pool.ids[chosen]
        if bucket.window is not None:
            # Even offsets: the transformer's patches are two latent pixels wide, and so are the steps of tiles.
            top = 2 * int(self.rng.integers((x.shape[3] - height) // 2 + 1))
            left = 2 * int(self.rng.integers((x.shape[4] - width) // 2 + 1))
            x = x[..., top : top + height, left : left + width]
        if self.rng.random() < SHORT_CLIP_SHARE:
            x = x[:, :, :2]
        prompts = torch.where(torch.rand(batch, 1) < PROMPT_DROPOUT, self.no_prompt, prompts)
        # One noise level from each of `batch` equal slices: the batch sees all of them.
        u = (torch.arange(batch) + torch.rand(batch)) / batch
        sigma = SIGMA_SHIFT * u / (1 + (SIGMA_SHIFT - 1) * u)
        if bucket.window is not None:
            sigma = WINDOW_SIGMA * sigma
        noise = torch.randn_like(x)
        s = sigma.view(-1, 1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.parts.transformer((1 - s) * x + s * noise, 1000 * sigma, self._text(prompts)).sample
        return nn.functional.mse_loss(predicted.float(), noise - x)

    def _text(self, ids: Tensor) -> Tensor:
        """What the pipeline would hand the transformer, less the zero rows that `PlainAttention` stands for."""
        real = ids != self.parts.tokenizer.pad_token_id
        states = self.parts.text_encoder(ids, real.long()).last_hidden_state * real.unsqueeze(-1)
        return nn.functional.pad(states, (0, 0, 0, 1))

    def _denoiser_optimizer(self) -> torch.optim.Optimizer:
        weights = [weight for _, weight in self._denoiser_weights()]
        return torch.optim.AdamW(weights, LEARNING_RATE, (0.9, 0.98), weight_decay=1e-2, fused=True)

    def _denoiser_weights(self) -> list[tuple[str, nn.Parameter]]:
        modules = nn.ModuleDict({"text_encoder": self.parts.text_encoder, "transformer": self.parts.transformer})
        return list(modules.named_parameters())

    @torch.no_grad()
    def _update_average(self) -> None:
        self.steps += 1
        decay = min(EMA_DECAY, (1 + self.steps) / (10 + self.steps))
        for name, weight in self._denoiser_weights():
            self.average[name].lerp_(weight, 1 - decay)

    @torch.no_grad()
    def _use_average(self) -> None:
        for name, weight in self._denoiser_weights():
            weight.copy_(self.average[name])

    # ------------------------------------------------------------------ interruption

    def save_checkpoint(self) -> None:
        """Write everything needed to go on, replacing the last checkpoint at once."""
        config = self.parts.vae.config
        state = {
            "spent_s": self.clock.spent_s,
            "vae_is_done": self.vae_is_done,
            "denoiser_start_s": self.denoiser_start_s,
            "steps": self.steps,
            "vae": self.parts.vae.state_dict(),
            "latent_statistics": {name: list(config[name]) for name in ("latents_mean", "latents_std")},
            "text_encoder": self.parts.text_encoder.state_dict(),
            "transformer": self.parts.transformer.state_dict(),
            "average": self.average,
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
        }
        partial = self.checkpoint.with_name(self.checkpoint.name + ".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint (random numbers start afresh)."""
        state = torch.load(self.checkpoint, weights_only=True)
        self.clock = Clock(self.clock.budget_s, state["spent_s"])
        self.vae_is_done, self.denoiser_start_s = state["vae_is_done"], state["denoiser_start_s"]
        self.steps, self.average = state["steps"], state["average"]
        self.parts.vae.load_state_dict(state["vae"])
        self.parts.vae.register_to_config(**state["latent_statistics"])
        self.parts.text_encoder.load_state_dict(state["text_encoder"])
        self.parts.transformer.load_state_dict(state["transformer"])
        if self.vae_is_done:
            self.parts.vae.eval().requires_grad_(False)
        if state["optimizer"] is not None:
            self.optimizer = self._denoiser_optimizer()
            self.optimizer.load_state_dict(state["optimizer"])


def channels_last(module: nn.Module) -> None:
    """Lay the weights of convolutions out for the faster kernels; values and shapes stay."""
    for weight in module.parameters():
        if weight.ndim == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def encoded(vae: Any, clips: Tensor) -> Tensor:
    """Latents (the posterior's mean) of clips `(N, 3, frames, H, W)` in -1..1."""
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([vae.encode(batch).latent_dist.mean.float() for batch in clips.split(8)])


def normalised(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the pipeline denoises them, by the statistics in the VAE's configuration."""
    mean, deviation = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return (latents - mean) / deviation


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Train tiny-video from nothing, on CPU.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to create")
    parser.add_argument("--minutes", type=float, default=55.0, help="time budget of the whole training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args(arguments)
    output: Path = options.output
    if output.exists():
        parser.error(f"{output} exists; name a new folder")
    if not 0 < options.minutes <= 24 * 60:
        parser.error(f"--minutes must be above 0 and at most a day, got {options.minutes:g}")
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    torch.set_num_threads(options.threads)
    output.parent.mkdir(parents=True, exist_ok=True)

    trainer = Trainer(options.minutes, options.seed, output.with_name(output.name + ".checkpoint"))
    if trainer.checkpoint.exists():
        trainer.resume()
    try:
        if not trainer.vae_is_done:
            trainer.train_vae()
            trainer.save_checkpoint()
        trainer.train_denoiser()
    except KeyboardInterrupt:
        if trainer.vae_is_done:
            trainer.save_checkpoint()
        print(f"interrupted; the same command goes on from {trainer.checkpoint}", file=sys.stderr)
        return 130
    save(trainer.parts, output)
    trainer.checkpoint.unlink(missing_ok=True)
    print(f"{output}: {trainer.steps} denoiser steps in {trainer.clock.spent_s / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
