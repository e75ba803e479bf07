"""Train `tiny-image` from nothing, on CPU, within a time budget.

    python -m tools.tiny_models.train_image -o FOLDER [--minutes 55] [--seed 0]

Two stages share the budget: the VAE first, then text encoder and UNet together (see `training`). Ctrl-C leaves
`FOLDER.checkpoint`; the same command goes on from there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from tools.tiny_models.scenes import draw, training_scenes
from tools.tiny_models.tiny_image import TEXT_TOKENS, Parts, noise_schedule, normalise_latents, save
from tools.tiny_models.training import CONSOLE, Encoded, Training, encoded, quicker_precision, train

VAE_CROP = 64
VAE_BATCH = 16
UNET_BATCH_PIXELS = 64 * 128 * 128
LARGEST_UNET_BATCH = 128
SINGLE_SCENE_SHARE = 0.1
SCENES_AT_ONCE = 100
ENCODED_AT_ONCE = 50

ALPHAS_BAR: Tensor = noise_schedule().alphas_cumprod


class Bucket(NamedTuple):
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


class Trainer(Training):
    """Of `tiny-image`."""

    denoiser = "unet"
    buckets = BUCKETS
    vae_share = 0.14  # flat colours and straight edges are learned quickly
    kl_weight = 5e-4
    prompt_tokens = TEXT_TOKENS
    save_every_s = 300.0
    leave_for_saving_s = 15.0

    def __init__(self, minutes: float, seed: int, checkpoint: Path) -> None:
        super().__init__(minutes, seed, checkpoint, Parts.untrained)
        scenes = training_scenes()
        self.singles = [scene for scene in scenes if scene.second is None]
        self.pairs = [scene for scene in scenes if scene.second is not None]

    def draw_scene(self, height: int, width: int) -> tuple[NDArray[np.uint8], str]:
        """See `Training`."""
        pool = self.singles if self.rng.random() < SINGLE_SCENE_SHARE else self.pairs
        scene = pool[self.rng.integers(len(pool))]
        return draw(scene, height, width, self.rng), scene.prompt

    def vae_batch(self) -> Tensor:
        """See `Training`."""
        size = int(self.rng.choice((64, 96, 128)))
        pictures, _ = self.drawn(VAE_BATCH, size, size)
        top, left = self.rng.integers(size - VAE_CROP + 1, size=2)
        return pictures[:, :, top : top + VAE_CROP, left : left + VAE_CROP]

    def settle_vae(self) -> None:
        """See `Training`."""
        pictures, _ = self.drawn(512, 128, 128)
        normalise_latents(self.parts.vae, encoded(self.parts.vae, pictures, ENCODED_AT_ONCE))

    def encode(self) -> list[Encoded]:
        """See `Training`."""
        return [self._encoded_bucket(bucket) for bucket in track(BUCKETS, "encode", console=CONSOLE)]

    def _encoded_bucket(self, bucket: Bucket) -> Encoded:
        latents, ids = [], []
        for _ in range(0, bucket.scenes, SCENES_AT_ONCE):
            pictures, some_ids = self.drawn(SCENES_AT_ONCE, bucket.height, bucket.width)
            latents.append(encoded(self.parts.vae, pictures, ENCODED_AT_ONCE))
            ids.append(some_ids)
        return Encoded(torch.cat(latents), torch.cat(ids))

    def plain_attention(self) -> None:
        """See `Training`."""
        self.parts.unet.set_attn_processor(AttnProcessor())

    def denoiser_loss(self, bucket: Bucket, pool: Encoded) -> Tensor:
        """Mean squared velocity error of one batch of one canvas size (Salimans & Ho 2022, eq. 10)."""
        batch = min(LARGEST_UNET_BATCH, UNET_BATCH_PIXELS // (bucket.height * bucket.width))
        chosen = torch.randint(len(pool.ids), (batch,))
        x, prompts = pool.latents[chosen], self.dropped(pool.ids[chosen])
        # One timestep from each of `batch` equal slices: the batch sees all noise levels.
        timesteps = ((torch.arange(batch) + torch.rand(batch)) / batch * len(ALPHAS_BAR)).long()
        alpha = ALPHAS_BAR[timesteps].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - ALPHAS_BAR[timesteps]).sqrt().view(-1, 1, 1, 1)
        noise = torch.randn_like(x)
        size = [bucket.height, bucket.width]
        time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32).expand(batch, -1)
        with quicker_precision():
            text = self.parts.text_encoder(prompts, output_hidden_states=True)
            predicted = self.parts.unet(
                alpha * x + sigma * noise,
                timesteps,
                text.hidden_states[-2],
                added_cond_kwargs={"text_embeds": text.text_embeds, "time_ids": time_ids},
            ).sample
        return nn.functional.mse_loss(predicted.float(), alpha * noise - sigma * x)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return train("tiny-image", Trainer, save, arguments)


if __name__ == "__main__":
    sys.exit(main())
