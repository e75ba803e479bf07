"""What a tile cache's policy is told, measured on tensors: the same bits on any number of ranks.

A tile's window moves, and the pixels of a window lie with several ranks. Every rank measures the pixels it owns, each
reduced over channels and frames in float32; over pixels the sums are taken in whole numbers of 2**-24, which have no
order. So a decision does not depend on who computed what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from policies.caching.contract import Floats, Ints, Signals
from policies.tiling.grid import Box, Tile

_ONE = 2.0**24
_MOST = 2.0**22
"""Larger magnitudes of a pixel than this count as this, so that the sums stay in 63 bits."""


def in_whole_numbers(per_pixel: torch.Tensor) -> torch.Tensor:
    """Float magnitudes as int64 multiples of 2**-24."""
    return (per_pixel.double().nan_to_num(_MOST).clamp(max=_MOST) * _ONE).round().to(torch.int64)


def over_window(per_pixel: torch.Tensor, box: Box) -> torch.Tensor:
    """The sum of [..., H, W] over a window, [...]."""
    rows = torch.from_numpy(box.rows(per_pixel.shape[-2]))
    columns = torch.from_numpy(box.columns(per_pixel.shape[-1]))
    return per_pixel.index_select(-2, rows).index_select(-1, columns).sum((-2, -1))


def measured(
    tiles: Sequence[Tile], owned: torch.Tensor, now: torch.Tensor, then: torch.Tensor, held: torch.Tensor
) -> torch.Tensor:
    """This rank's part of four sums for each tile, int64 [4, tiles].

    |now - then|, (now - then)**2 and then**2 of the input, and |held| of the output that would be reused.

    Args:
        tiles: tiles of the step.
        owned: [H, W], the pixels of this rank.
        now: the input, [images, channels, frames, H, W].
        then: the input when what is held was computed.
        held: the output, of the same shape.
    """
    over = (0, 1, 2)
    difference = now - then
    maps = (difference.abs().sum(over), difference.square().sum(over), then.square().sum(over), held.abs().sum(over))
    per_pixel = torch.where(owned, torch.stack([in_whole_numbers(one).cpu() for one in maps]), 0)
    return torch.stack([over_window(per_pixel, tile.window) for tile in tiles], dim=1)


def as_table(signals: Signals) -> torch.Tensor:
    """The signals of one request at one step as numbers: its units, then what is known of them, [7, tiles]."""
    columns = signals.input_change, signals.skip_change, signals.input_shift, signals.output_level
    gains = signals.output_gain, signals.input_gain
    return torch.from_numpy(np.array([signals.unit, *columns, *gains], dtype=np.float64))


class MeasuredTileSignals:
    """Turns totals into the signals of a request, and remembers the gains of its tiles.

    Args:
        request_id: whose tiles.
        steps: evaluations of its refinement.
        values: numbers a latent pixel stands for: images x channels x frames.
    """

    def __init__(self, request_id: str, steps: int, values: int) -> None:
        self._request_ids = (request_id,)
        self._steps = steps
        self._values = values
        self._gains: dict[int, tuple[float, float]] = {}
        self._shift: dict[int, float] = {}  # input_shift of the units at the step that is decided
        self._waiting: dict[int, float] = {}  # the same of those that were computed at the last step

    def changed(self, tiles: Sequence[Tile], totals: torch.Tensor) -> None:
        """How far the outputs of the tiles that were just computed moved: |change| summed over windows, [tiles]."""
        for tile, total in zip(tiles, totals.tolist(), strict=True):
            if tile.index in self._waiting:
                moved = total / _ONE / self._count(tile)
                self._gains[tile.index] = (moved, self._waiting.pop(tile.index))
        self._waiting.clear()

    def of(self, step: int, tiles: Sequence[Tile], totals: torch.Tensor | None, renewed: bool = False) -> Signals:
        """The signals of a step from the totals of `measured`; None: nothing is held yet.

        ``renewed``: what is held is not to be reused.
        """
        units = np.array([tile.index for tile in tiles])
        nothing, unknown = np.zeros(len(tiles)), np.full(len(tiles), np.inf)
        if totals is None:
            return self._signals(step, units, (unknown, nothing, unknown, nothing, nothing, nothing))
        values = np.array([self._count(tile) for tile in tiles])
        shift, squares, then, level = totals.numpy().astype(np.float64) / _ONE
        change = squares / np.maximum(then, np.finfo(np.float64).tiny)
        gains = np.array([self._gains.get(unit, (0.0, 0.0)) for unit in units.tolist()])
        self._shift = dict(zip(units.tolist(), (shift / values).tolist(), strict=True))
        if renewed:
            return self._signals(step, units, (unknown, nothing, unknown, nothing, *gains.T.copy()))
        return self._signals(step, units, (change, nothing, shift / values, level / values, *gains.T.copy()))

    def computed(self, tiles: Sequence[Tile]) -> None:
        """These tiles are computed this step; their outputs' changes will be told next."""
        self._waiting = {tile.index: self._shift[tile.index] for tile in tiles if tile.index in self._shift}

    def state(self) -> dict[str, list[list[float]]]:
        """What is remembered, to go on from."""
        return {
            "gains": [[unit, *gains] for unit, gains in self._gains.items()],
            "waiting": [[unit, shift] for unit, shift in self._waiting.items()],
        }

    def restore(self, state: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """Go on from a `state`."""
        self._gains = {int(unit): (moved, shift) for unit, moved, shift in state["gains"]}
        self._waiting = {int(unit): shift for unit, shift in state["waiting"]}

    def from_table(self, step: int, table: torch.Tensor) -> Signals:
        """The signals of a step from their `as_table`."""
        units, *columns = table.numpy()
        return self._signals(step, units.astype(np.int64), columns)

    def _signals(self, step: int, units: Ints, columns: Sequence[Floats]) -> Signals:
        count = len(units)
        of, at, steps = np.zeros(count, dtype=np.int64), np.full(count, step), np.full(count, self._steps)
        return Signals(self._request_ids, of, units, 0, 1, at, steps, *columns)

    def _count(self, tile: Tile) -> int:
        return tile.window.height * tile.window.width * self._values
