"""One replica after another."""

from __future__ import annotations

from collections.abc import Sequence

from policies.job import Job
from policies.residency.contract import DispatchPolicy, Lane


class RoundRobinDispatch(DispatchPolicy):
    """The next of the replicas that work, in turn."""

    def reset(self) -> None:
        self._last = -1

    def choose(self, job: Job, lanes: Sequence[Lane], now: float) -> Lane:
        chosen = next((lane for lane in lanes if lane.index > self._last), lanes[0])
        self._last = chosen.index
        return chosen
