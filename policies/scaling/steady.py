"""What hosts put between the load and the number of replicas, so that it does not follow every ripple.

A policy says what the load demands at an instant; how soon that is followed, up and down, is the same for all of them
and has the names that serverless GPU hosts give it.
"""

from __future__ import annotations

import math
from collections import deque

from policies.parameters import Spare, Wait
from policies.scaling.contract import PoolView, ScalingPolicy


class _Extreme:
    """The largest value that a quantity had within a window of time; it holds each value until the next is told."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._value = -math.inf
        self._before: deque[tuple[float, float]] = deque()  # (value, until when it held), values falling

    def tell(self, value: float, now: float) -> float:
        """From now on the quantity has this value; the largest within the window."""
        if value < self._value:
            self._before.append((self._value, now))
        self._value = value
        before = self._before
        while before and before[-1][0] <= value:
            before.pop()
        while before and before[0][1] + self._window_s <= now:
            before.popleft()
        return before[0][0] if before else value

    @property
    def changes_s(self) -> float:
        """When the answer changes if no other value is told; infinity: never."""
        return self._before[0][1] + self._window_s if self._before else math.inf


class Steady(ScalingPolicy):
    """Base of policies that follow the load. Where there is a request, a replica is wanted, whatever they say.

    Args:
        keep_alive_s: a replica is stopped when it has not been wanted for so long.
        delay_s: a replica is started when it has been wanted for so long.
        cooldown_s: after the number has changed, it stays for so long.
        buffer: replicas that are there beyond what the load demands.
    """

    def __init__(
        self, keep_alive_s: Wait = 300.0, delay_s: Wait = 0.0, cooldown_s: Wait = 0.0, buffer: Spare = 0
    ) -> None:
        self.keep_alive_s = keep_alive_s
        self.delay_s = delay_s
        self.cooldown_s = cooldown_s
        self.buffer = buffer

    def demand(self, pool: PoolView, now: float) -> float:
        """How many replicas the load demands now, rounded up; the buffer is none of its business."""
        raise NotImplementedError

    def look_again(self, now: float) -> float:
        """When the demand may have changed although nothing happened, seconds; infinity: never."""
        return math.inf

    def reset(self) -> None:
        self._kept, self._delayed = _Extreme(self.keep_alive_s), _Extreme(self.delay_s)
        self._answer: int | None = None
        self._changed_s = -math.inf

    def wanted(self, pool: PoolView, now: float) -> int:
        if self._answer is None:
            self._answer = there = pool.there
            self._kept.tell(there, now)
            self._delayed.tell(-there, now)
        demanded = math.ceil(self.demand(pool, now) - _ROUNDING) + self.buffer
        demanded = max(pool.least, bool(pool.jobs), min(pool.most, demanded))
        most, least = self._kept.tell(demanded, now), -self._delayed.tell(-demanded, now)
        target = int(least if least > self._answer else most if most < self._answer else self._answer)
        if target != self._answer and now >= self._changed_s + self.cooldown_s:
            self._answer, self._changed_s = target, now
        return self._answer

    def wakeup(self, now: float) -> float | None:
        at_s = min(self._kept.changes_s, self._delayed.changes_s, self.look_again(now))
        if now < (over_s := self._changed_s + self.cooldown_s):
            at_s = min(at_s, over_s)
        return at_s if at_s < math.inf else None


_ROUNDING = 1e-9
"""The same seconds summed in another order differ in their last digits: no replica is started for those."""
