"""From the sketch to the canvas: pixels enlarged, encoded and made noisy again.

Enlarging happens in pixel space. Interpolated latents are no latents of any picture: decoded they ring.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from traces.request import Request, Size


def as_pixels(output: Any) -> torch.Tensor:
    """What a pipeline returns for ``output_type="pt"`` as [images, 3, frames, height, width] in 0..1, contiguous.

    Convolutions give other bits for another layout in memory, which a saved sketch would lose.
    """
    pixels = torch.stack(list(output)) if isinstance(output, list | tuple) else output
    return (pixels.unsqueeze(2) if pixels.ndim == 4 else pixels.transpose(1, 2)).contiguous()


def enlarged(pixels: torch.Tensor, size: Size) -> torch.Tensor:
    """Bicubic, frame by frame: [images, 3, frames, h, w] in 0..1 to the height and width of ``size``."""
    images, channels, frames, _, _ = pixels.shape
    flat = pixels.transpose(1, 2).flatten(0, 1)
    flat = torch.nn.functional.interpolate(flat, size=size[:2], mode="bicubic", align_corners=False).clamp(0.0, 1.0)
    return flat.unflatten(0, (images, frames)).transpose(1, 2).reshape(images, channels, frames, *size[:2])


def drawn_noise(request: Request, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """The noise of a request's refinement, [images, ...] of ``shape``, from one stream an image on the CPU."""
    noise = []
    for image in range(request.images):
        digest = hashlib.sha256(f"tilecast/renoise/{request.seed + image}".encode()).digest()
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        noise.append(torch.randn(shape, generator=generator, dtype=torch.float32))
    return torch.stack(noise).to(like)


def noisy(sampler: Any, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """``latents`` as the sampler would hold them at its first timestep, by the sampler's own formula.

    Flow matching: sigma * noise + (1 - sigma) * latents; variance preserving: sqrt(abar) * latents + sqrt(1 - abar) *
    noise; Euler's variance-exploding form: latents + sigma * noise.
    """
    timesteps = sampler.timesteps[:1].expand(len(latents))
    if hasattr(sampler, "scale_noise"):
        return sampler.scale_noise(latents, timesteps, noise)
    return sampler.add_noise(latents, noise, timesteps)
