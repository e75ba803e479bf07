"""How pictures are decoded: as the pipeline does, or in parts, exactly or with seams.

A decode takes far more memory than the denoising steps before it. Tiling, the usual remedy, changes the picture: a
tile does not see what lies around it, and its GroupNorm and attention know only the tile. Blending overlapping tiles
hides the seams, not the difference. ``patched`` needs little memory and gives the picture of the whole decoder.
"""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, AutoencoderKLAllegro

from backend.patched.decoder import PatchedDecoder
from backend.patched.hooks import Unpatchable
from traces.errors import BadInput

WAYS = ("whole", "patched", "tiled", "blended")


def decode_by(pipeline: Any, way: str) -> None:
    """Make a pipeline decode in this way from now on.

    Args:
        pipeline: a diffusers pipeline.
        way: ``whole`` (as the pipeline does), ``patched`` (exact, in bands), ``tiled`` (the autoencoder's own tiles,
            side by side) or ``blended`` (its own tiles, overlapping and blended). Its own tiles hold for its encoder
            too. Video autoencoders are ``whole`` or ``blended``.

    Raises:
        BadInput: an unknown way, or one that the pipeline's autoencoder cannot go.
    """
    if way not in WAYS:
        raise BadInput(f"cluster.decode is {way!r}; known: {', '.join(WAYS)}")
    vae: Any = getattr(pipeline, "vae", None)
    if way == "whole" and isinstance(vae, AutoencoderKLAllegro):
        whole: Any = vae
        whole.enable_tiling()  # it has no other way
    if way == "whole":
        return
    is_kl: bool = isinstance(vae, AutoencoderKL)
    if way == "blended":
        if not hasattr(vae, "use_tiling"):
            raise BadInput(f"cluster.decode 'blended': {type(vae).__name__} has no tiling of its own: use 'whole'")
        vae.enable_tiling()
        return
    if not is_kl:
        ways = "'whole' or 'blended'" if hasattr(vae, "use_tiling") else "'whole'"
        raise BadInput(
            f"cluster.decode {way!r} needs an AutoencoderKL; {type(pipeline).__name__} has an "
            f"{type(vae).__name__}: use {ways}"
        )
    if way == "tiled":
        vae.enable_tiling()
        vae.tile_overlap_factor = 0.0
        return
    try:
        vae.decoder.forward = PatchedDecoder(vae.decoder)
    except Unpatchable as error:
        raise BadInput(f"cluster.decode 'patched' cannot run {type(pipeline).__name__}: {error}") from error
