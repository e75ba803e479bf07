"""Under what the schedulers are compared: one regime a row, and the figure that counts there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.serving.point import Point, Source, capacity


@dataclass(frozen=True)
class Regime:
    """A load, a deadline, an executor or a predictor that differs from the usual; and what is compared under it.

    Attributes:
        name: in tables.
        figure: of those that `benchmarks.serving.measure` returns.
        load: requests a second as a share of `capacity`; None: the rate that meets the goals is searched.
        less_is_better: of the figure.
        changes: to a `Point`.
    """

    name: str
    figure: str = "goodput_90"
    load: float | None = None
    less_is_better: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)

    def point(self, source: Source, base: Point) -> Point:
        """What is simulated of a scheduler and model, with the seed and the number of requests of ``base``."""
        point = replace(base, **self.changes)
        if "replicas" in self.changes:
            point = replace(point, requests=max(base.requests, base.requests // 4 * point.replicas))
        if self.load is None:
            return replace(point, goals=(0.90, 0.99) if point == base else (0.90,))
        return replace(point, rate=round(self.load * capacity(source, point), 4))


REGIMES = (
    Regime("5x"),
    Regime("5x, 99 %", "goodput_99"),
    Regime("3x", changes={"slo": 3.0}),
    Regime("10x", changes={"slo": 10.0}),
    Regime("5x, small images", changes={"mix": "small"}),
    Regime("5x, large images", changes={"mix": "large"}),
    Regime("5x, DiffusionDB sizes", changes={"mix": "diffusiondb"}),
    Regime("5x, GenTD26 arrivals", changes={"mix": "bursty"}),
    Regime("5x, arrivals of cv 4", changes={"mix": "cv-4"}),
    Regime("5x, predictions 20 % short", changes={"error": -0.2}),
    Regime("5x, predictions 20 % long", changes={"error": 0.2}),
    Regime("5x, whole", changes={"engine": "whole"}),
    Regime("5x, whole, 4 GPUs", changes={"engine": "whole", "replicas": 4}),
    Regime("5x, 1.2x overload", "attainment", load=1.2),
    Regime("5x, 2x overload", "attainment", load=2.0),
    Regime("5x, worst size at full load", "worst_size", load=1.0),
    Regime("no deadlines, 80 % load", "mean_s", load=0.8, less_is_better=True, changes={"slo": math.inf}),
)
"""The sizes are 512, 768 and 1024 px, alike often, and arrivals Poisson where nothing else is named."""
