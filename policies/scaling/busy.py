"""How many replicas were busy of late, on average."""

from __future__ import annotations

import math
from collections import deque

_LOOKS = 8
"""In a window, while what was busy within it changes."""


class BusyMean:
    """The mean over a window of a number of replicas that holds until the next is told.

    Args:
        window_s: seconds.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._busy = 0
        self._since_s = -math.inf
        self._before: deque[tuple[float, float, int]] = deque()  # (from, to, replicas busy), in order

    def tell(self, busy: int, now: float) -> float:
        """From now on so many are busy; the mean of what was, or this where nothing is known."""
        before, begin_s = self._before, now - self._window_s
        if now > self._since_s:
            if self._since_s > -math.inf:
                before.append((self._since_s, now, self._busy))
            self._since_s = now
        self._busy = busy
        while before and before[0][1] <= begin_s:
            before.popleft()
        seconds = [(to - max(since, begin_s), of_span) for since, to, of_span in before]
        known_s = sum([spent_s for spent_s, _ in seconds])
        return sum([spent_s * of_span for spent_s, of_span in seconds]) / known_s if known_s else float(busy)

    def look_again(self, now: float) -> float:
        """When the mean has changed although nothing happened, seconds; infinity: never."""
        changes = any(busy != self._busy for _, _, busy in self._before)
        return now + self._window_s / _LOOKS if changes else math.inf
