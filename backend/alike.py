"""Whether two ways to compute something differ by no more than rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_flatten

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Largest difference, in standard deviations; half precision rounds more."""
_HALF = 0.1


def alike(one: Any, other: Any) -> bool:
    """Whether two nests of tensors and plain values are the same but for rounding."""
    (mine, spec), (its, its_spec) = tree_flatten(one), tree_flatten(other)
    return spec == its_spec and all(_alike(a, b) for a, b in zip(mine, its, strict=True))


def _alike(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor):
        return bool(one is other or one == other)
    if not isinstance(other, torch.Tensor) or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.numel():
        return True
    tolerance = _TOLERANCE.get(one.dtype, _HALF) * max(float(one.double().std(correction=0)), 1e-12)
    return bool((one.double() - other.double()).abs().max() <= tolerance)
