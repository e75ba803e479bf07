"""What one simulation run of a demand says, as plain numbers that a file can hold.

Shares and latencies are of requests that arrived after the warm-up, until the demand ended: the simulation goes on
until all of them have ended, so late ones are not missing. Rates and busy shares are of that span of time alone; what
happens after the last arrival, when the cluster only empties, would flatter them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from policies.controller import Controller, LaunchRecord
from policies.run_arrays import RequestArrays, RunArrays, StepArrays
from reports.breakdown import sizes_of
from reports.figures import DENOISING, latency, value
from reports.output_analysis import warm_up
from reports.plan.result import SizeFigures, Window
from traces.sizes import format_size
from traces.stages import STAGES

Numbers = npt.NDArray[np.float64]

WINDOWS = 60
SIZE_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_SLICES = 20

WARM_UP = 0.1
"""Share of a run that is cut off as its warm-up.

Cutting each run where MSER-5 says would choose: it leaves out early peaks and keeps early lulls, and mean waits come
out too short. So MSER-5 only says whether a run is long enough, and longer runs make the tenth long enough.
"""

_STRICT = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


@checked(frozen=True, config=_STRICT)
class Replication:
    """One run. A figure that it does not define is NaN.

    Attributes:
        submitted: requests, all.
        recorded: requests of the recording that the demand was drawn from; infinity: it is drawn from what is known.
        requests: of them, those measured: after the warm-up.
        finished: of those.
        span_s: from the end of the warm-up to the end of the demand.
        warm_up_s: cut off before that.
        settled: whether MSER-5 finds an end of the warm-up in the first half.
        attainment: share of the measured requests that finished in time; one without deadline only has to finish.
        latency_mean_s: seconds of those that finished.
        latency_p50_s, latency_p95_s, latency_p99_s: of all measured; one that did not finish counts as infinite.
        wait_mean_s: from arrival to first start, of those that started.
        throughput_rps: requests a second that finished, during the span.
        goodput_rps: requests a second that finished in time, during the span.
        images_per_s: pictures a second of requests that finished, during the span.
        utilisation: busy share of the devices during the span.
        replica_utilisation: of each replica's devices.
        batch: requests in a denoising launch, weighted by time.
        batch_cap: the most that there were.
        at_cap: share of the denoising time with so many.
        dropped, failed, cancelled: shares of the measured requests.
        stage_s: busy seconds of replicas by stage during the span.
        imbalance: busy seconds of the busiest device over the mean, in refinement; NaN without tiles.
        extrapolated: share of the busy time, during the span, outside what was measured.
        backlog: requests in the system, mean over the first and over the last part of the span, where a part is a
            period of the demand, or a third where it has none.
        backlog_least: the fewest in each of them, as means over twentieths.
        growth: how much faster work came in than it was done, between these parts, as a share of what the cluster can
            do; a cluster that cannot keep up has its load minus 1 here, one that can has 0. NaN: span too short.
        growth_least: the same for the least work in the system in each of them.
        drain_s: from the end of the demand until all was done.
        windows: slices of the whole run.
        sizes: by size of request, the most frequent first.
    """

    submitted: int
    recorded: float
    requests: int
    finished: int
    span_s: float
    warm_up_s: float
    settled: bool
    attainment: float
    latency_mean_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    wait_mean_s: float
    throughput_rps: float
    goodput_rps: float
    images_per_s: float
    utilisation: float
    replica_utilisation: tuple[float, ...]
    batch: float
    batch_cap: int
    at_cap: float
    dropped: float
    failed: float
    cancelled: float
    stage_s: dict[str, float]
    imbalance: float
    extrapolated: float
    backlog: tuple[float, float]
    backlog_least: tuple[float, float]
    growth: float
    growth_least: float
    drain_s: float
    windows: tuple[Window, ...]
    sizes: tuple[SizeFigures, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; NaN stays a float."""
        values: dict[str, Any] = REPLICATION.dump_python(self, mode="json")
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Replication:
        """What `to_dict` was made of.

        Raises:
            pydantic.ValidationError: it is not one.
        """
        return REPLICATION.validate_python(values)


REPLICATION = TypeAdapter(Replication)

FIELDS = {
    "span_s": "span_s",
    "attainment": "slo_attainment",
    "latency_mean_s": "latency_mean_s",
    "latency_p50_s": "latency_p50_s",
    "latency_p95_s": "latency_p95_s",
    "latency_p99_s": "latency_p99_s",
    "wait_mean_s": "queueing_mean_s",
    "throughput_rps": "throughput_rps",
    "goodput_rps": "goodput_rps",
    "images_per_s": "images_per_s",
    "utilisation": "utilisation",
    "batch": "batch_denoise",
    "extrapolated": "extrapolated_time",
}
"""Fields of a `Replication` that are figures of `reports.figures.FIGURES`."""


def observe(
    controller: Controller,
    run: RunArrays,
    demand_end_s: float,
    *,
    recorded: float = math.inf,
    demand_start_s: float = 0.0,
    period_s: float | None = None,
    warm_up: float = WARM_UP,
    launched: Sequence[LaunchRecord] | None = None,
) -> Replication:
    """What a finished simulation says.

    Figures that reports have, too, are theirs (`reports.figures`), of the span between warm-up and end of the demand.

    Args:
        controller: after the run; all requests have ended.
        run: the same as arrays, see `policies.record.run_arrays`.
        demand_end_s: end of the time in which requests may arrive, on the demand's clock.
        recorded: requests of the recording that it was drawn from; infinity: none.
        demand_start_s: its beginning.
        period_s: of a demand that repeats itself, like a day. Whole periods are then measured and compared, the last
            ones of the run, so that no time of day counts twice and a busy evening is not taken for growth; what is
            left over at the beginning is the warm-up. It takes two periods to say anything about growth.
        warm_up: share of the time to leave out at the beginning where there is no period.
        launched: the launches of ``run``, where it is one model's part of a whole run; None: all.
    """
    launched = controller.launched if launched is None else launched
    cut_s = _cut_s(demand_start_s, demand_end_s, period_s, warm_up)
    seen = run.between(cut_s, demand_end_s)
    last_s = max(demand_end_s, float(run.requests.finish_s.max(initial=demand_end_s)))
    figures = {field: value(name, seen) for field, name in FIELDS.items()}
    requests = len(seen.requests)
    batch_cap, at_cap = _largest_batches(seen.steps)
    backlog, backlog_least, growth, growth_least = _trend(
        run, _Work.of(controller, launched), cut_s, demand_end_s, period_s
    )
    return Replication(
        submitted=len(run.requests),
        recorded=recorded,
        requests=requests,
        finished=int(value("finished", seen)),
        warm_up_s=cut_s - demand_start_s,
        settled=period_s is not None or _settled(run.requests),
        replica_utilisation=tuple([value("utilisation", seen.of_replica(at)) for at in range(run.replicas)]),
        batch_cap=batch_cap,
        at_cap=at_cap,
        **figures,
        **{status: _ratio(value(status, seen), requests) for status in ("dropped", "failed", "cancelled")},
        stage_s={stage: float(seen.steps.seconds[seen.steps.of(stage)].sum()) for stage in run.steps.stages},
        imbalance=_imbalance(launched) if run.devices > run.replicas else math.nan,
        backlog=backlog,
        backlog_least=backlog_least,
        growth=growth / run.replicas,
        growth_least=growth_least / run.replicas,
        drain_s=last_s - demand_end_s,
        windows=_windows(run, np.linspace(demand_start_s, last_s, WINDOWS + 1)),
        sizes=_sizes(seen),
    )


def _cut_s(start_s: float, end_s: float, period_s: float | None, warm_up: float) -> float:
    """When the warm-up ends."""
    whole = _periods(end_s - start_s, period_s) if period_s is not None else 0
    if period_s is None or not whole:
        return start_s + warm_up * (end_s - start_s)
    return max(start_s, end_s - whole * period_s)


def _periods(span_s: float, period_s: float) -> int:
    """Whole periods in a span, of which a twentieth may be missing."""
    return math.floor(span_s / period_s + 0.05)


@dataclass(frozen=True)
class _Work:
    """Work as replica seconds: when it came and when it was done.

    Attributes:
        asked_s, asked: arrival of each job, and the seconds that its launches took; those of a batch share them evenly.
        done_s, done: end of each launch, and the seconds of those that served requests; loading weights is no work.
    """

    asked_s: Numbers
    asked: Numbers
    done_s: Numbers
    done: Numbers

    @classmethod
    def of(cls, controller: Controller, launched: Sequence[LaunchRecord]) -> _Work:
        jobs = [launch.jobs for launch, _, _ in launched]
        orders = np.array([job.order for of_one in jobs for job in of_one], dtype=int)
        requests = np.array(list(map(len, jobs)), dtype=int)
        done_s = np.array([end_s for _, _, end_s in launched], dtype=float)
        took_s = done_s - np.array([launch.start_s for launch, _, _ in launched], dtype=float)
        shares_s = np.repeat(took_s / np.maximum(requests, 1), requests)
        asked_s = np.array([job.asked.arrival_s for job in controller.jobs], dtype=float)
        asked = np.bincount(orders, shares_s, len(asked_s)).astype(float)
        return cls(asked_s, asked, done_s, np.where(requests > 0, took_s, 0.0))

    def level(self, at_s: Numbers) -> Numbers:
        """Integral up to each time of the work in the system."""
        return area(self.asked_s, at_s, self.asked) - area(self.done_s, at_s, self.done)


_Pair = tuple[float, float]


def _trend(
    run: RunArrays, work: _Work, start_s: float, end_s: float, period_s: float | None
) -> tuple[_Pair, _Pair, float, float]:
    """Requests in the system in the first and last part of a span: mean and least; how fast work grew from one part to
    the other, in replica seconds a second: mean and least.

    Parts are whole periods, about a third of all, so that a demand that repeats itself has the same mean in both.
    """
    span_s = end_s - start_s
    part_s = span_s / 3 if period_s is None else period_s * max(1, _periods(span_s, period_s) // 3)
    if not 0 < part_s <= 0.8 * span_s:
        return (math.nan, math.nan), (math.nan, math.nan), math.nan, math.nan
    edges = np.linspace(0.0, part_s, _SLICES + 1)
    parts = start_s + edges, end_s - part_s + edges
    requests = run.requests
    count, seconds = (
        [np.diff(level(edges_s)) * _SLICES / part_s for edges_s in parts]
        for level in (
            lambda at_s: area(requests.arrival_s, at_s) - area(requests.finish_s, at_s),
            work.level,
        )
    )
    backlog = float(count[0].mean()), float(count[1].mean())
    least = float(count[0].min()), float(count[1].min())
    apart_s = span_s - part_s
    grew = float(seconds[1].mean() - seconds[0].mean()) / apart_s
    return backlog, least, grew, float(seconds[1].min() - seconds[0].min()) / apart_s


def area(times_s: Numbers, at_s: Numbers, weights: Numbers | None = None) -> Numbers:
    """Integral up to each of ``at_s`` of a count that grows by one (or a weight) at each of ``times_s``.

    Times that are NaN never come. All levels over time are differences of such areas, exactly: requests in the system
    are arrivals less ends; busy devices are the integral of starts less ends, and so forth.
    """
    there = ~np.isnan(times_s)
    times_s, weights = times_s[there], np.ones(int(there.sum())) if weights is None else weights[there]
    order = np.argsort(times_s, kind="stable")
    times_s, weights = times_s[order], weights[order]
    so_far = np.searchsorted(times_s, at_s, side="right")
    total = np.concatenate([[0.0], np.cumsum(weights)])[so_far]
    moment = np.concatenate([[0.0], np.cumsum(weights * times_s)])[so_far]
    return total * at_s - moment


def _settled(requests: RequestArrays) -> bool:
    order = np.argsort(requests.arrival_s, kind="stable")
    return warm_up(requests.latency_s[order]).settled


def _largest_batches(steps: StepArrays) -> tuple[int, float]:
    """The most requests in a denoising launch, and the share of the denoising time with so many."""
    denoising = steps.where(steps.of(*DENOISING))
    seconds, requests = denoising.seconds, denoising.requests
    if not seconds.sum():
        return 0, math.nan
    most = int(requests[seconds > 0].max())
    return most, float(seconds[requests == most].sum() / seconds.sum())


def _imbalance(launched: Sequence[LaunchRecord]) -> float:
    """Seconds of the busiest device over the mean of all devices of its replica, in refinement; NaN without."""
    busiest = mean = 0.0
    for launch, outcome, end_s in launched:
        if len(outcome.device_s) > 1 and any(STAGES[stage].devices for stage, _ in launch.work.stages):
            times = (launch.start_s, *outcome.stage_ends_s, end_s)
            stages = zip(launch.segments, times, times[1:], strict=False)
            others_s = sum([to_s - from_s for segment, from_s, to_s in stages if not STAGES[segment.stage].devices])
            devices = [outcome.device_s[0] - others_s, *outcome.device_s[1:]]
            busiest += max(devices)
            mean += sum(devices) / len(devices)
    return busiest / mean if mean > 1e-9 else math.nan


def _windows(run: RunArrays, edges_s: Numbers) -> tuple[Window, ...]:
    width_s = np.diff(edges_s)
    if not (width_s > 0).all():
        return ()
    requests, steps = run.requests, run.steps
    took_s = steps.seconds
    rate = np.divide(steps.device_s, took_s, out=np.zeros_like(took_s), where=took_s > 0)
    begun_s = np.where(np.isnan(requests.first_start_s), requests.finish_s, requests.first_start_s)
    arrived, begun, ended = (area(at_s, edges_s) for at_s in (requests.arrival_s, begun_s, requests.finish_s))
    busy = area(steps.start_s, edges_s, rate) - area(steps.end_s, edges_s, rate)
    arrivals, _ = np.histogram(requests.arrival_s, edges_s)
    columns = (
        arrivals,
        np.diff(arrived - begun) / width_s,
        np.diff(begun - ended) / width_s,
        np.diff(busy) / width_s / run.devices,
    )
    return tuple(
        [
            Window(float(start_s), float(end_s), int(came), _level(waiting), _level(running), _level(share))
            for start_s, end_s, came, waiting, running, share in zip(edges_s[:-1], edges_s[1:], *columns, strict=True)
        ]
    )


def _sizes(run: RunArrays) -> tuple[SizeFigures, ...]:
    figures = []
    for size in sizes_of(run):
        own = run.of_sizes([size])
        of_size = latency(own).quantiles(*SIZE_QUANTILES)
        figures.append(SizeFigures(format_size(size), len(own.requests), value("slo_attainment", own), of_size))
    return tuple(sorted(figures, key=lambda of_size: (-of_size.requests, of_size.size)))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _level(value: float) -> float:
    """A level without the rounding of large times, and never below zero."""
    return max(0.0, round(float(value), 9))
