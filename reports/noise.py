"""How far figures of runs may differ by noise alone: an interval for the difference of simulated and real runs.

Two runs of one trace differ though nothing is wrong: steps do not take the same time twice, and one that is late makes
those behind it late. Few requests say little about a percentile, so a difference beyond a goal proves nothing by
itself. What may be concluded is read off a bootstrap that keeps what hangs together: requests are drawn in blocks of
consecutive arrivals (those of a queue are late together; Künsch, "The jackknife and the bootstrap for general
stationary observations", 1989), the same blocks from every run (they served the same trace), and of several runs of one
kind, the runs are drawn, too (a machine is not the same on two days).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.fidelity import UNKNOWN, NoiseRange, difference
from reports.figures import figure
from reports.output_analysis import clopper_pearson, quantiles, standard_errors
from traces.streams import stream

Numbers = npt.NDArray[np.float64]
Drawn = npt.NDArray[np.int64]

CONFIDENCE = 0.95
"""Of an interval: noise passes each of its ends about once in forty times."""

RESAMPLES = 999

MOST_BLOCKS = 20
"""Of a mean; more say little more of its error."""

QUANTILES = {"latency_p50_s": 0.5, "latency_p95_s": 0.95, "latency_p99_s": 0.99}
ATTAINMENT = "slo_attainment"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the requests of one run.

    Attributes:
        latency_s: (requests,) seconds from arrival to end; infinite: never finished; NaN: never submitted.
        met: (requests,) whether each met its deadline.
    """

    latency_s: Numbers
    met: npt.NDArray[np.bool_]


def outcomes(ends: pd.DataFrame) -> Outcomes:
    """Of a table with ``latency_s`` (NaN unless finished), ``met`` and ``submitted``, one row a request."""
    latency = ends["latency_s"].to_numpy(float)
    lost = np.isnan(latency) & ends["submitted"].to_numpy(bool)
    return Outcomes(np.where(lost, math.inf, latency), ends["met"].to_numpy(bool))


def ranges(sims: Sequence[Outcomes], reals: Sequence[Outcomes]) -> dict[str, NoiseRange]:
    """Where the difference of each figure that is judged lies, by its name.

    The difference is that of the mean of the simulated and the mean of the real runs. With fewer than two requests
    nothing is known. Blocks are about as long as the square root of the number of requests, and percentiles of the
    resamples are taken further out where there are few blocks (Hesterberg, "What teachers should know about the
    bootstrap", 2015, 'expanded percentile interval'). What is drawn depends on nothing but the number of requests and
    runs.

    Args:
        sims: of simulated runs; the requests are the same in all runs and stand in order of arrival.
        reals: of real runs.
    """
    from scipy.stats import bootstrap

    names = [*QUANTILES, ATTAINMENT]
    count = len(sims[0].met)
    if count < 2:
        return dict.fromkeys(names, UNKNOWN)
    blocks = max(2, round(math.sqrt(count)))
    block = np.arange(count) * blocks // count
    several = [len(runs) > 1 for runs in (sims, reals)]
    compare = np.frompyfunc(difference, 3, 1)

    def differences(drawn: Drawn, *runs: Drawn, axis: int) -> Numbers:
        chosen = iter(runs)
        times = np.array([np.bincount(of_one, minlength=blocks) for of_one in drawn])
        sim, real = (
            _means([_resampled(run, block, times) for run in of_kind], next(chosen) if more else None)
            for of_kind, more in zip((sims, reals), several, strict=True)
        )
        return np.array([compare(sim[:, at], real[:, at], figure(name).unit) for at, name in enumerate(names)], float)

    data = [np.arange(blocks)] + [np.arange(len(runs)) for runs in (sims, reals) if len(runs) > 1]
    with np.errstate(invalid="ignore"):  # of infinite differences
        drawn = bootstrap(
            data, differences, vectorized=True, n_resamples=RESAMPLES, method="percentile",
            rng=stream(0, "reports/noise"),
        ).bootstrap_distribution  # fmt: skip
    tail = _tail(blocks)
    found = {name: _between(values, tail) for name, values in zip(names, drawn, strict=True)}
    if not _same(sims, reals):
        found[ATTAINMENT] = _at_least(found[ATTAINMENT], _exact(sims, reals))
    return found


def attainment_range(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> NoiseRange:
    """Where the attainment of one run minus that of another lies, chance considered: as `ranges`, of this figure alone.

    Args:
        one: (requests,) whether each met its deadline, in order of arrival.
        other: the same requests in another run.
    """
    count = len(one)
    if count < 2:
        return UNKNOWN
    if np.array_equal(one, other):
        return NoiseRange(0.0, 0.0)
    found = _mean_range(one.astype(float) - other)
    nothing = np.zeros(count)
    return _at_least(found, _exact([Outcomes(nothing, one)], [Outcomes(nothing, other)]))


def share_range(met: npt.NDArray[np.bool_]) -> NoiseRange:
    """Where the attainment of a run would lie with other requests of the same kind, by blocks of those that it had.

    Where hardly any request missed its deadline resamples say that none ever will, so it is at least as wide as
    Clopper-Pearson's interval of the share, each request taken on its own.

    Args:
        met: (requests,) whether each met its deadline, in order of arrival.
    """
    if len(met) < 2:
        return NoiseRange(0.0, 1.0)
    found = _mean_range(met.astype(float))
    return _at_least(found, NoiseRange(*clopper_pearson(int(met.sum()), len(met), CONFIDENCE)))


def _mean_range(values: Numbers) -> NoiseRange:
    """Where the mean lies of values that stand in order of arrival, by resampled blocks of them.

    Blocks are few and long: those of a busy queue must outlast its memory to be alike (Schmeiser, "Batch size effects
    in the analysis of simulation output", 1982).
    """
    count = len(values)
    blocks = min(MOST_BLOCKS, max(2, round(math.sqrt(count))))
    block = np.arange(count) * blocks // count
    sums, counts = np.bincount(block, values, minlength=blocks), np.bincount(block, minlength=blocks)
    drawn = stream(0, "reports/noise").multinomial(blocks, np.full(blocks, 1 / blocks), RESAMPLES)
    return _between(drawn @ sums / (drawn @ counts), _tail(blocks))


def _tail(blocks: int) -> float:
    """The share of resamples beyond each end of an interval, of so many blocks."""
    return NormalDist().cdf(math.sqrt(blocks / (blocks - 1)) * -standard_errors(CONFIDENCE, blocks - 1))


def _resampled(run: Outcomes, block: Drawn, times: Drawn) -> Numbers:
    """(resamples, figures): those of `QUANTILES` and the attainment.

    Args:
        run: of which blocks of requests are taken.
        block: (requests,) which block each is in.
        times: (resamples, blocks) how often each block is taken.
    """
    order = np.argsort(run.latency_s, kind="stable")
    order = order[np.isfinite(run.latency_s[order])]
    latency_s, of_latency, blocks = run.latency_s[order], block[order], times.shape[1]
    lost, met, count = (
        times @ np.bincount(block[chosen], minlength=blocks)
        for chosen in (np.isinf(run.latency_s), run.met, np.ones(len(block), dtype=bool))
    )
    shares = list(QUANTILES.values())
    found = [
        quantiles(np.repeat(latency_s, taken[of_latency]), shares, int(never))
        for taken, never in zip(times, lost, strict=True)
    ]
    return np.column_stack([np.array(found), met / count])


def _means(figures: list[Numbers], chosen: Drawn | None) -> Numbers:
    """Means over the runs that were drawn: ``chosen`` (resamples, runs); None: there is one run."""
    if chosen is None:
        return figures[0]
    return np.asarray(np.stack(figures)[chosen, np.arange(len(chosen))[:, None]].mean(axis=1))


def _between(values: Numbers, tail: float) -> NoiseRange:
    """The values without ``tail`` (a share) at either end, rounded outwards; what is not defined could be anything."""
    if np.isnan(values).any():
        return UNKNOWN
    ordered, last = np.sort(values), len(values) - 1
    return NoiseRange(float(ordered[math.floor(tail * last)]), float(ordered[math.ceil((1 - tail) * last)]))


def _same(sims: Sequence[Outcomes], reals: Sequence[Outcomes]) -> bool:
    """Whether all runs are one and the same, so that there is no noise."""
    first = sims[0]
    return all(
        np.array_equal(run.latency_s, first.latency_s, equal_nan=True) and np.array_equal(run.met, first.met)
        for run in (*sims, *reals)
    )


def _exact(sims: Sequence[Outcomes], reals: Sequence[Outcomes]) -> NoiseRange:
    """Where the difference of attainment lies by the requests that only one side met, each on its own.

    Where no request ended otherwise in one run than in the other, all resamples agree and would say that none ever can.
    The ends are Clopper-Pearson's, of the two shares of requests that only one side met.
    """
    sim, real = (np.mean([run.met for run in runs], axis=0) for runs in (sims, reals))
    count = len(sim)
    more, less = (
        clopper_pearson(round(float(np.maximum(part, 0).sum())), count, CONFIDENCE) for part in (sim - real, real - sim)
    )
    return NoiseRange(more[0] - less[1], more[1] - less[0])


def _at_least(one: NoiseRange, other: NoiseRange) -> NoiseRange:
    return NoiseRange(min(one.low, other.low), max(one.high, other.high))
