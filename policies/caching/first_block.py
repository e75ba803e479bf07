"""First-block cache: the first block is the probe, and the rest of the model follows it (FBCache, TeaCache)."""

from __future__ import annotations

import numpy as np

from policies.caching.bounded import BoundedReuse
from policies.caching.contract import Flags, Ints, Signals
from policies.parameters import StepCount, Weight


class FirstBlock(BoundedReuse):
    """Computes block 0 of every step; reuses all later blocks of a request when block 0 brought little new.

    Little: what it hands to block 1 has changed by less than ``threshold``, averaged over the units of the request.
    Unlike the systems this is known from, it decides for each request of a batch and not for the batch.

    Args:
        threshold: the mean change, relative and squared, from which on all blocks are computed.
    """

    def __init__(self, threshold: Weight = 0.1, warmup: StepCount = 2, max_reuse: StepCount = 4) -> None:
        super().__init__(warmup, max_reuse)
        self.threshold = threshold

    def reset(self) -> None:
        super().reset()
        self._reusing: dict[str, bool] = {}

    def watches(self, block: int) -> bool:
        return block == 1

    def reusable(self, signals: Signals, ages: Ints) -> Flags:
        if signals.block == 0:
            return np.zeros(len(signals.unit), dtype=np.bool_)
        if signals.block == 1:
            little = self._mean_change(signals) < self.threshold
        else:
            little = np.array([self._reusing.get(name, False) for name in signals.request_ids])
        return little[signals.request]

    def commit(self, signals: Signals, computed: Flags) -> None:
        super().commit(signals, computed)
        if signals.block == 1:
            count = len(signals.request_ids)
            again = np.bincount(signals.request, weights=computed, minlength=count)
            self._reusing.update(zip(signals.request_ids, (again == 0).tolist(), strict=True))

    def forget(self, request_id: str) -> None:
        super().forget(request_id)
        self._reusing.pop(request_id, None)

    @staticmethod
    def _mean_change(signals: Signals) -> np.ndarray:
        count = len(signals.request_ids)
        units = np.bincount(signals.request, minlength=count)
        return np.bincount(signals.request, weights=signals.input_change, minlength=count) / np.maximum(units, 1)
