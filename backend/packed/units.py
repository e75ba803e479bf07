"""What a cache decides about: groups of neighbouring image tokens of one row, over all frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Grid = tuple[int, int, int]
"""(frames, height, width) of a row in tokens."""
Ints = npt.NDArray[np.int64]


def unit_of_tokens(grid: Grid, side: int) -> Ints:
    """[tokens] the unit of each token: the grid cut into near-squares of about ``side`` x ``side`` tokens; 0: whole."""
    frames, height, width = grid
    lines, columns = (max(1, round(length / side)) if side else 1 for length in (height, width))
    line_of, column_of = np.arange(height) * lines // height, np.arange(width) * columns // width
    return np.tile((line_of[:, None] * columns + column_of).ravel(), frames)


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


@lru_cache(maxsize=128)
def units_of(grids: tuple[Grid, ...], side: int) -> Units:
    """The units of a composition; a batch whose composition stays keeps them."""
    return Units(grids, side)
