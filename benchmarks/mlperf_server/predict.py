"""What the simulator says of a system whose Offline result is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

import tilecast as tc
from benchmarks.mlperf_server.systems import Numbers, System, scheduled
from reports.figures import latency
from tilecast.setup import Prepared, prepare
from tilecast.simulation import run_simulation
from traces.errors import BadInput
from traces.request import Request

BOUND_S, SHARE = 20.0, 0.99
SIDE, STEPS, GUIDANCE = 1024, 20, 8.0
ENGINE = "vendor"
"""All of them ran TensorRT."""
SLOWER = 0.01
"""By which batches take longer, or shorter, in the columns that ask what that does."""
CONFIDENT = 1.645
"""Standard deviations from the middle to either end of an interval of 90 %."""
RESOLVED = 1e-3
"""To which share a rate or a factor is searched."""


@dataclass(frozen=True)
class Assumed:
    """What a prediction takes for granted.

    Attributes:
        offline_run: the factor makes the whole Offline run take as long as published; else a full round of Server's
            batches take as long as so many pictures do by the Offline rate.
        waits: a batch that is not full waits as long as configured; else not at all.
        offline_batch: batches are as large as Offline's; else as configured.
        longer: share that Server's batches take longer, where Offline ran larger ones.
        log_sd: how far batches are off from that, as the standard deviation of a logarithm.
    """

    offline_run: bool = True
    waits: bool = True
    offline_batch: bool = False
    longer: float = 0.0
    log_sd: float = 0.0

    def __str__(self) -> str:
        offline = "Offline as it ran" if self.offline_run else "Offline rate at Server's batch"
        batch = "Offline's batch" if self.offline_batch else "configured batch"
        delay = "configured delay" if self.waits else "no delay"
        return f"{offline}, {batch}, {delay}, {self.longer:+.1%}"

    def batching(self, system: System) -> tuple[int, float]:
        """How many images make a batch of Server, and how long it waits for them, s."""
        batch = system.offline_batch if self.offline_batch else system.server_batch
        return batch, system.delay_s if self.waits else 0.0

    def times(self, system: System) -> float:
        """Times as long as the roofline says that batches of Server take, once it makes the Offline result right."""
        return 1 + self.longer if system.rebatched else 1.0


@dataclass(frozen=True)
class Server:
    """A system in the simulator.

    Attributes:
        system: what was published of it.
        assumed: how it is predicted.
    """

    system: System
    assumed: Assumed = Assumed()

    @cached_property
    def _prepared(self) -> Prepared:
        return _prepared(self.system, *self.assumed.batching(self.system))

    @cached_property
    def factor(self) -> float:
        """By what the roofline's seconds are multiplied, so that the Offline result is the published one."""
        system, assumed = self.system, self.assumed
        batch, requests = system.server_batch, system.server_batch * system.devices
        if assumed.offline_run:
            batch, requests = system.offline_batch, system.offline_samples
        run = _prepared(system, batch, 0.0)
        done_s = float(simulated(run, np.zeros(requests), 1.0).max())
        return requests / system.offline_per_s / done_s * assumed.times(system)

    def latencies(self, arrivals: Numbers, slower: float = 1.0) -> Numbers:
        """Seconds of each request that arrives then.

        Args:
            slower: times as long as predicted, that batches take.
        """
        return simulated(self._prepared, arrivals, self.factor * slower)

    def p99_s(self, arrivals: Numbers, slower: float = 1.0) -> float:
        """Of the latencies."""
        return float(np.quantile(self.latencies(arrivals, slower), SHARE))

    def most_per_s(self, seed: int | None = None) -> float:
        """The highest rate of which 99 % are done within the bound, as scheduled; of the published run's seed, or
        another one's arrivals."""
        target = crossing(
            lambda rate: math.log(self.p99_s(self.system.arrivals(rate, seed)) / BOUND_S), self.system.offline_per_s
        )
        return scheduled(self.system.arrivals(target, seed))

    def implied(self) -> float:
        """Times as long as predicted that batches took in the published run, to make its P99 with its arrivals."""
        arrivals = self.system.arrivals()
        return crossing(lambda slower: math.log(self.p99_s(arrivals, slower) / self.system.p99_s), 1.0)


@lru_cache
def _prepared(system: System, batch: int, window_s: float) -> Prepared:
    """A scenario of one request, prepared; `simulated` gives it others. Batches wait so long for so many images."""
    one = tc.Trace.from_requests([request(0, 0.0)], "MLPerf SDXL")
    return prepare(
        tc.Scenario(
            "sdxl",
            trace=one,
            scheduler={"name": "same-size-dynamic", "max_batch": batch, "window_s": window_s},
            replicas=system.devices,
            predictor={"hardware": system.hardware, "dtype": system.precision, "engine": ENGINE, "online": False},
            world={"noise": False},
        )
    )


def request(index: int, arrival_s: float) -> Request:
    """What all of them ask."""
    return Request(str(index), arrival_s, SIDE, SIDE, STEPS, model="sdxl", guidance_scale=GUIDANCE)


def simulated(prepared: Prepared, arrivals: Numbers, slowdown: float) -> Numbers:
    """Seconds of latency of requests that arrive then, in their order, by `run_simulation`."""
    asked = [request(index, at_s) for index, at_s in enumerate(arrivals.tolist())]
    scenario = prepared.scenario.replaced({"world.slowdown": slowdown})
    run = replace(prepared, scenario=scenario, requests=asked)
    return latency(run.arrays(run_simulation(run))).values


def crossing(rises: Callable[[float], float], start: float, step: float = 0.01) -> float:
    """Where a function that rises passes 0, to the share `RESOLVED`.

    It looks at ``start`` and, in growing steps from the share ``step`` on, beyond it until the sign changes; then it
    cuts what is left where a line through its ends passes 0, and in the middle, in turns.

    Raises:
        BadInput: no change of sign between a fifth and five times ``start``.
    """
    least, most = start / 5, start * 5
    near, value = start, rises(start)
    direction = -1.0 if value > 0 else 1.0
    while True:
        far = min(max(near * (1 + step) ** direction, least), most)
        if far == near:
            raise BadInput(f"nothing passes the goal between {least:.4g} and {most:.4g}")
        beyond = rises(far)
        if (beyond > 0) != (value > 0):
            break
        near, value, step = far, beyond, step * 2
    (low, below), (high, above) = sorted([(near, value), (far, beyond)])
    drawn = True
    while high / low > 1 + RESOLVED:
        share = min(max(below / (below - above), 0.1), 0.9) if drawn else 0.5
        middle = low + share * (high - low)
        found = rises(middle)
        if found > 0:
            high, above = middle, found
        else:
            low, below = middle, found
        drawn = not drawn
    return math.sqrt(low * high)


@dataclass(frozen=True)
class Predicted:
    """What the simulation says of a system.

    Attributes:
        system: what was published of it.
        p99_s: at the published rate, with the arrivals of the published run.
        shorter_s, longer_s: the same when batches take so much less and more, see `SLOWER`.
        low_s, high_s: the same at the ends of the interval of what batches take, see `CONFIDENT`.
        implied: times as long as predicted that batches took, to make the published P99.
        most_per_s: the highest rate within the bound, of the arrivals of the published run.
        seeds_per_s: the same of other arrivals.
        seeds_p99_s: P99 of other arrivals at the published rate.
    """

    system: System
    p99_s: float
    shorter_s: float
    longer_s: float
    low_s: float
    high_s: float
    implied: float
    most_per_s: float
    seeds_per_s: tuple[float, ...]
    seeds_p99_s: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Simulated P99 over the published one."""
        return self.p99_s / self.system.p99_s

    @property
    def inside(self) -> bool:
        """Whether the interval holds the published P99."""
        return self.low_s <= self.system.p99_s <= self.high_s

    @property
    def rate_ratio(self) -> float:
        """The rate predicted from other arrivals, in the mean, over the published one."""
        return float(np.mean(self.seeds_per_s)) / self.system.scheduled_per_s


def predict(system: System, assumed: Assumed, implied: float, seeds: int) -> Predicted:
    """Simulate a system.

    Args:
        implied: of `implied`, with the same assumptions.
        seeds: how many other arrivals; their seeds are 1, 2, ...
    """
    server, arrivals, others = Server(system, assumed), system.arrivals(), range(1, seeds + 1)
    off = math.exp(CONFIDENT * assumed.log_sd)
    return Predicted(
        system=system,
        p99_s=server.p99_s(arrivals),
        shorter_s=server.p99_s(arrivals, 1 - SLOWER),
        longer_s=server.p99_s(arrivals, 1 + SLOWER),
        low_s=server.p99_s(arrivals, 1 / off),
        high_s=server.p99_s(arrivals, off),
        implied=implied,
        most_per_s=server.most_per_s(),
        seeds_per_s=tuple([server.most_per_s(seed) for seed in others]),
        seeds_p99_s=tuple([server.p99_s(system.arrivals(seed=seed)) for seed in others]),
    )


def p99_ratio(system: System, assumed: Assumed) -> float:
    """Simulated P99 over the published one, with the arrivals of the published run."""
    return Server(system, assumed).p99_s(system.arrivals()) / system.p99_s


def factor(system: System, assumed: Assumed) -> float:
    """See `Server.factor`."""
    return Server(system, assumed).factor


def implied(system: System, assumed: Assumed) -> float:
    """See `Server.implied`."""
    return Server(system, assumed).implied()
