"""Statistics of simulation output: confidence intervals, where the warm-up ends, whether something grows.

Observations of one run hang together (a long queue now is a long queue in a minute), so the scatter within a run says
nothing about the error of its mean. Independent replications do: every interval here is Student's t over them
(Law, Simulation Modeling and Analysis, 5th ed., 9.4.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

_POWER = 0.55
_LAST_PART = 0.75
"""Warm-up may end in this part of a run; a later end would be judged by too few observations."""


@dataclass(frozen=True)
class Interval:
    """A mean and how far the truth may lie from it.

    Attributes:
        mean: mean of independent replications.
        half_width: half width of the confidence interval; infinity where one replication is all there is.
        replications: number of replications.
    """

    mean: float
    half_width: float
    replications: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width


class WarmUp(NamedTuple):
    """Observations to leave out at the beginning; ``settled`` False: no end of the warm-up was found in the first half
    of the run, so it is not known to be steady, and ``cut`` is the best there is in that half."""

    cut: int
    settled: bool


def interval(values: Sequence[float], confidence: float = 0.95, luck: float = 0.0) -> Interval:
    """Student's t interval of the mean of independent replications.

    Replications that are drawn from a recording share its luck, which no number of them averages out. A recording is
    itself one draw of what it stands for, so its luck has the variance of a replication of its own length: ``luck``
    times that of the replications, where they are so many times as long. The interval is of the truth behind the
    recording, s t sqrt(1 / n + luck).

    Values that are not defined (NaN, like the latency where nothing finished) are left out. One value has an infinite
    half width, none a NaN mean, an infinite one an infinite mean. It may reach beyond what is possible, such as below
    0 s: read it as cut off there.

    Args:
        values: values of the replications.
        confidence: confidence level, 0 to 1.
        luck: length of a replication over that of the recording that they were drawn from; 0: what they are drawn from
            is known.
    """
    known = np.asarray([value for value in values if not math.isnan(value)], dtype=float)
    count = len(known)
    if np.isinf(known).any():
        return Interval(math.inf, math.inf, count)
    if count < 2:
        return Interval(float(known[0]) if count else math.nan, math.inf, count)
    error = float(known.std(ddof=1)) * math.sqrt(1 / count + luck)
    return Interval(float(known.mean()), standard_errors(confidence, count - 1) * error, count)


def share(
    values: Sequence[float], counts: Sequence[int], confidence: float = 0.95, recorded: float = math.inf
) -> Interval:
    """`interval` of a share of requests, as wide as the farther of its `share_ends`; read it as cut off at 0 and 1."""
    of_runs = interval(values, confidence, _luck(counts, recorded))
    low, high = share_ends(values, counts, confidence, recorded)
    return Interval(of_runs.mean, max(of_runs.mean - low, high - of_runs.mean), of_runs.replications)


def share_ends(
    values: Sequence[float], counts: Sequence[int], confidence: float = 0.95, recorded: float = math.inf
) -> tuple[float, float]:
    """Ends of the interval of a share of requests, each value of as many requests as ``counts`` says.

    Near 1 it is wide below and narrow above: a share falls off a knee, so where most runs hardly miss a deadline a few
    miss many, and a recording that lacks its worst hours shows both a high share and little scatter. So each end is the
    truth at which what was seen would be as far off as the interval is wide, see `ends_at_their_height`.

    Replications may also all agree (none of 2,000 requests late, five times), and their scatter would say that nothing
    can go wrong. So each end is at least as far off as the farther one of the Clopper-Pearson interval of all requests
    taken together, as if each were on its own; requests are late in clusters, so the truth is not known any better.

    Args:
        values: share of each replication.
        counts: requests of each.
        confidence: confidence level, 0 to 1.
        recorded: requests of the recording that they were drawn from, whose luck counts as in `interval`; infinity:
            what they are drawn from is known.

    Returns:
        The lower end and the upper one; infinite where one replication is all there is, NaN where there is none.
    """
    drawn = sum(counts)
    of_runs = interval(values, confidence, _luck(counts, recorded))
    if of_runs.replications < 2 or not drawn:
        return of_runs.low, of_runs.high
    met = sum(value * count for value, count in zip(values, counts, strict=True) if count) / drawn
    total = max(1, round(1 / (1 / drawn + 1 / recorded)))
    hits = round(met * total)
    low, high = clopper_pearson(hits, total, confidence)
    exact = max(hits / total - low, high - hits / total)
    below, above = ends_at_their_height(of_runs)
    return min(below, of_runs.mean - exact), max(above, of_runs.mean + exact)


def ends_at_their_height(of: Interval) -> tuple[float, float]:
    """Ends of the interval of a share, that scatters at each end as much as one of that height does.

    As in Wilson's score interval an end x is where |x - mean| is the half width there: that of ``of``, times
    (x (1 - x) / (mean (1 - mean))) to a power. The power of requests on their own is 1/2, that of shares whose log-odds
    scatter alike at every height is 1, which knows nothing of shares near 1. `_POWER` is the least that claims too much
    of one recording in twenty at most where log-odds do scatter alike.
    """
    if not 0 < of.mean < 1 or not math.isfinite(of.half_width):
        return of.low, of.high

    from scipy.optimize import brentq  # which takes half a second to import

    def beyond(x: float) -> float:
        return abs(x - of.mean) - of.half_width * (x * (1 - x) / (of.mean * (1 - of.mean))) ** _POWER

    if not of.half_width:
        return of.mean, of.mean
    return float(brentq(beyond, 0.0, of.mean)), float(brentq(beyond, of.mean, 1.0))


def _luck(counts: Sequence[int], recorded: float) -> float:
    """See `interval`: the mean length of a replication over that of the recording."""
    return sum(counts) / len(counts) / recorded if counts else 0.0


def quantiles(values: Sequence[float] | Numbers, shares: Sequence[float], never: int = 0) -> tuple[float, ...]:
    """Quantiles of what all requests experienced, of which ``never`` never finished.

    Those count as infinite, since a quantile of the others alone looks the better the more are lost. Between two values
    it is interpolated, as `numpy.quantile` does. NaN: there are no requests.

    Args:
        values: values of the requests that finished, such as seconds of latency.
        shares: the quantiles wanted, between 0 and 1.
        never: requests that did not finish.
    """
    known, count = np.sort(np.asarray(values, dtype=float)), len(values) + never
    if not count:
        return (math.nan,) * len(shares)
    found = []
    for part in shares:
        at = part * (count - 1)
        if math.ceil(at - 1e-9) >= len(known):
            found.append(math.inf)
        else:
            found.append(float(np.interp(at, np.arange(len(known)), known)))
    return tuple(found)


def paired(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Interval of the mean of ``b - a``, replication by replication.

    Under common random numbers both rise and fall with the same arrivals, and their difference is known far better
    than either.
    """
    return interval([after - before for before, after in zip(a, b, strict=True)], confidence)


def warm_up(series: Sequence[float] | Numbers, batch: int = 5) -> WarmUp:
    """Where the influence of starting empty ends: the MSER-5 rule.

    Of means over ``batch`` observations, leaves out as many as make the standard error of the mean of the rest least
    (White, Cobb and Spratt, "A comparison of five steady-state truncation heuristics for simulation", WSC 2000). An end
    in the second half means that the run is too short, or that there is no steady state.
    """
    means = np.asarray(series, dtype=float)
    means = means[: len(means) // batch * batch].reshape(-1, batch).mean(axis=1)
    count = len(means)
    if count < 4:
        return WarmUp(0, False)
    left = count - np.arange(int(_LAST_PART * count))
    centred = means - means.mean()
    sums, squares = (np.cumsum(values[::-1])[::-1][: len(left)] for values in (centred, centred**2))
    error = np.maximum(squares - sums**2 / left, 0.0) / left**2
    half = count // 2
    cut = int(error[: half + 1].argmin())
    return WarmUp(cut * batch, bool(int(error.argmin()) <= half))


@lru_cache(maxsize=4096)
def standard_errors(confidence: float, freedom: int) -> float:
    """Half width of Student's t interval, in standard errors of the mean."""
    from scipy.special import stdtrit  # scipy.stats takes five times as long to import

    return float(stdtrit(freedom, (1 + confidence) / 2))


@lru_cache(maxsize=4096)
def clopper_pearson(hits: int, total: int, confidence: float) -> tuple[float, float]:
    """The exact interval of a share of which ``hits`` of ``total`` independent trials were seen."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, total - hits + 1, tail))
    high = 1.0 if hits == total else float(betaincinv(hits + 1, total - hits, 1 - tail))
    return low, high
