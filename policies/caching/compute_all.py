"""No cache."""

from __future__ import annotations

import numpy as np

from policies.caching.contract import CachingPolicy, Flags, Signals


class ComputeAll(CachingPolicy):
    """Computes every unit at every step: exact, and what every other policy is compared with."""

    def watches(self, block: int) -> bool:
        return False

    def decide(self, signals: Signals) -> Flags:
        return np.ones(len(signals.unit), dtype=np.bool_)
