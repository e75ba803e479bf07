"""A kernel that cannot be compiled or launched gives way to its reference, once and for all, with a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

given_up: dict[str, str] = {}
"""Kernels that gave way in this process, and why."""


def kernel_or(name: str, kernel: Callable[[], T], reference: Callable[[], T]) -> T:
    """What ``kernel`` gives; where it fails, and the reference does not, the reference's from then on.

    Raises:
        Exception: whatever the reference raised: then the call is to blame, and not the kernel.
        torch.OutOfMemoryError: there is no room, which the reference would not have either.
    """
    if name in given_up:
        return reference()
    try:
        return kernel()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        given = reference()
        given_up[name] = reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        warnings.warn(f"kernel {name} gave way to plain PyTorch: {reason}", stacklevel=2)
        return given
