"""Fixed interval: no signal is looked at."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from policies.caching.bounded import BoundedReuse
from policies.caching.contract import Flags, Ints, Signals
from policies.parameters import StepCount
from traces.limits import Range


class FixedInterval(BoundedReuse):
    """Computes every ``every``-th step of a request whole and reuses every block in between.

    Args:
        every: steps from one that is computed to the next.

    Raises:
        ValueError: ``every`` below 2, or ``warmup`` below 1.
    """

    def __init__(self, every: Annotated[int, Range(2, 10_000, "steps", whole=True)] = 2, warmup: StepCount = 2) -> None:
        if every < 2:
            raise ValueError(f"every is {every}, expected a whole number of at least 2")
        super().__init__(warmup, every - 1)
        self.every = every

    def watches(self, block: int) -> bool:
        return False

    def reusable(self, signals: Signals, ages: Ints) -> Flags:
        return np.ones(len(signals.unit), dtype=np.bool_)
