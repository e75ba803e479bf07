"""What an answer is worth whose seconds are not certain: the least cluster for each speed that the hardware may have.

Seconds that were not measured, or hardly, are wrong by an unknown factor that all batches of a cluster share, so more
replications do not average it out: simulated at the best guess alone, an interval says how lucky the requests were and
nothing about the hardware. So the answer's hardware is planned for once more at other speeds, equally likely ones, and
what is said is in how many of them a cluster keeps the promise. Deadlines are promises made in seconds: they stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Protocol

from predictors.latency_model import LatencyModel
from reports.plan.result import Evaluation, PossibleSpeed
from traces.request import Request

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""The middles of equally likely parts of what the error of the seconds leaves open, the fastest first."""


class Least(Protocol):
    """The least cluster that keeps the promise where all steps take ``slowdown`` times as long; None: none does.

    It is known to have at least ``fewest`` replicas, and at most ``most``, unless that is None.
    """

    def __call__(self, slowdown: float, fewest: int, most: int | None) -> Evaluation | None: ...


def possible_speeds(log_sd: float, least: Least) -> tuple[PossibleSpeed, ...]:
    """The least cluster at each of `QUANTILES`, from the best guess to both sides: a slower one takes no fewer replicas
    than a faster one.

    Args:
        log_sd: standard deviation of the logarithm of true over predicted seconds, above 0.
        least: searches for it.
    """
    slower, middle = slowdowns(log_sd), len(QUANTILES) // 2
    found = {middle: least(slower[middle], 1, None)}
    for at in range(middle + 1, len(QUANTILES)):
        faster = found[at - 1]
        found[at] = None if faster is None else least(slower[at], faster.candidate.replicas, None)
    for at in reversed(range(middle)):
        more = found[at + 1]
        found[at] = least(slower[at], 1, None if more is None else more.candidate.replicas)
    return tuple([PossibleSpeed(QUANTILES[at], slowdown, found[at]) for at, slowdown in enumerate(slower)])


def slowdowns(log_sd: float) -> list[float]:
    """Times the seconds of the best guess at each of `QUANTILES`, see `possible_speeds`."""
    normal = NormalDist(0.0, log_sd)
    return [round(math.exp(normal.inv_cdf(quantile)), 4) for quantile in QUANTILES]


def log_sd_alone(table: LatencyModel, requests: Sequence[Request]) -> float:
    """Standard deviation of the logarithm of true over predicted seconds of requests, each alone; 0.0: measured."""
    if not requests or not any(table.log_sds.values()):
        return 0.0
    off = table.shifted(1.0)
    return math.log(sum(map(off.standalone_s, requests)) / sum(map(table.standalone_s, requests)))


def within(ratio: float) -> int:
    """How many of `QUANTILES` on either side of the middle cover four of five cases of an error ``ratio`` times as
    large."""
    normal, middle = NormalDist(), len(QUANTILES) // 2
    reach_z = ratio * normal.inv_cdf(QUANTILES[-1])
    return sum([normal.inv_cdf(quantile) < reach_z for quantile in QUANTILES[middle:-1]])
