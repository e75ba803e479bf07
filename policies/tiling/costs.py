"""What a step of a request costs where some requests are tiled: what policies and the simulated world ask.

Batches are spelled in the sizes that were asked for. A sketch costs what denoising at its own size does, a refinement
step what the busiest device takes for its tiles and their exchange; both come from the measured seconds of denoising.
Cutting a canvas and putting it together costs something too: where whole refinement steps were measured, tiles cost
so much more that their sum agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from policies.tiling.recipe import TilingRule
from policies.tiling.timing import TileDevices, refine
from predictors.costs import Batch, CostLayer, CostModel, RepeatNoise
from traces.composition import Composition, composition_of
from traces.request import Request, Size
from traces.stages import STAGES, Recipe

_SAMPLED = 32
"""Steps of the grid's movement that a typical step is the mean of, at most."""


@dataclass(frozen=True, eq=False)
class TiledCosts(CostLayer):
    """Seconds per step of any composition, tiled or not.

    Attributes:
        table: seconds of what is not tiled.
        rule: which requests are.
        devices: that refine.
        shares: the share of the seconds of refinement without a cache that a request of each size is expected to take;
            sizes that are not named take all.
        link_factor: exchanges take so many times as long as the link says.
    """

    table: CostModel
    rule: TilingRule
    devices: TileDevices = field(default_factory=TileDevices)
    shares: Mapping[Size, float] = field(default_factory=dict)
    link_factor: float = 1.0
    _known: dict[tuple[str, Batch], float] = field(default_factory=dict, init=False, repr=False)
    _alone: dict[tuple[Size, int, bool, Recipe], float] = field(default_factory=dict, init=False, repr=False)
    _sketches: dict[Composition, Composition] = field(default_factory=dict, init=False, repr=False)

    def step_s(self, stage: str, batch: Batch) -> float:
        """Seconds of one step of ``stage`` for a batch; of a step on tiles, on the batch's devices if it names some."""
        row = STAGES[stage]
        if row.canvas == "sketch":
            return self.table.step_s(
                row.costs_of, batch._replace(composition=self.sketched(batch.composition), devices=1, computed=None)
            )
        if row.canvas == "whole":
            return self.table.step_s(stage, batch)
        value = self._known.get((stage, batch))
        if value is None:
            value = sum([self.shares.get(size, 1.0) * self._refine_s(batch, size, n) for size, n in batch.composition])
            if not self.learns:
                self._known[stage, batch] = value
        return value

    def standalone_s(self, request: Request) -> float:
        """Seconds of the whole request on an idle replica."""
        if self.learns:
            return super().standalone_s(request)
        key = (request.size, request.images, request.guided, self.recipe(request))
        value = self._alone.get(key)
        if value is None:
            value = self._alone[key] = super().standalone_s(request)
        return value

    def recipe(self, request: Request) -> Recipe:
        """(Stage, steps) of a request."""
        return self.rule.stages(request)

    def noise(self, stage: str) -> RepeatNoise:
        """Repeat noise of a stage; that of denoising where tiles and sketches were not measured themselves."""
        return self.table.noise(STAGES[stage].costs_of)

    def extrapolation(self, stage: str, composition: Composition) -> float:
        """1.0 inside the measured range, else by how much the worst of what runs lies outside."""
        row = STAGES[stage]
        if row.canvas == "tiles":
            windows = [((window, images),) for size, images in composition for window in self.windows(size)]
            return max(self.table.extrapolation(row.costs_of, window) for window in windows)
        if row.canvas == "sketch":
            return self.table.extrapolation(row.costs_of, self.sketched(composition))
        return self.table.extrapolation(stage, composition)

    def scaled(self, factor: float) -> TiledCosts:
        """The same with every second multiplied."""
        return replace(self, table=self.table.scaled(factor), link_factor=self.link_factor * factor)

    def expecting(self, shares: Mapping[Size, float]) -> TiledCosts:
        """The same with a tile cache that leaves so much of the refinement of each size, see `TilePlans`."""
        return replace(self, shares=dict(shares))

    def sketched(self, composition: Composition) -> Composition:
        """The composition with the sketches of what is tiled in its place."""
        found = self._sketches.get(composition)
        if found is None:
            items = [(self._sketch(size), images) for size, images in composition]
            found = self._sketches[composition] = composition_of(items)
        return found

    def _sketch(self, size: Size) -> Size:
        return self.rule.shape(size, 1).sketch if self.rule.applies(size) else size

    def windows(self, size: Size) -> tuple[Size, ...]:
        """The sizes of a tiled request's windows, pixels and frames."""
        shape, factor = self.rule.shape(size, 1), self.rule.geometry.latent_factor
        tiles = [tile for step in range(self._sampled(size)) for tile in shape.grid.tiles(shape.shifts.at(step))]
        return tuple(sorted({(t.window.height * factor, t.window.width * factor, size[2]) for t in tiles}))

    def window_s(self, batch: Batch) -> Callable[[int, int], float]:
        """Seconds of a window of (height, width) latent pixels of requests of one size, the batch's."""
        factor, more, ((size, images),) = self.rule.geometry.latent_factor, self._overhead(batch), batch.composition
        plain = batch._replace(devices=1, computed=None)

        def seconds(height: int, width: int) -> float:
            window = (((height * factor, width * factor, size[2]), images),)
            return more * self.table.step_s("denoise", plain._replace(composition=window))

        return seconds

    def pixel_numbers(self, size: Size, images: int) -> int:
        """Numbers that a latent pixel of so many pictures or clips stands for."""
        channels, frames, _, _ = self.rule.geometry.latent_shape(size)
        return channels * frames * images

    def _overhead(self, batch: Batch) -> float:
        """How much longer a measured refinement step takes than its tiles do; 1.0 where none was measured.

        Measured are grids that wrap, without overlap, of the fewest tiles: whatever grid is asked about.
        """
        plain = batch._replace(devices=1, computed=None)
        measured_s = self.table.step_s("refine", plain)
        if not measured_s:
            return 1.0
        factor, ((size, images),) = self.rule.geometry.latent_factor, batch.composition
        grid = replace(self.rule, grids={}, mode="wrap", overlap=0).grid(size)
        windows = [tile.window for tile in grid.tiles()]
        of_tiles = [
            self.table.step_s(
                "denoise", plain._replace(composition=(((w.height * factor, w.width * factor, size[2]), images),))
            )
            for w in windows
        ]
        return measured_s / sum(of_tiles)

    def _refine_s(self, batch: Batch, size: Size, images: int) -> float:
        """Seconds of a typical refinement step of the batch's requests of one size without a cache."""
        timing = refine(
            self.rule.shape(size, 1),
            self._sampled(size),
            self.devices if batch.devices is None else replace(self.devices, count=batch.devices),
            self.window_s(batch._replace(composition=((size, images),))),
            self.pixel_numbers(size, images),
        )
        work_s = sum(max(busy) for busy in timing.device_s)
        return (work_s + self.link_factor * sum(timing.link_s)) / len(timing.link_s)

    def _sampled(self, size: Size) -> int:
        return min(_SAMPLED, max(self.rule.shape(size, 1).shifts.periods))
