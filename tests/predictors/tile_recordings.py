"""Made-up recordings of tile signals, by formulas simple enough to check against."""

from __future__ import annotations

import numpy as np
import pandas as pd

from policies.tiling.grid import TileGrid
from policies.tiling.shifts import ShiftSchedule
from predictors.tile_recording import TileRecording

STEPS = 12
FACTOR = 8
SIDE = 16
"""Of a tile, latent pixels."""


def grid_of(height: int, width: int, mode: str = "wrap") -> TileGrid:
    """Tiles of `SIDE` on the canvas of so many pixels."""
    canvas = (height // FACTOR, width // FACTOR)
    return TileGrid(canvas, (SIDE,) * (canvas[0] // SIDE), (SIDE,) * (canvas[1] // SIDE), mode)


def speed(request: int, down: float) -> float:
    """How fast the input of a tile moves at this height of the picture: the lower, the faster."""
    return (1 + request % 3) * (0.01 + 0.04 * down)


def made_up_tiles(
    requests: int = 3, size: tuple[int, int] = (256, 384), steps: int = STEPS, ages: int = 4, mode: str = "wrap"
) -> TileRecording:
    """Inputs change and move in proportion to the age; the output, of level 4, moves 1.5 times as much."""
    grid = grid_of(*size, mode)
    shifts = ShiftSchedule.of(grid)
    rows = []
    for request in range(requests):
        for step in range(1, steps):
            for tile in grid.tiles(shifts.at(step)):
                window = tile.window
                down = (window.top + window.height / 2) / grid.canvas[0] % 1
                across = (window.left + window.width / 2) / grid.canvas[1] % 1
                for age in range(1, min(ages, step) + 1):
                    moved = speed(request, down) * age
                    place = (f"r{request}", *size, 1, steps, tile.index, down, across, step, age)
                    rows.append((*place, moved, moved, 4.0, 1.5 * moved, moved))
    names = ["request_id", "height", "width", "frames", "steps", "tile", "down", "across", "step", "age"]
    names += ["input_change", "input_shift", "output_level", "output_shift", "residual_shift"]
    facts = {"model": "made-up", "latent_factor": str(FACTOR)}
    return TileRecording(pd.DataFrame(rows, columns=np.array(names)), facts)
