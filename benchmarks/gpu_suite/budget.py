"""What points take by the cost model, and which of them fit into so many minutes.

Seconds of forwards come from the rooflines of `predictors.estimate`; what has no roofline, such as building a network
or compiling it, is a constant below. Points are taken in their order as long as they fit: one that does not is left
out, and later ones are still tried. Replays come last and have their time reserved. The plan that is printed and the
run that follows the clock decide by the same `Pace`; a run also learns from how long its points took.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Protocol

from benchmarks.gpu_suite.limits import Limits
from benchmarks.gpu_suite.point import Point
from predictors.estimate import estimated_table
from predictors.hardware import NUMBER_BYTES, Hardware
from predictors.shapes import shape_of
from traces.composition import Composition
from traces.stages import STAGES

MARGIN = 0.1
"""Share of the time that no plan uses."""
RESERVED = 0.45
"""Of the rest, the most that is kept for replays."""

START_S = 25.0
"""Importing libraries and opening the device."""
CEILING_S = 1.5
KERNEL_S = 4.0
"""A kernel and its reference: compiled, compared and timed."""
REPLAY_S = 90.0
"""A replay: the model built, its profile, the trace in real time, its simulations."""
FIRST_S = 0.5
"""Beyond a usual call, the first one of a point: libraries choose their kernels."""
FUSED_S = 5.0
"""Compiling the fused kernels, once a model."""
COMPILE_S = 30.0
"""`torch.compile` of the repeated blocks of a denoiser."""
BUILD_S = 1.5
"""Building networks, and in addition at this rate:"""
BUILD_BYTES_PER_S = 10e9

_SETTLED = 4  # forwards of a way that may be recorded, before it is compared with the stock model
_RECORDED = 3  # ways of a mix that may be, the first ones
_REFERENCE = 1.3  # times as long as with fused kernels
_IN_TILES = {"cogvideox-1.5": 2.0, "hunyuanvideo": 2.0}  # decoders, times as long as the whole
_LEARNT_S = 20.0  # of points, after which what was seen counts as much as what was predicted


class Costs(Protocol):
    """Predicts points one after another: what a point leaves on the device, the next need not build."""

    def seconds(self, point: Point) -> float:
        """Of a point that would run now."""
        ...

    def ran(self, point: Point) -> None:
        """The point ran."""
        ...


class Alike:
    """For narrow models, which the cost model does not know: no longer than so, on a CPU that does other things too."""

    def __init__(self, point_s: float = 5.0, replay_s: float = 30.0) -> None:
        self._point_s, self._replay_s = point_s, replay_s

    def seconds(self, point: Point) -> float:
        """See `Costs`."""
        return self._replay_s if point.group == "replay" else self._point_s

    def ran(self, point: Point) -> None:
        """See `Costs`."""


class Estimated:
    """By the rooflines of a hardware kind.

    Attributes:
        hardware: the kind.
        limits: how often points are timed.
    """

    def __init__(self, hardware: Hardware, limits: Limits) -> None:
        self.hardware, self.limits = hardware, limits
        self._built: dict[str, tuple[str, str]] = {}
        self._fused: set[str] = set()
        self._table = cache(lambda model, executor: estimated_table(model, hardware, executor))

    def seconds(self, point: Point) -> float:
        """See `Costs`.

        Raises:
            BadInput: nothing is known of the model.
        """
        if point.group in ("ceiling", "kernel", "replay"):
            return {"ceiling": CEILING_S, "kernel": KERNEL_S, "replay": REPLAY_S}[point.group]
        ways = self.ways(point)
        limits, a_round = self.limits.of_ways(len(ways)), sum(ways)
        before = self._build_s(point) + FIRST_S
        if point.group in ("mix", "cached"):
            before += a_round + (_SETTLED - 1) * sum(ways[:_RECORDED]) + FUSED_S * (point.name not in self._fused)
        if point.way == "compiled":
            before += COMPILE_S
        warm = sum(seconds * limits.warm(seconds) for seconds in ways)
        return before + warm + a_round * limits.repeats(a_round)

    def ran(self, point: Point) -> None:
        """See `Costs`."""
        if point.group == "replay":
            self._built.clear()
        elif point.group not in ("ceiling", "kernel"):
            self._built[_stage(point)] = _network(point)
            self._fused |= {point.name} if point.group in ("mix", "cached") else set()

    def ways(self, point: Point) -> list[float]:
        """Seconds of each function that is timed."""
        stage, batch = _stage(point), point.composition
        if point.group == "cached":
            return 2 * [self._forward(point.name, point.way, stage, batch)]
        of_size = self._forward(point.name, "whole", stage, batch)
        if point.group != "mix":
            return [of_size * (_IN_TILES.get(point.name, 1.0) if STAGES[stage].network == "vae" else 1.0)]
        own = self._forward(point.name, point.way, stage, batch)
        alone = sum(n * self._forward(point.name, "whole", stage, ((size, 1),)) for size, n in batch)
        other = of_size if point.way == "patched" else own  # another memory format, or images of one size
        return [own, _REFERENCE * own, of_size, of_size, alone, other]

    def _forward(self, model: str, executor: str, stage: str, batch: Composition) -> float:
        cost = self._table(model, executor).costs[stage]
        guided = shape_of(model).guidance_rows - 1.0  # a pipeline with true CFG is called as users call it: without
        return float(cost.of(batch, guided, 1.0, False))

    def _build_s(self, point: Point) -> float:
        stage = _stage(point)
        if self._built.get(stage) == _network(point):
            return 0.0
        weights = NUMBER_BYTES[self.hardware.dtype] * shape_of(point.name).stage(stage).parameters
        return BUILD_S + weights / BUILD_BYTES_PER_S


@dataclass(frozen=True, slots=True)
class Planned:
    """A point in a plan.

    Attributes:
        point: what.
        seconds: predicted.
        end_s: predicted end, from the start of the run; None: it is left out.
    """

    point: Point
    seconds: float
    end_s: float | None


class Pace:
    """Decides whether there is time for a point.

    Args:
        minutes: for all of it.
        costs: predicts.
        points: all of them, replays among them.
    """

    def __init__(self, minutes: float, costs: Costs, points: Iterable[Point]) -> None:
        self.limit_s = 60 * minutes * (1 - MARGIN)
        self._costs = costs
        self._reserved: dict[Point, float] = {}
        for point in points:
            if point.group == "replay":
                seconds = costs.seconds(point)
                if sum(self._reserved.values()) + seconds <= RESERVED * self.limit_s:
                    self._reserved[point] = seconds
        self._predicted_s = self._took_s = _LEARNT_S

    @property
    def ratio(self) -> float:
        """Of seconds that points took to those predicted, so far."""
        return self._took_s / self._predicted_s

    def seconds(self, point: Point) -> float:
        """Predicted, and corrected by what was seen: not of replays, whose time is set."""
        return self._costs.seconds(point) * (1.0 if point.group == "replay" else self.ratio)

    def fits(self, point: Point, elapsed_s: float) -> bool:
        """Whether a point that starts so long after the start of the run ends in time, reserved ones as well."""
        reserved = sum(seconds for other, seconds in self._reserved.items() if other != point)
        return elapsed_s + self.seconds(point) + reserved <= self.limit_s

    def deadline_s(self, point: Point) -> int:
        """After how long a point is given up, lest it eat the time of others."""
        if point.group == "replay":
            return ceil(20 + 1.5 * self.seconds(point))
        return ceil(20 + 3 * self._costs.seconds(point) * max(1.0, self.ratio))

    def release(self, point: Point) -> None:
        """The point will not run: no time is kept for it."""
        self._reserved.pop(point, None)

    def ended(self, point: Point, took_s: float, failed: bool = False) -> None:
        """The point took so long. How soon one fails says nothing of the others."""
        self.release(point)
        if failed:
            return
        if point.group != "replay":
            self._predicted_s += self._costs.seconds(point)
            self._took_s += took_s
        self._costs.ran(point)


def plan(points: Sequence[Point], minutes: float, costs: Costs) -> list[Planned]:
    """What a run would do if every point took what is predicted."""
    pace, elapsed = Pace(minutes, costs, points), START_S
    planned = []
    for point in points:
        seconds = pace.seconds(point)
        fits = pace.fits(point, elapsed)
        if fits:
            elapsed += seconds
            pace.ended(point, seconds)
        planned.append(Planned(point, seconds, elapsed if fits else None))
    return planned


def _stage(point: Point) -> str:
    return point.group if point.group in STAGES else "denoise"


def _network(point: Point) -> tuple[str, str]:
    return point.name, "compiled" if point.way == "compiled" else ""
