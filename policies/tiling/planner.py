"""Which grid is the fastest on so many devices.

The fewest tiles make the best picture but rarely the best schedule: 9 tiles on 4 devices take three rounds at three
quarters' use, 16 smaller ones four full rounds of cheaper tiles, for attention grows with the square of a tile's area.
The planner tries every grid whose tiles are neither larger than the model's native size nor much smaller, lets the
placement policy assign each step while the grid makes its way to and fro, and takes the fastest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from policies.tiling.grid import TileGrid
from policies.tiling.recipe import TilingRule, along
from policies.tiling.step import first_owners, plan_step
from policies.tiling.timing import TileDevices, refine
from traces.errors import BadInput
from traces.request import Size

_STEPS = 32
"""Steps that a grid is tried for: at the usual stride a border's way to and fro."""


@dataclass(frozen=True)
class GridPlan:
    """A grid and what is expected of it.

    Attributes:
        size: size of the requests, pixels and frames.
        tiles: (down, across), as `TilingRule.grids` takes it.
        grid: the same in latent pixels.
        assignment: the device of each tile before the grid moves.
        step_s: predicted seconds of a refinement step, the exchange of pixels included; mean over the grid's movement.
        busy: share of the devices' time that is spent on tiles.
    """

    size: Size
    tiles: tuple[int, int]
    grid: TileGrid
    assignment: tuple[int, ...]
    step_s: float
    busy: float


@dataclass(frozen=True)
class GridPlanner:
    """Picks grids for the requests of one rule on one kind of replica.

    Attributes:
        rule: the model, how the grid moves, whether it wraps (clamped, an axis has one cell more) and the overlap.
        devices: devices of a replica, with the link between them and the placement policy.
        seconds: seconds of one tile's step, by the (height, width, frames) in pixels of its window.
        least_share: a tile's area is at least this share of the native area, or pictures suffer ...
        worth: ... and so they do from more tiles: a grid is taken when it is faster than one of fewer tiles by this
            share of its seconds.

    Raises:
        BadInput: a value that makes no sense.
    """

    rule: TilingRule
    devices: TileDevices
    seconds: Callable[[Size], float]
    least_share: float = 0.5
    worth: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.least_share <= 1:
            raise BadInput(f"least_share is {self.least_share}, expected above 0 to 1")
        if not 0 <= self.worth < 1:
            raise BadInput(f"worth is {self.worth}, expected 0 to below 1")

    def plan(self, size: Size) -> GridPlan:
        """The grid for requests of one size.

        Raises:
            BadInput: the model cannot make that size.
        """
        multiple = self.rule.geometry.size_multiple
        if any(side < 1 or side % multiple for side in size[:2]):
            raise BadInput(f"size is {size}, expected sides that are multiples of {multiple} px")
        found = [self.of(size, tiles) for tiles in self.candidates(size)]
        fastest = min(plan.step_s for plan in found)
        good = [plan for plan in found if plan.step_s * (1 - self.worth) <= fastest]
        return min(good, key=lambda plan: (math.prod(plan.tiles), plan.step_s))

    def planned(self, sizes: tuple[Size, ...]) -> TilingRule:
        """The rule with the grids that requests of these sizes are best cut by."""
        return replace(self.rule, grids=self.rule.grids | {size[:2]: self.plan(size).tiles for size in sizes})

    def candidates(self, size: Size) -> Iterator[tuple[int, int]]:
        """Grids (down, across) whose tiles fit the native size and keep ``least_share`` of it.

        The first has the fewest tiles and is always one of them.
        """
        multiple = self.rule.geometry.size_multiple
        native = along(self.rule.geometry.native_size, size)
        down, across = (
            -(-(side // multiple) // (tile // multiple)) for side, tile in zip(size[:2], native, strict=True)
        )
        most = int(size[0] * size[1] / (self.least_share * native[0] * native[1]))
        yield down, across
        for rows in range(down, min(most // across, size[0] // multiple) + 1):
            for columns in range(across, min(most // rows, size[1] // multiple) + 1):
                if (rows, columns) != (down, across):
                    yield rows, columns

    def of(self, size: Size, tiles: tuple[int, int]) -> GridPlan:
        """What is expected of one grid (down, across).

        Raises:
            ValueError: the canvas cannot be cut like that.
        """
        geometry, devices = self.rule.geometry, self.devices
        channels, frames, *canvas = geometry.latent_shape(size)
        shape = replace(self.rule, grids={size[:2]: tiles}).shape(size, _STEPS)

        def seconds(height: int, width: int) -> float:
            return self.seconds((height * geometry.latent_factor, width * geometry.latent_factor, size[2]))

        owners = first_owners((canvas[0], canvas[1]))
        start = plan_step(shape.grid.tiles(), owners, devices.count, devices.placement, seconds)
        timing = refine(shape, _STEPS, devices, seconds, channels * frames)
        work = sum(map(sum, timing.device_s))
        return GridPlan(
            size, tiles, shape.grid, start.devices, timing.seconds / _STEPS, work / devices.count / timing.seconds
        )
