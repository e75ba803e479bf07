"""Which requests are made by sketch and tiles, and what becomes of them.

A request much larger than what its model was trained at is drawn small (the *sketch*, at the native area), enlarged,
made noisy again and refined tile by tile over its last denoising steps (SuperGen, arXiv 2508.17756). Everything else
runs as it always did. What a request becomes depends on its size, steps and model alone, so policies, simulator and
backend agree on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from policies.tiling.grid import MODES, TileGrid, cut, split
from policies.tiling.shifts import STRIDE_SHARE, ShiftSchedule
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.request import Request, Size
from traces.stages import Recipe, ordinary

POSITIONS = ("local", "absolute", "ntk")
IMAGES = ("refine", "condition")


@dataclass(frozen=True)
class TiledShape:
    """What a tiled request becomes.

    Attributes:
        size: size of the request, pixels and frames.
        sketch: size at which it is sketched.
        grid: how its canvas is cut, latent pixels.
        shifts: how the grid moves.
        sketch_steps: denoising steps of the sketch.
        refine_steps: the last so many of as many steps again, on the canvas.
    """

    size: Size
    sketch: Size
    grid: TileGrid
    shifts: ShiftSchedule
    sketch_steps: int
    refine_steps: int

    @property
    def first_step(self) -> int:
        """Where in the sampler's schedule refinement begins."""
        return self.sketch_steps - self.refine_steps


@dataclass(frozen=True)
class TilingRule:
    """When and how requests of one model are tiled.

    Attributes:
        geometry: the model's.
        above: a request of more than so many times the native area is tiled.
        refine: share of the denoising steps that refinement repeats.
        tile: (height, width) of a tile in pixels at most; None: the native size, laid along the canvas.
        grids: for requests of a (height, width) in pixels how many tiles (down, across), instead of the fewest.
        mode: ``wrap`` or ``clamp``, see `policies.tiling.grid`.
        overlap: pixels that a window reaches beyond its core.
        stride: share of a tile that the grid moves at once.
        stand: steps for which it stands before it moves, see `policies.tiling.shifts`.
        image: what the image of a request is for: to ``refine`` instead of a sketch, or a ``condition`` that the model
            is shown.

    Raises:
        BadInput: a value that makes no sense.
    """

    geometry: ModelGeometry
    above: float = 1.0
    refine: float = 0.9
    tile: tuple[int, int] | None = None
    grids: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)
    mode: str = "wrap"
    overlap: int = 0
    stride: float = STRIDE_SHARE
    image: str = "refine"
    stand: int = 1

    def __post_init__(self) -> None:
        multiple, factor = self.geometry.size_multiple, self.geometry.latent_factor
        if self.above <= 0:
            raise BadInput(f"tiling.above is {self.above}, expected a number above 0")
        if not 0 < self.refine <= 1:
            raise BadInput(f"tiling.refine is {self.refine}, expected above 0 to 1")
        if self.mode not in MODES:
            raise BadInput(f"tiling.mode is {self.mode!r}, expected one of {', '.join(MODES)}")
        if self.overlap < 0 or self.overlap % factor:
            raise BadInput(f"tiling.overlap is {self.overlap}, expected a multiple of {factor} px")
        if self.image not in IMAGES:
            raise BadInput(f"tiling.image is {self.image!r}, expected one of {', '.join(IMAGES)}")
        if not 0 <= self.stride <= 1:
            raise BadInput(f"tiling.stride is {self.stride}, expected 0 to 1")
        if self.stand < 1:
            raise BadInput(f"tiling.stand is {self.stand}, expected at least 1 step")
        if self.tile is not None and min(self.tile) < multiple:
            raise BadInput(f"tiling.tile is {self.tile}, expected sides of at least {multiple} px")

    def applies(self, size: Size) -> bool:
        """Whether a request of this size is tiled."""
        height, width, _ = size
        native = self.geometry.native_size
        return height * width > self.above * native[0] * native[1]

    def stages(self, request: Request) -> Recipe:
        """The recipe of a request, tiled or not."""
        if not self.applies(request.size):
            return ordinary(request)
        sketch: Recipe = () if request.image and self.image == "refine" else (("sketch", request.steps),)
        refine = self.refine_steps(request.steps)
        return (("encode", 1), *sketch, ("upscale", 1), ("refine", refine), ("decode", 1))

    def refine_steps(self, steps: int) -> int:
        """Refinement steps of a request of so many denoising steps; at least 1."""
        return max(1, round(self.refine * steps))

    def shape(self, size: Size, steps: int) -> TiledShape:
        """What a tiled request of this size and number of denoising steps becomes."""
        grid = self.grid(size)
        sketch = sketch_size(self.geometry, size)
        shifts = ShiftSchedule.of(grid, self.stride, self.stand)
        return TiledShape(size, sketch, grid, shifts, steps, self.refine_steps(steps))

    def grid(self, size: Size) -> TileGrid:
        """The grid of a canvas."""
        geometry = self.geometry
        factor, multiple = geometry.latent_factor, geometry.size_multiple // geometry.latent_factor
        canvas = (size[0] // factor, size[1] // factor)
        if (tiles := self.grids.get(size[:2])) is not None:
            rows, columns = (cut(extent, n, multiple) for extent, n in zip(canvas, tiles, strict=True))
        else:
            tile = along(geometry.native_size, size) if self.tile is None else self.tile
            rows, columns = (split(extent, side // factor, multiple) for extent, side in zip(canvas, tile, strict=True))
        return TileGrid(canvas, rows, columns, self.mode, self.overlap // factor, multiple)


def along(native: tuple[int, int], size: Size) -> tuple[int, int]:
    """The native size, upright for an upright canvas."""
    short, long = sorted(native)
    return (long, short) if size[0] > size[1] else (short, long)


def sketch_size(geometry: ModelGeometry, size: Size) -> Size:
    """The largest size of at most the native area with about the sides' ratio of ``size``."""
    height, width, frames = size
    native = geometry.native_size
    scale = min(1.0, math.sqrt(native[0] * native[1] / (height * width)))
    multiple = geometry.size_multiple
    sides = [max(multiple, round(side * scale / multiple) * multiple) for side in (height, width)]
    while sides[0] * sides[1] > native[0] * native[1] and max(sides) > multiple:
        sides[sides.index(max(sides))] -= multiple
    return sides[0], sides[1], frames


def shape_from(fields: dict[str, Any]) -> TiledShape:
    """A shape from its fields as JSON gives them back, see `dataclasses.asdict`."""

    def tuples(values: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    grid, shifts = TileGrid(**tuples(fields["grid"])), ShiftSchedule(**tuples(fields["shifts"]))
    return TiledShape(**{**tuples(fields), "grid": grid, "shifts": shifts})
