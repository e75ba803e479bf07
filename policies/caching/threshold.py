"""Plain threshold on what comes in."""

from __future__ import annotations

import numpy as np

from policies.caching.bounded import BoundedReuse
from policies.caching.contract import Flags, Ints, Signals
from policies.parameters import StepCount, Weight


class Threshold(BoundedReuse):
    """Reuses a unit while what comes into the block, skips included, has changed less than ``threshold``.

    The signals are changes since the reused output was computed, so small changes add up from step to step until the
    unit is computed.

    Args:
        threshold: the change, relative and squared, from which on a unit is computed.
    """

    def __init__(self, threshold: Weight = 0.02, warmup: StepCount = 2, max_reuse: StepCount = 4) -> None:
        super().__init__(warmup, max_reuse)
        self.threshold = threshold

    def reusable(self, signals: Signals, ages: Ints) -> Flags:
        return np.maximum(signals.input_change, signals.skip_change) < self.threshold
