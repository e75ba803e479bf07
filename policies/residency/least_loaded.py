"""The replica with the least to do, whatever weights it holds."""

from __future__ import annotations

from collections.abc import Sequence

from policies.job import Job
from policies.residency.contract import DispatchPolicy, Lane


class LeastLoaded(DispatchPolicy):
    """The replica with the fewest predicted seconds of work; the first of several."""

    def choose(self, job: Job, lanes: Sequence[Lane], now: float) -> Lane:
        return min(lanes, key=lambda lane: lane.backlog_s(now))
