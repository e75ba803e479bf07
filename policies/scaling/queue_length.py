"""As many replicas as have work, and one more for every few requests that wait."""

from __future__ import annotations

import math
from typing import Annotated

from policies.parameters import Spare, Wait
from policies.scaling.contract import PoolView
from policies.scaling.steady import Steady
from traces.limits import Range


class QueueLength(Steady):
    """The busy replicas, and one for every so many requests that wait.

    Args:
        waiting: requests that wait for which a replica is started.
        keep_alive_s, delay_s, cooldown_s, buffer: see `policies.scaling.steady.Steady`.
    """

    def __init__(
        self,
        waiting: Annotated[float, Range(0.01, 1e6)] = 2.0,
        keep_alive_s: Wait = 300.0,
        delay_s: Wait = 0.0,
        cooldown_s: Wait = 0.0,
        buffer: Spare = 0,
    ) -> None:
        super().__init__(keep_alive_s, delay_s, cooldown_s, buffer)
        self.waiting = waiting

    def demand(self, pool: PoolView, now: float) -> float:
        return pool.busy + math.ceil(len(pool.waiting) / self.waiting)
