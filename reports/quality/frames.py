"""The one shape that all measures work on: ``[frames, height, width, 3]``, a picture being a clip of one frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces.errors import BadInput

Frames = NDArray[np.float32]
Pixels = NDArray[np.floating[Any]]


def frames_of(pixels: Pixels, what: str = "pixels") -> Frames:
    """A picture [height, width, 3] or clip [frames, height, width, 3] as a clip.

    Raises:
        BadInput: another shape, no pixel, or values that are no floats in 0..1; the message begins with ``what``.
    """
    array = np.asarray(pixels)
    if array.ndim not in (3, 4) or array.shape[-1] != 3 or array.size == 0:
        raise BadInput(f"{what}: shape {array.shape}, expected [height, width, 3] or [frames, height, width, 3]")
    if not np.issubdtype(array.dtype, np.floating) or not (array.min() >= 0 and array.max() <= 1):
        raise BadInput(f"{what}: expected floats in 0..1")
    frames = array.astype(np.float32, copy=False)
    return frames if frames.ndim == 4 else frames[None]


def shrunk(frames: Frames, side: int) -> Frames:
    """The frames box-averaged by the whole factor that keeps the shorter side at ``side`` pixels or just above."""
    count, height, width, channels = frames.shape
    factor = max(1, min(height, width) // side)
    rows, columns = height // factor, width // factor
    cut = frames[:, : rows * factor, : columns * factor]
    return cut.reshape(count, rows, factor, columns, factor, channels).mean((2, 4), dtype=np.float32)
