"""A small model whose large requests are tiled, for tests: costs that can be added up by hand."""

from __future__ import annotations

from policies.tiling.costs import TiledCosts
from policies.tiling.recipe import TilingRule
from policies.tiling.timing import TileDevices
from predictors.costs import Batch, CostModel, RepeatNoise
from traces.composition import Composition
from traces.geometry import ModelGeometry

GEOMETRY = ModelGeometry("small", 8, 4, 8, (128, 128))
"""A tile of 128 px is 16 x 16 latent pixels."""


class TileTable(CostModel):
    """A denoising step takes 1 s for every 128x128 px, encode 0.1 s, decode 0.5 s, upscale 0.7 s; each for an image.

    Args:
        refine_s: of a measured refinement step of a 256x256 px canvas; None: none was measured.
        ratios: repeat noise.
        odd: a factor that keeps durations from being commensurate.
    """

    def __init__(self, refine_s: float | None = None, ratios: tuple[float, ...] = (1.0,), odd: float = 1.0) -> None:
        self.refine_s = refine_s
        self.ratios = ratios
        self.odd = odd

    def step_s(self, stage: str, batch: Batch) -> float:
        composition, guided, computed = batch.composition, batch.guided_share, batch.computed
        images = sum(count for _, count in composition)
        if stage == "refine":
            return (self.refine_s or 0.0) * images
        if stage != "denoise":
            return {"encode": 0.1, "decode": 0.5, "upscale": 0.7}[stage] * images * self.odd
        share = 1.0 if computed is None else computed
        return share * sum(h * w * f * n for (h, w, f), n in composition) / 128**2 * self.odd * (1 + (1 - guided) / 7)

    def noise(self, stage: str) -> RepeatNoise:
        if stage not in ("encode", "denoise", "upscale", "decode"):
            raise KeyError(stage)
        return RepeatNoise(self.ratios, 2)

    def extrapolation(self, stage: str, composition: Composition) -> float:
        return max(h * w / 128**2 for (h, w, _), _ in composition)

    def scaled(self, factor: float) -> TileTable:
        return TileTable(None if self.refine_s is None else factor * self.refine_s, self.ratios, factor * self.odd)


def tiled_costs(table: TileTable | None = None, devices: TileDevices | None = None, **rule: object) -> TiledCosts:
    """Costs of a rule for `GEOMETRY`."""
    return TiledCosts(
        TileTable() if table is None else table,
        TilingRule(GEOMETRY, **rule),  # type: ignore[arg-type]
        TileDevices() if devices is None else devices,
    )
