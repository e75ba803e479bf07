"""As many replicas as keep each of them busy for a share of its time."""

from __future__ import annotations

import math
from collections import deque
from typing import Annotated

from policies.parameters import Spare, Wait
from policies.scaling.contract import PoolView
from policies.scaling.steady import Steady
from traces.limits import POSITIVE_SPAN, Range

_LOOKS = 8
"""In a window, while what was busy within it changes."""


class Utilisation(Steady):
    """Replicas busy on average over the last seconds, divided by the share of its time that each is to be busy.

    A replica is busy while a request lives on it or waits for it alone. When all are busy all the time, the next look
    demands ``1 / target`` times as many.

    Args:
        target: the share.
        window_s: seconds that are averaged over.
        keep_alive_s, delay_s, cooldown_s, buffer: see `policies.scaling.steady.Steady`.
    """

    def __init__(
        self,
        target: Annotated[float, Range(0.01, 1)] = 0.7,
        window_s: Annotated[float, POSITIVE_SPAN] = 60.0,
        keep_alive_s: Wait = 300.0,
        delay_s: Wait = 0.0,
        cooldown_s: Wait = 0.0,
        buffer: Spare = 0,
    ) -> None:
        super().__init__(keep_alive_s, delay_s, cooldown_s, buffer)
        self.target = target
        self.window_s = window_s

    def reset(self) -> None:
        super().reset()
        self._busy = 0
        self._since_s = -math.inf
        self._before: deque[tuple[float, float, int]] = deque()  # (from, to, replicas busy), in order
        self._unequal = False

    def demand(self, pool: PoolView, now: float) -> float:
        before, begin_s = self._before, now - self.window_s
        if now > self._since_s:
            if self._since_s > -math.inf:
                before.append((self._since_s, now, self._busy))
            self._since_s = now
        self._busy = pool.busy
        while before and before[0][1] <= begin_s:
            before.popleft()
        self._unequal = any(busy != pool.busy for _, _, busy in before)
        seconds = [(to - max(since, begin_s), busy) for since, to, busy in before]
        known_s = sum([spent_s for spent_s, _ in seconds])
        mean = sum([spent_s * busy for spent_s, busy in seconds]) / known_s if known_s else float(pool.busy)
        return mean / self.target

    def look_again(self, now: float) -> float:
        return now + self.window_s / _LOOKS if self._unequal else math.inf
