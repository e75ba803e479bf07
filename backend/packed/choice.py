"""Which way of packing a pipeline's transformer gets."""

from __future__ import annotations

from typing import Any

from diffusers import UNet2DConditionModel

from backend.kernels.choice import REFERENCE, Kernels
from backend.kernels.graphs import Recorder
from backend.packed.blocks import Blocks
from backend.packed.transformer import PackedTransformer, supports
from policies.caching import CachingPolicy
from traces.errors import BadInput


def packer_of(
    denoiser: Any,
    caching: CachingPolicy | None = None,
    cache_bytes: int = 2**30,
    cache_patch: int = 32,
    kernels: Kernels = REFERENCE,
    recorder: Recorder | None = None,
) -> PackedTransformer | Blocks:
    """What packs the calls of a denoiser: by an adapter where there is one for its class, else as any other.

    Raises:
        BadInput: the denoiser is no transformer, or there is a caching policy and no adapter.
    """
    if isinstance(denoiser, UNet2DConditionModel):
        raise BadInput(f"cluster.executor 'packed' packs transformers, not {type(denoiser).__name__}; use 'patched'")
    if supports(denoiser):
        return PackedTransformer(denoiser, caching, cache_bytes, cache_patch, kernels, recorder)
    if caching is not None:
        raise BadInput(
            f"no caching policy knows the tokens of {type(denoiser).__name__}, which is packed as any transformer; "
            "expected no [policies.caching]"
        )
    return Blocks(denoiser, kernels, recorder)
