"""What one simulation run of a demand says, as plain numbers that a file can hold.

Shares and latencies are of requests that arrived after the warm-up, until the demand ended: the simulation goes on
until all of them have ended, so late ones are not missing. Rates and busy shares are of that span of time alone; what
happens after the last arrival, when the cluster only empties, would flatter them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from policies.controller import Controller
from reports.output_analysis import quantiles, warm_up
from reports.plan.result import SizeFigures, Window
from tilecast.studies.run_arrays import Launches, Requests, area
from traces.composition import Composition
from traces.sizes import spell_size

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
        requests: of them, those measured: after the warm-up.
        finished: of those.
        span_s: from the end of the warm-up to the end of the demand.
        warm_up_s: cut off before that.
        settled: whether MSER-5 finds an end of the warm-up in the first half.
        attainment: share of the measured requests that finished in time; one without deadline only has to finish.
        latency_mean_s: of those that finished.
        latency_p50_s, latency_p95_s, latency_p99_s: of all measured; one that did not finish counts as infinite.
        wait_mean_s: from arrival to first start, of those that started.
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
        extrapolated: share of the busy time outside what was measured.
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


def observe(
    controller: Controller,
    demand_end_s: float,
    replicas: int,
    devices: int = 1,
    *,
    demand_start_s: float = 0.0,
    period_s: float | None = None,
    extrapolates: Callable[[str, Composition], bool] | None = None,
) -> Replication:
    """What a finished simulation says.

    Args:
        controller: after the run; all requests have ended.
        demand_end_s: end of the time in which requests may arrive, on the demand's clock.
        replicas: of the cluster.
        devices: a replica.
        demand_start_s: its beginning.
        period_s: of a demand that repeats itself, like a day. Whole periods are then measured and compared, the last
            ones of the run, so that no time of day counts twice and a busy evening is not taken for growth; what is
            left over at the beginning is the warm-up. It takes two periods to say anything about growth.
        extrapolates: whether a launch of this stage and composition lies outside what was measured; None: none does.
    """
    requests, launches = Requests(controller), Launches(controller)
    cut_s = _cut_s(demand_start_s, demand_end_s, period_s)
    last_s = max(demand_end_s, float(requests.end_s.max(initial=demand_end_s)))
    span_s = demand_end_s - cut_s
    measured = requests.arrival_s >= cut_s
    met, state = requests.met[measured], requests.state[measured]
    latency_s = (requests.end_s - requests.arrival_s)[measured & requests.finished]
    wait_s = (requests.start_s - requests.arrival_s)[measured & ~np.isnan(requests.start_s)]
    in_span = requests.finished & (requests.end_s >= cut_s) & (requests.end_s <= demand_end_s)
    busy_s = np.bincount(launches.replica, weights=launches.within(cut_s, demand_end_s), minlength=replicas)
    batch, batch_cap, at_cap = launches.batches(cut_s, demand_end_s)
    p50, p95, p99 = quantiles(latency_s, (0.5, 0.95, 0.99), len(met) - len(latency_s))
    backlog, backlog_least, growth, growth_least = _trend(requests, launches, cut_s, demand_end_s, period_s)
    return Replication(
        submitted=len(requests.arrival_s),
        requests=len(met),
        finished=len(latency_s),
        span_s=span_s,
        warm_up_s=cut_s - demand_start_s,
        settled=period_s is not None or warm_up(requests.end_s - requests.arrival_s).settled,
        attainment=_mean(met),
        latency_mean_s=_mean(latency_s),
        latency_p50_s=p50,
        latency_p95_s=p95,
        latency_p99_s=p99,
        wait_mean_s=_mean(wait_s),
        goodput_rps=_ratio(float((in_span & requests.met).sum()), span_s),
        images_per_s=_ratio(float(requests.images[in_span].sum()), span_s),
        utilisation=_ratio(float(busy_s.sum()), span_s * replicas * devices),
        replica_utilisation=tuple([_ratio(float(of_replica), span_s * devices) for of_replica in busy_s]),
        batch=batch,
        batch_cap=batch_cap,
        at_cap=at_cap,
        dropped=_mean(state == "dropped"),
        failed=_mean(state == "failed"),
        cancelled=_mean(state == "cancelled"),
        stage_s=launches.by_stage(cut_s, demand_end_s),
        imbalance=launches.imbalance(),
        extrapolated=launches.share_of_time(extrapolates) if extrapolates is not None else 0.0,
        backlog=backlog,
        backlog_least=backlog_least,
        growth=growth / replicas,
        growth_least=growth_least / replicas,
        drain_s=last_s - demand_end_s,
        windows=_windows(requests, launches, np.linspace(demand_start_s, last_s, WINDOWS + 1), replicas * devices),
        sizes=_sizes(requests, measured),
    )


def _cut_s(start_s: float, end_s: float, period_s: float | None) -> float:
    """When the warm-up ends."""
    whole = _periods(end_s - start_s, period_s) if period_s is not None else 0
    if period_s is None or not whole:
        return start_s + WARM_UP * (end_s - start_s)
    return max(start_s, end_s - whole * period_s)


def _periods(span_s: float, period_s: float) -> int:
    """Whole periods in a span, of which a twentieth may be missing."""
    return math.floor(span_s / period_s + 0.05)


_Pair = tuple[float, float]


def _trend(
    requests: Requests, launches: Launches, start_s: float, end_s: float, period_s: float | None
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
    count, work = (
        [np.diff(level(edges_s)) * _SLICES / part_s for edges_s in parts]
        for level in (
            lambda at_s: area(requests.arrival_s, at_s) - area(requests.end_s, at_s),
            lambda at_s: area(launches.asked_s, at_s, launches.work_s) - area(launches.end_s, at_s, launches.served_s),
        )
    )
    backlog = float(count[0].mean()), float(count[1].mean())
    least = float(count[0].min()), float(count[1].min())
    apart_s = span_s - part_s
    grew = float(work[1].mean() - work[0].mean()) / apart_s
    return backlog, least, grew, float(work[1].min() - work[0].min()) / apart_s


def _windows(requests: Requests, launches: Launches, edges_s: Numbers, devices: int) -> tuple[Window, ...]:
    width_s = np.diff(edges_s)
    if not (width_s > 0).all():
        return ()
    rate = launches.rate
    begun_s = np.where(np.isnan(requests.start_s), requests.end_s, requests.start_s)
    arrived, begun, ended = (area(at_s, edges_s) for at_s in (requests.arrival_s, begun_s, requests.end_s))
    busy = area(launches.start_s, edges_s, rate) - area(launches.end_s, edges_s, rate)
    arrivals, _ = np.histogram(requests.arrival_s, edges_s)
    columns = (
        arrivals,
        np.diff(arrived - begun) / width_s,
        np.diff(begun - ended) / width_s,
        np.diff(busy) / width_s / devices,
    )
    return tuple(
        [
            Window(float(start_s), float(end_s), int(came), _level(waiting), _level(running), _level(share))
            for start_s, end_s, came, waiting, running, share in zip(edges_s[:-1], edges_s[1:], *columns, strict=True)
        ]
    )


def _sizes(requests: Requests, measured: npt.NDArray[np.bool_]) -> tuple[SizeFigures, ...]:
    names = {size: index for index, size in enumerate(dict.fromkeys(requests.size))}
    which = np.array([names[size] for size in requests.size], dtype=int)
    latency_s = requests.end_s - requests.arrival_s
    figures = []
    for size, index in names.items():
        chosen = measured & (which == index)
        if count := int(chosen.sum()):
            finished = latency_s[chosen & requests.finished]
            of_size = quantiles(finished, SIZE_QUANTILES, count - len(finished))
            figures.append(SizeFigures(spell_size(size), count, _mean(requests.met[chosen]), of_size))
    return tuple(sorted(figures, key=lambda of_size: (-of_size.requests, of_size.size)))


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _level(value: float) -> float:
    """A level without the rounding of large times, and never below zero."""
    return max(0.0, round(float(value), 9))
