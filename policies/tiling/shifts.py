"""How a tile grid moves from step to step.

Seams vanish when no row or column is a border more often than any other. So a grid moves by a stride that has no
divisor in common with its cycle: within one cycle every row and every column is a border, and after it the grid stands
where it began. The published schedule of 16 strides of 5 rows reaches 80 of 90 rows and then jumps back.

What a model makes of a pixel depends on where in its window it lies, so what a cache holds is worth less once the grid
has moved. A grid may therefore *stand* for some steps before it moves: a tile is computed where it has come to, and
reused while it stands there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from policies.tiling.grid import TileGrid

STRIDE_SHARE = 1 / 16
"""Share of a tile that its grid moves a step (SuperGen, section 4)."""


@dataclass(frozen=True)
class ShiftSchedule:
    """The movement of one grid.

    Attributes:
        strides: (down, right) latent pixels a move; 0 along an axis that has one tile.
        cycles: steps until the borders of each axis stand where they began.
        periods: in ``wrap`` mode steps until each tile does, too; in ``clamp`` mode the way to and fro.
        mode: the grid's.
        stand: steps from one move to the next.
    """

    strides: tuple[int, int]
    cycles: tuple[int, int]
    periods: tuple[int, int]
    mode: str
    stand: int = 1

    @classmethod
    def of(cls, grid: TileGrid, share: float = STRIDE_SHARE, stand: int = 1) -> ShiftSchedule:
        """The schedule of a grid that moves by about ``share`` of a tile every ``stand`` steps; 0: it never does.

        Raises:
            ValueError: the share is not from 0 to 1, or ``stand`` is below 1.
        """
        if stand < 1:
            raise ValueError(f"a grid stands for {stand} steps, expected at least 1")
        if not 0 <= share <= 1:
            raise ValueError(f"the share of a tile a step is {share}, expected 0 to 1")
        axes = [_axis(lengths, grid.mode, share) for lengths in (grid.rows, grid.columns)]
        strides, cycles, periods = zip(*axes, strict=True)
        cycles, periods = (tuple(stand * moves for moves in of_axis) for of_axis in (cycles, periods))
        return cls(strides, cycles, periods, grid.mode, stand)

    def at(self, step: int) -> tuple[int, int]:
        """The shift (down, right) of a step, counted from 0."""
        move, periods = step // self.stand, [period // self.stand for period in self.periods]
        down, right = (stride * move % period for stride, period in zip(self.strides, periods, strict=True))
        if self.mode == "wrap":
            return down, right
        return min(down, periods[0] - down), min(right, periods[1] - right)

    def renews(self, step: int) -> bool:
        """Whether a cache reuses nothing at a step, because a grid that stands at times has just moved."""
        return self.stand > 1 and step > 0 and self.at(step) != self.at(step - 1)


def _axis(lengths: tuple[int, ...], mode: str, share: float) -> tuple[int, int, int]:
    """(stride, cycle, period) along one axis."""
    longest = max(lengths)
    if len(lengths) == 1 or not share:
        return 0, 1, 1
    period = sum(lengths) if mode == "wrap" else 2 * longest
    even = mode == "wrap" and len(set(lengths)) == 1
    return _coprime(longest * share, period), longest if even else period, period


def _coprime(wanted: float, period: int) -> int:
    """The whole number nearest to ``wanted`` that has no divisor in common with ``period``."""
    return min((n for n in range(1, period + 1) if gcd(n, period) == 1), key=lambda n: (abs(n - wanted), n))
