"""Train `tiny-image` from nothing, on CPU, within a time budget.

    python -m tools.tiny_models.train_image -o FOLDER [--minutes 55] [--seed 0]

Two stages share the budget: the VAE first, then text encoder and UNet together on latents that are encoded
once and kept in memory. The learning rate follows the clock, not a step count, so a slower machine gives a
worse model but never a later one. Ctrl-C leaves `FOLDER.checkpoint`; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from rich.progress import track
from torch import Tensor, nn

from tools.tiny_models.scenes import draw, training_scenes
from tools.tiny_models.tiny_image import Parts, noise_schedule, normalise_latents, save
from tools.tiny_models.training import CONSOLE, Clock, Meter, descend, set_learning_rate

VAE_SHARE = 0.14  # of the budget; flat colours and straight edges are learned quickly
VAE_CROP = 64
VAE_BATCH = 16
VAE_LEARNING_RATE = 2e-3
KL_WEIGHT = 5e-4

UNET_LEARNING_RATE = 1.5e-3
UNET_BATCH_PIXELS = 64 * 128 * 128
LARGEST_UNET_BATCH = 128
PROMPT_DROPOUT = 0.1  # trains the empty prompt, which guidance subtracts
SINGLE_SCENE_SHARE = 0.1
EMA_DECAY = 0.999
SAVE_EVERY_S = 300.0
LEAVE_FOR_SAVING_S = 15.0

ALPHAS_BAR: Tensor = noise_schedule().alphas_cumprod


@dataclass(frozen=True)
class Bucket:
    """One canvas size: how many scenes to encode, and how often to train on it early and late."""

    height: int
    width: int
    scenes: int
    early: float
    late: float


# Small canvases teach what stands where at a quarter of the price; the native size gets the second half.
BUCKETS = (
    Bucket(64, 64, 5_000, 4, 1),
    Bucket(96, 96, 2_000, 2, 2),
    Bucket(64, 128, 600, 1, 1),
    Bucket(128, 64, 600, 1, 1),
    Bucket(96, 128, 600, 1, 1),
    Bucket(128, 96, 600, 1, 1),
    Bucket(128, 128, 8_000, 6, 10),
    Bucket(128, 160, 400, 0.3, 0.8),
    Bucket(160, 128, 400, 0.3, 0.8),
    Bucket(160, 160, 400, 0.2, 0.6),
    Bucket(128, 192, 300, 0.2, 0.4),
    Bucket(192, 128, 300, 0.2, 0.4),
    Bucket(192, 192, 300, 0.1, 0.4),
)


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
        scenes = training_scenes()
        self.singles = [scene for scene in scenes if scene.second is None]
        self.pairs = [scene for scene in scenes if scene.second is not None]
        self.prompt_ids = {scene.prompt: self._token_ids(scene.prompt) for scene in scenes}
        self.no_prompt = self._token_ids("")

    # ------------------------------------------------------------------ pictures and prompts

    def _token_ids(self, prompt: str) -> Tensor:
        ids = self.parts.tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return ids[0]

    def _drawn(self, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Pictures `(count, 3, height, width)` in -1..1 and their token ids `(count, tokens)`."""
        pictures, ids = [], []
        for _ in range(count):
            pool = self.singles if self.rng.random() < SINGLE_SCENE_SHARE else self.pairs
            scene = pool[self.rng.integers(len(pool))]
            pictures.append(draw(scene, height, width, self.rng))
            ids.append(self.prompt_ids[scene.prompt])
        stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        return stacked.float() / 127.5 - 1.0, torch.stack(ids)

    # ------------------------------------------------------------------ stage one: VAE

    def train_vae(self) -> None:
        """Learn to compress scenes: L1 and L2 reconstruction and a small pull to a unit normal latent."""
        vae = self.parts.vae.train()
        optimizer = torch.optim.AdamW(vae.parameters(), VAE_LEARNING_RATE, (0.9, 0.98), weight_decay=1e-3)
        end_s = VAE_SHARE * self.clock.budget_s
        loss_seen = Meter("vae")
        for share in self.clock.progress("vae", self.clock.spent_s, end_s):
            set_learning_rate(optimizer, VAE_LEARNING_RATE, share)
            pictures = self._vae_batch()
            with torch.autocast("cpu", torch.bfloat16):
                posterior = vae.encode(pictures).latent_dist
                decoded = vae.decode(posterior.sample()).sample
            error = decoded.float() - pictures
            kl = posterior.kl().mean() / posterior.mean[0].numel()
            loss = error.abs().mean() + error.square().mean() + KL_WEIGHT * kl
            descend(optimizer, loss, vae)
            loss_seen.add(error.abs().mean().item())
        vae.eval().requires_grad_(False)
        pictures, _ = self._drawn(512, 128, 128)
        normalise_latents(vae, encoded(vae, pictures))
        self.vae_is_done = True

    def _vae_batch(self) -> Tensor:
        size = int(self.rng.choice((64, 96, 128)))
        pictures, _ = self._drawn(VAE_BATCH, size, size)
        top, left = self.rng.integers(size - VAE_CROP + 1, size=2)
        return pictures[:, :, top : top + VAE_CROP, left : left + VAE_CROP]

    # ------------------------------------------------------------------ stage two: text encoder and UNet

    def train_denoiser(self) -> None:
        """Learn to predict the velocity of noised latents from prompt, size and timestep."""
        latents = [self._encoded_bucket(bucket) for bucket in track(BUCKETS, "encode", console=CONSOLE)]
        text_encoder, unet = self.parts.text_encoder.train(), self.parts.unet.train()
        # On CPU the fused attention's backward pass is far slower than plain matrix products.
        unet.set_attn_processor(AttnProcessor())
        both = nn.ModuleList([text_encoder, unet])
        if self.optimizer is None:
            self.optimizer = self._denoiser_optimizer()
            self.denoiser_start_s = self.clock.spent_s
        saved_s = self.clock.spent_s
        loss_seen = Meter("unet")
        end_s = self.clock.budget_s - LEAVE_FOR_SAVING_S
        for share in self.clock.progress("unet", self.denoiser_start_s, end_s):
            set_learning_rate(self.optimizer, UNET_LEARNING_RATE, share)
            weights = np.array([b.early + (b.late - b.early) * min(1.0, 1.6 * share) for b in BUCKETS])
            index = int(self.rng.choice(len(BUCKETS), p=weights / weights.sum()))
            loss = self._denoiser_loss(BUCKETS[index], *latents[index])
            descend(self.optimizer, loss, both)
            self._update_average()
            loss_seen.add(loss.item())
            if self.clock.spent_s - saved_s > SAVE_EVERY_S:
                self.save_checkpoint()
                saved_s = self.clock.spent_s
        self._use_average()

    def _encoded_bucket(self, bucket: Bucket) -> tuple[Tensor, Tensor]:
        latents, ids = [], []
        for _ in range(0, bucket.scenes, 100):
            pictures, some_ids = self._drawn(100, bucket.height, bucket.width)
            latents.append(encoded(self.parts.vae, pictures))
            ids.append(some_ids)
        return torch.cat(latents), torch.cat(ids)

    def _denoiser_loss(self, bucket: Bucket, latents: Tensor, ids: Tensor) -> Tensor:
        """Mean squared velocity error of one batch of one canvas size (Salimans & Ho 2022, eq. 10)."""
        batch = min(LARGEST_UNET_BATCH, UNET_BATCH_PIXELS // (bucket.height * bucket.width))
        chosen = torch.randint(len(latents), (batch,))
        x, prompts = latents[chosen], ids[chosen]
        prompts = torch.where(torch.rand(batch, 1) < PROMPT_DROPOUT, self.no_prompt, prompts)
        # One timestep from each of `batch` equal slices: the batch sees all noise levels.
        timesteps = ((torch.arange(batch) + torch.rand(batch)) / batch * len(ALPHAS_BAR)).long()
        alpha = ALPHAS_BAR[timesteps].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - ALPHAS_BAR[timesteps]).sqrt().view(-1, 1, 1, 1)
        noise = torch.randn_like(x)
        size = [bucket.height, bucket.width]
        time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32).expand(batch, -1)
        with torch.autocast("cpu", torch.bfloat16):
            text = self.parts.text_encoder(prompts, output_hidden_states=True)
            predicted = self.parts.unet(
                alpha * x + sigma * noise,
                timesteps,
                text.hidden_states[-2],
                added_cond_kwargs={"text_embeds": text.text_embeds, "time_ids": time_ids},
            ).sample
        return nn.functional.mse_loss(predicted.float(), alpha * noise - sigma * x)

    def _denoiser_optimizer(self) -> torch.optim.Optimizer:
        weights = [weight for _, weight in self._denoiser_weights()]
        return torch.optim.AdamW(weights, UNET_LEARNING_RATE, (0.9, 0.98), weight_decay=1e-2, fused=True)

    def _denoiser_weights(self) -> list[tuple[str, nn.Parameter]]:
        modules = nn.ModuleDict({"text_encoder": self.parts.text_encoder, "unet": self.parts.unet})
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
        state = {
            "spent_s": self.clock.spent_s,
            "vae_is_done": self.vae_is_done,
            "denoiser_start_s": self.denoiser_start_s,
            "steps": self.steps,
            "vae": self.parts.vae.state_dict(),
            "text_encoder": self.parts.text_encoder.state_dict(),
            "unet": self.parts.unet.state_dict(),
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
        self.parts.text_encoder.load_state_dict(state["text_encoder"])
        self.parts.unet.load_state_dict(state["unet"])
        if self.vae_is_done:
            self.parts.vae.eval().requires_grad_(False)
        if state["optimizer"] is not None:
            self.optimizer = self._denoiser_optimizer()
            self.optimizer.load_state_dict(state["optimizer"])


@torch.no_grad()
def encoded(vae: Any, pictures: Tensor) -> Tensor:
    """Latents (the posterior's mean) of pictures `(N, 3, H, W)` in -1..1: `(N, 4, H / 8, W / 8)`."""
    with torch.autocast("cpu", torch.bfloat16):
        means = [vae.encode(batch).latent_dist.mean.float() for batch in pictures.split(50)]
    return torch.cat(means)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Train tiny-image from nothing, on CPU.")
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
