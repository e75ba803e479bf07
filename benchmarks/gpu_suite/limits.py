"""How often a point is timed: what the plan counts with and what the timer keeps to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor


@dataclass(frozen=True, slots=True)
class Limits:
    """How often a function is timed.

    Attributes:
        warmups: calls that are not counted: enough for kernels to be compiled and for a forward that is recorded at all
            (see `backend.kernels.graphs`) to be replayed.
        target_s: about how long all repeats take together,
        least, most: but no fewer and no more than so many,
        cap_s: and none starts when they have taken so long, were they one alone.
    """

    warmups: int = 4
    target_s: float = 0.5
    least: int = 5
    most: int = 30
    cap_s: float = 2.0

    def warm(self, seconds: float) -> int:
        """How many calls of a function that takes so long come before: of slow ones two are enough."""
        return min(self.warmups, max(2, 1 + floor(self.target_s / seconds))) if seconds > 0 else self.warmups

    def repeats(self, seconds: float) -> int:
        """How many repeats are planned of a function that takes so long."""
        if seconds <= 0:
            return self.most
        wanted = min(max(ceil(self.target_s / seconds), self.least), self.most)
        return max(1, min(wanted, floor(self.cap_s / seconds) + 1))

    def over(self, spent_s: float, repeats: int) -> bool:
        """Whether no further repeat starts after so many."""
        return repeats > 0 and spent_s >= self.cap_s

    def of_ways(self, ways: int) -> Limits:
        """For rounds of so many functions, whose seconds are added up. Who compares them has run them before, so one
        call of each is enough to warm up."""
        return replace(self, warmups=1, target_s=1.5 * self.target_s, cap_s=1.5 * self.cap_s) if ways > 1 else self


DEVICE = Limits()
SMOKE = Limits(warmups=1, target_s=0.0, least=2, most=2, cap_s=5.0)
