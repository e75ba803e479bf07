"""No cache."""

from __future__ import annotations

from collections.abc import Sequence

from policies.caching.contract import CachingPolicy, Signal


class ComputeAll(CachingPolicy):
    """Computes every unit at every step: exact, and what every other policy is compared with."""

    def decide(self, signals: Sequence[Signal]) -> list[bool]:
        return [True] * len(signals)
