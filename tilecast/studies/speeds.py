"""What an answer is worth whose seconds are not certain: the least cluster for each speed that the hardware may have.

Seconds that were not measured, or hardly, are wrong by an unknown factor that all batches of a cluster share, so more
replications do not average it out: simulated at the best guess alone, an interval says how lucky the requests were and
nothing about the hardware. So the answer's hardware is planned for once more at other speeds, equally likely ones, and
what is said is in how many of them a cluster keeps the promise. Deadlines are promises made in seconds: they stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from reports.plan.result import Evaluation, PossibleSpeed

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""The middles of equally likely parts of what the error of the seconds leaves open, the fastest first."""


def possible_speeds(log_sd: float, least: Callable[[float], Evaluation | None]) -> tuple[PossibleSpeed, ...]:
    """The least cluster at each of `QUANTILES`.

    Args:
        log_sd: standard deviation of the logarithm of true over predicted seconds, above 0.
        least: the least cluster that keeps the promise where all steps take so many times as long; None: none does.
    """
    normal = NormalDist(0.0, log_sd)
    slowdowns = [(quantile, round(math.exp(normal.inv_cdf(quantile)), 4)) for quantile in QUANTILES]
    return tuple([PossibleSpeed(quantile, slowdown, least(slowdown)) for quantile, slowdown in slowdowns])


def within(ratio: float) -> int:
    """How many of `QUANTILES` on either side of the middle cover four of five cases of an error ``ratio`` times as
    large."""
    normal, middle = NormalDist(), len(QUANTILES) // 2
    reach_z = ratio * normal.inv_cdf(QUANTILES[-1])
    return sum([normal.inv_cdf(quantile) < reach_z for quantile in QUANTILES[middle:-1]])
