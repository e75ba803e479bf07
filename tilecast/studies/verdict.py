"""What the replications of a cluster say together: figures with intervals, whether it keeps up, what limits it.

The trap: a cluster that is asked for 2 % more than it can do serves its first 1,000 requests in time, because the queue
has only begun to grow. So a verdict rests on whether *work* piles up (`Replication.growth`), not on how late requests
were so far, and a run that is too short to tell is said to be (`need_longer`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reports.formatting import format_interval, format_rate, format_value
from reports.output_analysis import Interval, ends_at_their_height, interval, share, share_ends
from reports.plan.result import NEAR_KNEE, STABLE, UNSTABLE, Figures, SizeFigures
from tilecast.studies.bottleneck import AT_CAP, limit
from tilecast.studies.replication import SIZE_QUANTILES, Replication

NEAR_LOAD = 0.9
"""Load from which a cluster is near its knee whatever else: waits grow with 1 / (1 - load)."""

CLEAR_GROWTH = 0.01
"""Work that piles up, as a share of what the cluster can do: surely less is none, surely more is an overload."""

FEW_REQUESTS = 3.0
"""A backlog that grew by less is no evidence."""

LEAST_OF_LUCK = 10
"""Replications from which on their scatter is known well enough to give up adding more."""

_EVEN = 1e-9
"""Rounding of a share."""

LOAD_ERROR = 0.02
"""Half width of a load that comes without one: a share of it."""


@dataclass(frozen=True)
class Verdict:
    """`Evaluation.state`, ``reason``, ``detail``, ``keeps`` and ``broken_by``, as they are explained there."""

    state: str
    reason: str
    detail: str
    keeps: bool | None
    broken_by: str = ""


@dataclass(frozen=True)
class Throughput:
    """A promise of requests that are completed.

    Attributes:
        asked_rps: requests a second that are asked for.
        least_rps: requests a second that must be completed.
    """

    asked_rps: float
    least_rps: float


def figures(
    replications: Sequence[Replication],
    rate_scale: float,
    rate_rps: float,
    confidence: float = 0.95,
    unstable: bool = False,
) -> Figures:
    """Means over the replications of one cluster under one load, with their intervals.

    Where a backlog grows there is no steady latency: its quantiles are infinite, whatever so short a run says. It does
    where that shows, and where a cluster is known to be ``unstable`` and does not drop what it cannot serve. Where some
    replications alone have an infinite one, it is that in their middle, without an interval.
    """

    def mean(name: str) -> Interval:
        return interval([getattr(replication, name) for replication in replications], confidence, luck(replications))

    sheds = _mean([r.dropped for r in replications]) > CLEAR_GROWTH
    growing = grows(replications, confidence) or (unstable and not sheds)

    met = attainment(replications, confidence)

    def latency(name: str, quantile: float) -> Interval:
        if growing:
            return Interval(math.inf, math.inf, len(replications))
        seen = mean(name)
        if not math.isinf(seen.mean):
            return seen
        return replace(seen, mean=_typical([getattr(run, name) for run in replications], quantile, met.mean))

    return Figures(
        rate_scale,
        rate_rps,
        attainment=met,
        latency_p50_s=latency("latency_p50_s", 0.5),
        latency_p95_s=latency("latency_p95_s", 0.95),
        latency_p99_s=latency("latency_p99_s", 0.99),
        throughput_rps=mean("throughput_rps"),
        goodput_rps=mean("goodput_rps"),
        images_per_s=mean("images_per_s"),
        utilisation=mean("utilisation"),
        batch=mean("batch"),
        dropped=_share_of_requests(replications, "dropped", confidence),
        requests=round(sum([r.requests for r in replications]) / len(replications)),
        warm_up_s=sum([r.warm_up_s for r in replications]) / len(replications),
        drawn_rps=interval([r.requests / r.span_s if r.span_s > 0 else math.nan for r in replications], confidence),
    )


def attainment(replications: Sequence[Replication], confidence: float = 0.95) -> Interval:
    """The share of requests that finished in time, in all that the demand was recorded from; see `luck`."""
    return _share_of_requests(replications, "attainment", confidence)


def luck(replications: Sequence[Replication]) -> float:
    """How much of the variance of one replication the recording has that all were drawn from."""
    return _mean([r.requests / r.recorded for r in replications]) if replications else 0.0


def keeps(replications: Sequence[Replication], target: float, confidence: float = 0.95) -> bool | None:
    """Whether the attainment is at least ``target``; None: the interval holds both answers."""
    low, high = share_ends(*_shares(replications, "attainment"), confidence, _recorded(replications))
    if low >= target:
        return True
    return False if high < target else None


def completed(replications: Sequence[Replication], confidence: float = 0.95) -> Interval:
    """The share of the requests asked for that is completed in the long run, in time or not.

    Where a backlog grows that is what comes out over what comes in, since a simulation goes on until all have ended. A
    share of a rate need not be as sure as one of requests: where none of those simulated was lost, it is 1.
    """
    shares = [run.finished / run.requests if run.requests else math.nan for run in replications]
    if grows(replications, confidence):
        out = [run.throughput_rps * run.span_s / run.requests if run.requests else math.nan for run in replications]
        shares = [min(both) for both in zip(shares, out, strict=True)]
    return interval(shares, confidence, luck(replications))


def lucky(replications: Sequence[Replication], target: float, confidence: float = 0.95) -> bool:
    """Whether the recording is too short to decide, however many replications are drawn from it."""
    if len(replications) < LEAST_OF_LUCK:
        return False
    seen = interval([replication.attainment for replication in replications], confidence, luck(replications))
    ever = math.sqrt(luck(replications) / (1 / len(replications) + luck(replications)))
    low, high = ends_at_their_height(replace(seen, half_width=seen.half_width * ever))
    return low < target < high


def by_size(replications: Sequence[Replication]) -> tuple[SizeFigures, ...]:
    """Requests of each size over all replications, most frequent first; quantiles are means over replications, or
    their middle where some are infinite; infinite where a backlog grows."""
    growing = bool(replications) and grows(replications)
    sizes: dict[str, list[SizeFigures]] = {}
    for replication in replications:
        for of_size in replication.sizes:
            sizes.setdefault(of_size.size, []).append(of_size)
    pooled = []
    for size, parts in sizes.items():
        requests = sum([part.requests for part in parts])
        met = sum([part.requests * part.attainment for part in parts])
        by_quantile = zip(SIZE_QUANTILES, zip(*[part.latency_s for part in parts], strict=True), strict=True)
        means = [_typical(values, quantile, met / requests) for quantile, values in by_quantile]
        latency_s = tuple([math.inf if growing else mean for mean in means])
        pooled.append(SizeFigures(size, requests, met / requests, latency_s))
    return tuple(sorted(pooled, key=lambda of_size: (-of_size.requests, of_size.size)))


def _typical(latencies_s: Sequence[float], quantile: float, met: float) -> float:
    """A quantile of latency in replications, of which some may have an infinite one: then that in their middle, which
    is none that is infinite where as many requests as ``met`` were in time."""
    mean = interval(latencies_s).mean
    if not math.isinf(mean):
        return mean
    known = [value for value in latencies_s if not math.isnan(value)]
    finite = [value for value in known if math.isfinite(value)]
    middle = statistics.median(known)
    return max(finite) if finite and math.isinf(middle) and met >= quantile else middle


def growth(replications: Sequence[Replication], confidence: float = 0.95) -> Interval:
    """How much faster work comes in than it is done, as a share of what the cluster can do; see `Replication`."""
    return interval([replication.growth for replication in replications], confidence)


def grows(replications: Sequence[Replication], confidence: float = 0.95) -> bool | None:
    """Whether a backlog builds up; None: too few or too short replications to tell.

    It does when work grows significantly and by more than a few requests, and the least of the last part is above that
    of the first, which a mere peak does not bring about. It does not when either is surely less than `CLEAR_GROWTH`.
    """
    work = growth(replications, confidence)
    least = interval([replication.growth_least for replication in replications], confidence)
    more = _mean([r.backlog[1] - r.backlog[0] for r in replications])
    never_fewer = _mean([r.backlog_least[1] - r.backlog_least[0] for r in replications])
    if work.low > 0 and work.mean > CLEAR_GROWTH / 2 and more > FEW_REQUESTS and never_fewer > more / 4:
        return True
    return False if min(work.high, least.high) < CLEAR_GROWTH else None


def shown_load(replications: Sequence[Replication], confidence: float = 0.95) -> Interval:
    """Demand over what the cluster can do, as the runs themselves show it; NaN where they do not.

    That is the busy share of the devices, had they done what was dropped, too; but only where batches could hardly be
    larger, since devices that are always busy with small batches are not at their limit. Without drops it is at most 1.
    """
    busy = [r.utilisation / (1 - r.dropped) if r.dropped < 1 and r.at_cap > AT_CAP else math.nan for r in replications]
    return interval(busy, confidence)


def need_longer(replications: Sequence[Replication], confidence: float = 0.95) -> bool:
    """Whether the horizon must be doubled because it is not decided whether the cluster keeps up.

    That is so when growth is neither surely less than `CLEAR_GROWTH` nor surely more; when most replications found no
    end of their warm-up; or when requests are dropped and it is open whether the cluster could have done them, too.
    """
    growing = grows(replications, confidence)
    if growing and growth(replications, confidence).low > CLEAR_GROWTH:
        return False
    if growing is not False or not _settled(replications):
        return True
    shown = shown_load(replications, confidence)
    return _mean([r.dropped for r in replications]) > CLEAR_GROWTH and shown.low <= 1 < shown.high


def judge(
    replications: Sequence[Replication],
    load: Interval | float | None,
    target: float,
    confidence: float = 0.95,
    harder: Sequence[Replication] = (),
    throughput: Throughput | None = None,
) -> Verdict:
    """Whether a cluster keeps up and keeps its promise, and what limits it.

    What is in time while a backlog grows will not be for long, so an unstable cluster keeps no promise; it is left open
    as long as a longer run may find it stable. A load above 1 does not count against runs in which nothing of it shows.
    Where a backlog grows in the recording, the recording's luck is no excuse.

    Args:
        replications: of independent demands of one rate, after the horizon was doubled until not `need_longer`.
        load: demand over saturation throughput; a number is taken to be known to `LOAD_ERROR`; None or NaN: unknown,
            and taken from the run where it shows it.
        target: the attainment promised.
        confidence: confidence level of the intervals that decide, 0 to 1.
        harder: replications under a little more load; when those are unstable or break the promise, it is near.
        throughput: what is promised, too.
    """
    kept, broken_by = keeps(replications, target, confidence), ""
    known, growing = _load(load, replications, confidence), grows(replications, confidence)
    state, why = _state(replications, known, kept, target, confidence, harder)
    if state == UNSTABLE:
        broken_by = _overload(growing, known)
    if state == UNSTABLE and kept is not False:
        of_recording = keeps([replace(run, recorded=math.inf) for run in replications], target, confidence)
        open_yet = known.low <= 1 and need_longer(replications, confidence) and of_recording is not False
        kept = None if open_yet else False
    if kept and known.high > 1 and growing is None:
        kept, broken_by = None, "it is open whether the queue grows"
    if throughput is not None and state != UNSTABLE and kept is not False:
        carries, said = _carries(completed(replications, confidence), throughput)
        if not carries:
            kept, broken_by = carries, said
    if state == STABLE and kept:
        return Verdict(state, "", f"{_capital(why)}.", kept)
    reason, evidence = limit(replications, known.mean)
    return Verdict(state, reason, f"{_capital(why)}; {evidence}.", kept, broken_by)


def _carries(share: Interval, promise: Throughput) -> tuple[bool | None, str]:
    """Whether a promised throughput is kept, and if not half a sentence of it: ``throughput 480/h of 500/h``."""
    least = promise.least_rps / promise.asked_rps
    if share.low >= least - _EVEN:
        return True, ""
    if share.high < least:
        return False, f"throughput {format_rate(share.mean * promise.asked_rps)} of {format_rate(promise.least_rps)}"
    return None, f"it is open whether the throughput is {format_rate(promise.least_rps)}"


def _overload(growing: bool | None, load: Interval) -> str:
    """What is wrong with a cluster that does not keep up, in half a sentence."""
    if growing:
        return "the queue grows"
    return f"the demand is {load.mean:.2f} times what it can do" if load.low > 1 else "it does not settle"


def _state(
    replications: Sequence[Replication],
    load: Interval,
    kept: bool | None,
    target: float,
    confidence: float,
    harder: Sequence[Replication],
) -> tuple[str, str]:
    growing = grows(replications, confidence)
    requests = _mean([r.submitted for r in replications])
    first, last = (_mean([r.backlog[part] for r in replications]) for part in (0, 1))
    dropped = _share_of_requests(replications, "dropped", confidence)
    busy = _mean([r.utilisation for r in replications])
    if growing:
        return UNSTABLE, f"the backlog grows from {first:.3g} to {last:.3g} requests within {requests:,.0f} requests"
    if load.low > 1 and (growing is None or dropped.mean > (load.mean - 1) / 2):
        sheds = f", and {dropped.mean:.1%} of the requests are dropped" if dropped.low > 0 else ""
        return UNSTABLE, f"the demand is {load.mean:.2f} times what it can do{sheds}"
    if growing is None and not _settled(replications) and load.high > 1:
        return UNSTABLE, f"it does not settle within {requests:,.0f} requests"
    if growing is None or not _settled(replications):
        return NEAR_KNEE, f"it neither settles nor clearly grows within {requests:,.0f} requests"
    if load.mean >= NEAR_LOAD:
        return NEAR_KNEE, f"the demand is {load.mean:.0%} of what it can do"
    if kept is None:
        met = attainment(replications, confidence)
        return NEAR_KNEE, f"it meets {format_interval(met, '%')} of deadlines, {format_value(target, '%')} are promised"
    if harder and (grows(harder, confidence) or (kept and keeps(harder, target, confidence) is not True)):
        return NEAR_KNEE, "a little more load breaks it"
    return STABLE, f"the backlog stays at {last:.3g} requests, devices are {busy:.0%} busy"


def _load(load: Interval | float | None, replications: Sequence[Replication], confidence: float) -> Interval:
    if isinstance(load, Interval):
        return load
    if load is None or math.isnan(load):
        return shown_load(replications, confidence)
    return Interval(load, LOAD_ERROR * load, 1)


def _settled(replications: Sequence[Replication]) -> bool:
    return 2 * sum([replication.settled for replication in replications]) >= len(replications)


def _share_of_requests(replications: Sequence[Replication], name: str, confidence: float) -> Interval:
    return share(*_shares(replications, name), confidence, _recorded(replications))


def _shares(replications: Sequence[Replication], name: str) -> tuple[list[float], list[int]]:
    """The share of each, and of how many requests."""
    values = [getattr(replication, name) for replication in replications]
    return values, [replication.requests for replication in replications]


def _recorded(replications: Sequence[Replication]) -> float:
    return min([replication.recorded for replication in replications], default=math.inf)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
