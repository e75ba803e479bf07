"""Folders of small checkpoints: one architecture with several sets of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save_checkpoints(pipeline: Any, folder: Path, names: tuple[str, ...]) -> None:
    """Save a pipeline under several names; each has a denoiser and an autoencoder of its own weights."""
    for seed, name in enumerate(names):
        random = torch.Generator().manual_seed(seed)
        for part in (getattr(pipeline, "unet", None) or pipeline.transformer, pipeline.vae):
            for parameter in part.parameters():
                parameter.data += 0.05 * torch.randn(parameter.shape, generator=random)
        pipeline.save_pretrained(folder / name)
