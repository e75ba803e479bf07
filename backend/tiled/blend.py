"""Overlapping windows put together: each pixel is the weighted mean of all that were computed there.

Only cores of computed tiles are blended: a reused tile hands on what is held as it is. Contributions are added in the
order of the tiles, wherever they were computed, so that any number of ranks gets the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from backend.ranks.group import Group
from policies.tiling.grid import Floats, Ints
from policies.tiling.recipe import TiledShape
from policies.tiling.step import REUSED, StepPlan


class _Share(NamedTuple):
    """What one tile's window gives to the cores of one rank: places in the window and on the canvas, and weights."""

    tile: int
    source: int
    target: int
    within: tuple[Ints, Ints]
    on_canvas: tuple[Ints, Ints]
    weights: Floats


class TileBlend:
    """The blending of one step."""

    def __init__(self, shares: list[_Share]) -> None:
        self._shares = shares

    @classmethod
    def of(cls, shape: TiledShape, step: int, plan: StepPlan) -> TileBlend:
        """Who gives what to whom in a step."""
        grid, shift = shape.grid, shape.shifts.at(step)
        height, width = grid.canvas
        target_of = np.full(grid.canvas, REUSED)
        total = np.zeros(grid.canvas)
        weights = {}
        for place, (tile, device) in enumerate(zip(plan.tiles, plan.devices, strict=True)):
            if device != REUSED:
                target_of[np.ix_(tile.core.rows(height), tile.core.columns(width))] = device
                weights[place] = grid.weights(shift, tile)
                total[np.ix_(tile.window.rows(height), tile.window.columns(width))] += weights[place]
        shares = []
        for place, of_window in weights.items():
            window = plan.tiles[place].window
            rows, columns = window.rows(height), window.columns(width)
            targets = np.where(of_window > 0, target_of[np.ix_(rows, columns)], REUSED)
            for target in sorted(set(targets.ravel().tolist()) - {REUSED}):
                down, right = np.nonzero(targets == target)
                at = rows[down], columns[right]
                share = of_window[down, right] / total[at]
                shares.append(_Share(place, plan.devices[place], target, (down, right), at, share))
        return cls(shares)

    def put_together(self, whole: torch.Tensor, windows: Mapping[int, torch.Tensor], group: Group) -> None:
        """Write the cores of this rank's tiles into ``whole``, [rows, channels, frames, H, W].

        ``windows`` are the predictions of this rank's tiles, by their place in the step.
        """
        mine = [share for share in self._shares if share.target == group.rank]
        sends, receives, values = [], [], {}
        for index, share in enumerate(self._shares):
            if share.source == group.rank:
                given = windows[share.tile][..., *share.within].contiguous()
                if share.target == group.rank:
                    values[index] = given
                else:
                    sends.append((share.target, given))
            elif share.target == group.rank:
                values[index] = whole.new_empty((*whole.shape[:3], len(share.weights)))
                receives.append((share.source, values[index]))
        group.exchange(sends, receives)
        for share in mine:
            whole[..., *share.on_canvas] = 0.0
        for index, share in enumerate(self._shares):
            if share.target == group.rank:
                weights = torch.from_numpy(share.weights).to(whole)
                whole[..., *share.on_canvas] += weights * values[index]
