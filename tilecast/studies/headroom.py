"""The largest load that a cluster carries with its promise kept, seed by seed, from its load curve.

The load curve is simulated anyway, with the same requests at every load (common random numbers), so each seed has a
load at which its own attainment falls below the promise, found by interpolation; their mean has an interval. Only
around the mean's crossing a few loads more are looked at, until it lies between two that are close together, which are
simulated with more seeds than the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from reports.output_analysis import Interval, interval
from reports.plan.result import UNSTABLE, Candidate
from tilecast.studies.assess import Assessor
from tilecast.studies.experiment import Change
from tilecast.studies.verdict import luck

LOADS = (0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5)
"""Of the load curve, times the demand."""

WITHIN = 0.03
"""The loads between which the promise breaks are at most so far apart, as a share."""

_LEAST, _MOST = 1e-3, 1e6
_FARTHEST = 1.2
_NOT_KEPT = 0.01
"""A cluster that cannot keep up is counted to miss the promise by at least so much, whatever a short run attains."""


def headroom(assess: Assessor, candidate: Candidate) -> Interval:
    """Times the demand; 0: not even a thousandth of it, infinity: more than a million times it."""
    target = assess.target.attainment
    attained: dict[tuple[float, int], list[float]] = {}

    def of(load: float, times: int = 1) -> list[float]:
        if (load, times) not in attained:
            change = Change(rate_scale=load)
            said = assess.like(candidate, candidate, change)
            broken = said.state == UNSTABLE or (said.keeps is False and said.broken_by)
            most = target - _NOT_KEPT if broken else 1.0
            runs = assess.runs_like(candidate, candidate, change, times)
            attained[load, times] = [min(run.attainment, most) for run in runs]
        return attained[load, times]

    def mean(load: float) -> float:
        """In the mean of the seeds that most is known of: they differ between loads as the first of them do."""
        return _mean(of(load)) - _mean(of(1.0)) + _mean(of(1.0, 2))

    low, high = _bracket(mean, target)
    if low is None or high is None:
        edge = 0.0 if low is None else math.inf
        return Interval(edge, edge, len(of(1.0, 2)))
    while high > low * (1 + WITHIN):
        middle = _digits(math.sqrt(low * high))
        if not low < middle < high:
            break
        low, high = (middle, high) if mean(middle) >= target else (low, middle)
    crossings = _crossings(low, high, of(low, 2), of(high, 2), target)
    return interval(crossings, assess.target.confidence, luck(assess.replications(candidate)))


def _bracket(mean: Callable[[float], float], target: float) -> tuple[float | None, float | None]:
    """Two loads next to each other of which the first keeps the promise; None: there is none on that side."""
    kept = [load for load in LOADS if mean(load) >= target]
    if len(kept) == len(LOADS):
        low, step = LOADS[-1], 1.5
        while low < _MOST:
            if mean(high := _digits(low * step)) < target:
                return low, high
            low, step = high, step * step
        return low, None
    broken = min(set(LOADS) - set(kept))
    below = [load for load in kept if load < broken]
    if below:
        return max(below), broken
    high, step = broken, 2.0
    while high > _LEAST:
        if mean(low := _digits(high / step)) >= target:
            return low, high
        high, step = low, step * step
    return None, high


def _crossings(low: float, high: float, above: Sequence[float], below: Sequence[float], target: float) -> list[float]:
    """The load at which each seed breaks the promise, from what it attains at two loads around it.

    The logarithm of the odds is taken to be a straight line there, since it falls off a knee as a share does, and as
    steep for all seeds, of which some break a little before the two loads or after them.
    """
    at = _log_odds(target)
    before, after = ([_log_odds(share) for share in shares] for shares in (above, below))
    steep = max((sum(before) - sum(after)) / len(before), 1e-6)
    crossings = [low + (high - low) * (first - at) / steep for first in before]
    return [min(max(load, low / _FARTHEST), high * _FARTHEST) for load in crossings]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _digits(load: float) -> float:
    """To four digits, so that a load is spelled shortly."""
    return float(f"{load:.4g}")


def _log_odds(share: float) -> float:
    share = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(share / (1 - share))
