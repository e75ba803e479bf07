"""What a cache decides about: groups of neighbouring image tokens of one row, over all frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from backend.coroutine import DenoiserCall

Grid = tuple[int, int, int]
"""(frames, height, width) of a row in tokens."""
Ints = npt.NDArray[np.int64]


def unit_of_tokens(grid: Grid, side: int) -> Ints:
    """[tokens] the unit of each token: the grid cut into near-squares of about ``side`` x ``side`` tokens; 0: whole."""
    frames, height, width = grid
    lines, columns = (max(1, round(length / side)) if side else 1 for length in (height, width))
    line_of, column_of = np.arange(height) * lines // height, np.arange(width) * columns // width
    return np.tile((line_of[:, None] * columns + column_of).ravel(), frames)


def grid_of_tokens(call: DenoiserCall, tokens: int, patch: int) -> tuple[Grid, int]:
    """How the tokens of each row of a call lie, and latent pixels along a token's side; what fits no grid is one unit.

    Args:
        call: a call of a transformer of diffusers: of latents, or of tokens with their positions or sides beside them.
        tokens: of each row.
        patch: what the model's configuration says of the side of a token.
    """
    named = call.kwargs
    sample = next((x for x in (*call.args, *named.values()) if isinstance(x, torch.Tensor | list)), None)
    first = sample[0] if isinstance(sample, list) and sample else sample
    if isinstance(first, torch.Tensor) and first.ndim >= 4:
        height, width, side = first.shape[-2] // patch, first.shape[-1] // patch, patch
    elif isinstance(named.get("height"), int) and isinstance(named.get("width"), int):
        height, width, side = named["height"], named["width"], 1
    elif isinstance(named.get("img_ids"), torch.Tensor):
        (height, width), side = _sides(named["img_ids"]), 2
    elif named.get("img_shapes"):
        shape = named["img_shapes"][0]
        (_, height, width), side = shape[0] if isinstance(shape, list) else shape, 2
    else:
        return (tokens, 1, 1), patch
    frames, rest = divmod(tokens, max(1, height * width))
    return ((tokens, 1, 1) if rest or not frames else (frames, height, width)), side


def _sides(ids: torch.Tensor) -> tuple[int, int]:
    """Read off position ids, once: it waits for the device."""
    known: tuple[int, int] | None = getattr(ids, "_tilecast_sides", None)
    if known is None:
        height, width = (ids.reshape(-1, ids.shape[-1])[:, 1:3].amax(0).long() + 1).tolist()
        known = ids._tilecast_sides = height, width  # type: ignore[attr-defined]
    return known


class Units:
    """The units of a pack, row by row.

    Attributes:
        of_token: [image tokens] unit of each token.
        tokens: [units] how many tokens each has.
        row: [units] the row it belongs to.
    """

    def __init__(self, grids: Sequence[Grid], side: int) -> None:
        of_rows = [unit_of_tokens(grid, side) for grid in grids]
        counts = [int(units.max()) + 1 for units in of_rows]
        starts = np.cumsum([0, *counts])
        self.of_token = np.concatenate([units + start for units, start in zip(of_rows, starts, strict=False)])
        self.tokens = np.bincount(self.of_token, minlength=int(starts[-1]))
        self.row = np.repeat(np.arange(len(grids)), counts)

    def __len__(self) -> int:
        return len(self.tokens)

    def of_rows(self, rows: Sequence[int]) -> list[int]:
        """How many units each of several groups of ``rows`` consecutive rows has."""
        of_row = np.bincount(self.row)
        return [int(part.sum()) for part in np.split(of_row, np.cumsum(rows)[:-1])]


@lru_cache(maxsize=64)
def units_of(grids: tuple[Grid, ...], side: int) -> Units:
    """The units of a composition; a batch whose composition stays keeps them."""
    return Units(grids, side)
