"""A point of the comparison: one scheduler under one load, with everything that decides its figures.

All schedulers run on one engine: the ``patched`` rows of the published tables. They alone hold mixed batches, they
hold batches of one size too, and the tables of whole images were taken with other kernels (SDXL: without the patch
cache that the patched rows have), so a comparison across the two would compare engines, not schedulers.

The simulated world takes its durations from a model fitted to all measurements, with their repeat noise. The scheduler
knows less: its predictor is fitted to a random half of the measured compositions, another half for each seed, and
corrected online. So it is wrong about compositions as a real one is (`Knowledge`).

Common random numbers: points that differ only in scheduler, rate, deadline or knowledge get the same requests at the
same relative times. A rate is reached by shrinking the intervals.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from predictors.costs import Batch, CostLayer
from predictors.importers.mixfusion import import_mixfusion
from predictors.latency_model import LatencyModel
from predictors.online import OnlinePredictor
from predictors.profile import Profile
from traces.arrivals import parse_arrivals
from traces.composition import composition_of
from traces.errors import BadInput
from traces.importers.gentd26 import import_gentd26
from traces.mix import Mix, parse_counts
from traces.request import Request, Size
from traces.sizes import load_sizes, parse_sizes
from traces.stages import STAGES
from traces.streams import stream
from traces.trace import Trace

Knowledge = Literal["online", "fixed", "oracle"]
"""Half of the compositions, corrected online | the same, uncorrected | the world's own durations without noise."""

_ALIKE = "512x512:1,768x768:1,1024x1024:1"
MIXES = {
    "uniform": (_ALIKE, "poisson"),
    "small": ("512x512:6,768x768:3,1024x1024:1", "poisson"),
    "large": ("512x512:1,768x768:3,1024x1024:6", "poisson"),
    "bursty": (_ALIKE, "gentd26"),
    "cv-4": (_ALIKE, "gamma:4"),
    "diffusiondb": ("diffusiondb", "poisson"),
}
"""Sizes and arrivals by mix. ``gentd26`` is a window of it a seed, at another pace."""

SKIPPED = "5:0.3,10:0.4,15:0.2,25:0.1"
"""NIRVANA: denoising steps of 50 that a request with a similar earlier picture skips, and how often."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where measurements and traces come from: a folder like ``shared/data``, or a profile alone."""

    data: Path
    profile: Path | None = None

    @property
    def present(self) -> bool:
        """Whether there are measurements."""
        return self._measured.exists()

    @property
    def _measured(self) -> Path:
        return self.profile or self.data / "mixfusion" / "profile"

    @property
    def gentd26(self) -> Path:
        """The GenTD26 request file."""
        return self.data / "gentd26" / "lora_request_trace.csv.gz"

    @property
    def sizes(self) -> Path:
        """The DiffusionDB size table."""
        return self.data / "diffusiondb_sizes.csv"

    def mixes(self) -> list[str]:
        """The mixes whose data is there."""
        missing = {"bursty": not self.gentd26.exists(), "diffusiondb": not self.sizes.exists()}
        return [mix for mix in MIXES if not missing.get(mix)]

    def load(self) -> Profile:
        """All measurements."""
        if self.profile is not None:
            return Profile.load(self.profile)
        return import_mixfusion(sorted(self._measured.glob("*.csv")))


@dataclass(frozen=True, slots=True)
class Point:
    """What is simulated.

    Attributes:
        scheduler: of `benchmarks.serving.contenders`.
        rate: requests a second and replica; None: the largest that meets each of ``goals`` is searched.
        slo: deadline of a request, in multiples of its latency alone on an idle replica; infinity: it has none.
        error: share by which all predictions are too long and stay so.
        engine: executor whose measurements give the durations.
        deadlines: executor whose latency alone the deadlines are multiples of; empty: the engine.
        computed: share of its patches and blocks that a cache computes of every denoising step; 1: there is no cache.
        steps_skipped: share of the requests that skip steps as NIRVANA's do; deadlines stay.
    """

    model: str
    scheduler: str
    mix: str = "uniform"
    slo: float = 5.0
    replicas: int = 1
    knowledge: Knowledge = "online"
    error: float = 0.0
    engine: str = "patched"
    deadlines: str = ""
    computed: float = 1.0
    steps_skipped: float = 0.0
    requests: int = 600
    seed: int = 0
    rate: float | None = None
    goals: tuple[float, ...] = (0.90, 0.99)

    def __post_init__(self) -> None:
        if self.knowledge not in get_args(Knowledge):
            raise BadInput(f"knowledge is {self.knowledge!r}, expected one of {', '.join(get_args(Knowledge))}")


@lru_cache(maxsize=4)
def profile_of(source: Source) -> Profile:
    """The measurements, read once a process."""
    return source.load()


@lru_cache(maxsize=16)
def truth(source: Source, model: str, engine: str) -> LatencyModel:
    """What things really take in the simulated world."""
    return LatencyModel.fit(profile_of(source), model, engine)


@lru_cache(maxsize=64)
def known(source: Source, model: str, engine: str, seed: int) -> LatencyModel:
    """The table of somebody who measured half of the denoised compositions."""
    profile = profile_of(source)
    frame = profile.frame
    compositions = sorted(set(frame["composition"]))
    chosen = stream(seed, "benchmark/known").permutation(compositions)[: -(-len(compositions) // 2)]
    keep = frame["composition"].isin(chosen) | ~frame["stage"].isin(STAGES.named(lambda stage: stage.sampler))
    return LatencyModel.fit(Profile(frame[keep], profile.metadata), model, engine)


class CachedTable(CostLayer):
    """A table of runs with a cache that computes ``computed`` of every denoising step, whatever is asked for.

    What reuse saves is the work that the table's latency model finds in it; no cached run of these models is published.
    """

    def __init__(self, table: LatencyModel, computed: float) -> None:
        super().__init__(table)
        self._computed = computed

    def step_s(self, stage: str, batch: Batch) -> float:
        """Seconds of one step."""
        cached = STAGES[stage].cache == "blocks"
        return self.table.step_s(stage, batch._replace(computed=self._computed if cached else None))


def world_of(source: Source, point: Point) -> LatencyModel | CachedTable:
    """Where the durations of a point come from."""
    table = truth(source, point.model, point.engine)
    return table if point.computed == 1.0 else CachedTable(table, point.computed)


def predictor_of(source: Source, point: Point) -> OnlinePredictor | LatencyModel | CachedTable:
    """What the scheduler of one simulation may ask, fresh."""
    oracle = point.knowledge == "oracle"
    table = truth(source, point.model, point.engine) if oracle else known(source, point.model, point.engine, point.seed)
    if point.error and point.knowledge != "online":
        table = table.scaled(1.0 + point.error)
    told = table if point.computed == 1.0 else CachedTable(table, point.computed)
    return OnlinePredictor(told, point.error) if point.knowledge == "online" else told


def requests_of(source: Source, point: Point, rate: float) -> list[Request]:
    """The requests of a point at ``rate`` requests a second and replica, with deadlines."""
    arrivals, sizes = _shape(source, point.mix, point.requests, point.seed)
    alone = truth(source, point.model, point.deadlines or point.engine).standalone_s
    pace = 1.0 / (rate * point.replicas)
    slo: dict[Size, float | None] = {}
    requests = []
    for index, (arrival, size) in enumerate(zip(arrivals, sizes, strict=True)):
        if size not in slo:
            slo_s = point.slo * alone(Request("alone", 0.0, size[0], size[1], 50))
            slo[size] = slo_s if slo_s < math.inf else None
        name = f"r{index}"
        requests.append(Request(name, arrival * pace, size[0], size[1], 50, model=point.model, slo_s=slo[size]))
    if not point.steps_skipped:
        return requests
    trace = Trace.from_requests(requests)
    skip = parse_counts(SKIPPED, "steps skipped")
    return trace.with_step_reduction(point.steps_skipped, skip, stream(point.seed, "benchmark/skip")).requests()


def mean_alone_s(source: Source, point: Point) -> float:
    """Seconds a request of the point's mix takes alone on an idle replica, on average."""
    table = truth(source, point.model, point.engine)
    return float(np.mean([table.standalone_s(request) for request in requests_of(source, point, 1.0)]))


def capacity(source: Source, point: Point) -> float:
    """Requests of the point's mix a second and replica that full batches of one size would carry.

    Every request takes its part of the quickest batch of at most 12 of its size, and decodes alone.
    """
    return _capacity(source, Point(point.model, "", mix=point.mix, engine=point.engine, requests=point.requests))


@lru_cache(maxsize=64)
def _capacity(source: Source, point: Point) -> float:
    table = truth(source, point.model, point.engine)

    def shared_s(request: Request) -> float:
        def denoise_s(images: int) -> float:
            batch = Batch(point.model, composition_of([(request.size, images)]))
            return request.steps * table.step_s("denoise", batch) / images

        return table.standalone_s(request) - denoise_s(1) + min(map(denoise_s, range(1, 13)))

    sizes = Counter(request.size for request in requests_of(source, point, 1.0))
    spent_s = [count * shared_s(Request("alone", 0.0, size[0], size[1], 50)) for size, count in sizes.items()]
    return sizes.total() / sum(spent_s)


@lru_cache(maxsize=64)
def _shape(source: Source, mix: str, count: int, seed: int) -> tuple[list[float], list[Size]]:
    """Arrival times at one request a second, and sizes."""
    of_sizes, process = MIXES[mix]
    sizes: Mix[Size] = load_sizes(source.sizes) if of_sizes == "diffusiondb" else parse_sizes(of_sizes)
    if process == "gentd26":
        every = _gentd26(source)
        start = int(stream(seed, "benchmark/window").integers(max(1, len(every) - count)))
        times = every[start : start + count] - every[start]
    else:
        rng = stream(seed, f"benchmark/arrivals/{mix}")
        times = parse_arrivals(process).times(1.0, 2.0 * count, rng)[:count]
    times = times * ((len(times) - 1) / times[-1])
    return times.tolist(), sizes.draw(len(times), stream(seed, f"benchmark/sizes/{mix}"))


@lru_cache(maxsize=2)
def _gentd26(source: Source) -> np.ndarray:
    imported = import_gentd26(source.gentd26, parse_sizes(MIXES["bursty"][0]), spread_seconds=True)
    return imported.trace.frame["arrival_s"].to_numpy(copy=True)
