"""What packs the calls of a pipeline's denoiser."""

from __future__ import annotations

from typing import Any

from diffusers import UNet2DConditionModel

from backend.kernels.choice import REFERENCE, Kernels
from backend.kernels.graphs import Recorder
from backend.packed.blocks import Blocks
from backend.packed.cached_blocks import CachedBlocks
from policies.caching import CachingPolicy
from traces.errors import BadInput


def packer_of(
    denoiser: Any,
    caching: CachingPolicy | None = None,
    cache_bytes: int = 2**30,
    cache_patch: int = 32,
    kernels: Kernels = REFERENCE,
    recorder: Recorder | None = None,
) -> Blocks:
    """What packs the calls of a denoiser. See `Blocks` and, for a caching policy, `CachedBlocks`.

    Raises:
        BadInput: the denoiser is no transformer, or there is a caching policy and the denoiser has no blocks.
    """
    name = type(denoiser).__name__
    if isinstance(denoiser, UNet2DConditionModel):
        raise BadInput(f"cluster.executor 'packed' packs transformers, not {name}; use 'patched'")
    if caching is None:
        return Blocks(denoiser, kernels, recorder)
    blocks = CachedBlocks(denoiser, caching, cache_bytes, cache_patch, kernels, recorder)
    if not blocks.cache.blocks:
        raise BadInput(f"{name} has no list of blocks that a caching policy could be asked about")
    return blocks
