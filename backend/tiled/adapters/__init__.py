"""Adapters: tiles through the denoiser of any pipeline, one small file a family."""

from __future__ import annotations

from typing import Any

from backend.loading import denoiser_names
from backend.tiled.adapters.adapter import Adapter, Extent
from backend.tiled.adapters.cogvideox import TiledCogVideoX
from backend.tiled.adapters.flux import TiledFlux
from backend.tiled.adapters.hunyuan_video import TiledHunyuanVideo
from backend.tiled.adapters.pixart import TiledPixArt
from backend.tiled.adapters.stable_diffusion_3 import TiledStableDiffusion3
from backend.tiled.adapters.unet import TiledUNet
from backend.tiled.adapters.wan import TiledWan
from traces.errors import BadInput

__all__ = ["ADAPTERS", "Adapter", "Extent", "adapter_for"]

ADAPTERS: dict[str, type[Adapter]] = {
    "CogVideoXTransformer3DModel": TiledCogVideoX,
    "FluxTransformer2DModel": TiledFlux,
    "HunyuanVideoTransformer3DModel": TiledHunyuanVideo,
    "PixArtTransformer2DModel": TiledPixArt,
    "SD3Transformer2DModel": TiledStableDiffusion3,
    "UNet2DConditionModel": TiledUNet,
    "WanTransformer3DModel": TiledWan,
}


def adapter_for(pipeline: Any, positions: str = "local", native: Extent | None = None) -> Adapter:
    """The adapter of a pipeline's denoiser.

    Args:
        pipeline: a diffusers pipeline.
        positions: ``local``, ``absolute`` or ``ntk``, see `backend.tiled.adapters.adapter`.
        native: (height, width) in latent pixels that the model was trained at; needed for ``ntk``.

    Raises:
        BadInput: no adapter knows the denoiser, or it does not allow these positions.
    """
    first, *others = denoiser_names(pipeline)
    denoiser = type(getattr(pipeline, first)).__name__
    if denoiser not in ADAPTERS:
        raise BadInput(f"cannot tile {denoiser}; known: {', '.join(sorted(ADAPTERS))}")
    if others:
        raise BadInput(f"cannot tile this {type(pipeline).__name__}: it has two denoisers, {first} and {others[0]}")
    return ADAPTERS[denoiser](pipeline, positions, native)
