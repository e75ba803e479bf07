"""Flicker: change from frame to frame that no smooth motion explains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.quality.frames import Frames, shrunk

SIDE = 64
"""Pixels of the shorter side that frames are averaged down to, at least."""
BLOCK = 8
"""Pixels a side of the blocks that move on their own."""
REACH = 8
"""Pixels a frame that a block may move along each axis."""
NOISE = 4 / 255
"""Changes below this are hardly seen, nor counted."""
LUMA = np.array((0.2126, 0.7152, 0.0722), np.float32)
"""Weights of ITU-R BT.709."""


def flicker(frames: Frames) -> float:
    """The mean share of change that smooth motion does not explain.

    0: none; about 2/3: every frame drawn alone; 1: to and fro. NaN for fewer than three frames and sides below a block.

    A block of frame t that moves steadily by ``v`` is the mean of where it was and where it will be, so

        share = min_v mean (p_t(x) - (p_{t-1}(x - v) + p_{t+1}(x + v)) / 2)^2
                / (mean ((p_t - p_{t-1})^2 + (p_{t+1} - p_t)^2) / 2 + NOISE^2)

    over the block: with ``v = 0`` the second temporal difference against the first. The search is the bilateral motion
    estimation of frame-rate conversion (Choi, Lee and Ko, "New frame rate up-conversion using bi-directional motion
    estimation", 2000). No motion passes for a change of brightness: two opposite shifts of a slope cancel.
    """
    if len(frames) < 3 or min(frames.shape[1:3]) < BLOCK:
        return math.nan
    luma = shrunk(frames, SIDE) @ LUMA
    before, middle, after = luma[:-2], luma[1:-1], luma[2:]
    change = _blocks(((middle - before) ** 2 + (after - middle) ** 2) / 2)
    unexplained = np.full_like(change, math.inf)
    around = ((0, 0), (REACH, REACH), (REACH, REACH))
    before, after = np.pad(before, around, mode="edge"), np.pad(after, around, mode="edge")
    for dy in range(-REACH, REACH + 1):
        for dx in range(-REACH, REACH + 1):
            expected = (_window(before, -dy, -dx) + _window(after, dy, dx)) / 2
            unexplained = np.minimum(unexplained, _blocks((middle - expected) ** 2))
    return float((unexplained / (change + NOISE**2)).mean())


def _window(padded: NDArray[np.float32], dy: int, dx: int) -> NDArray[np.float32]:
    height, width = (length - 2 * REACH for length in padded.shape[1:])
    return padded[:, REACH + dy : REACH + dy + height, REACH + dx : REACH + dx + width]


def _blocks(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """[frames, rows, columns] of block means; what does not fill a block at the bottom and right is left out."""
    count, rows, columns = len(values), values.shape[1] // BLOCK, values.shape[2] // BLOCK
    whole = values[:, : rows * BLOCK, : columns * BLOCK]
    return whole.reshape(count, rows, BLOCK, columns, BLOCK).mean((2, 4))
