"""What every reusing policy has in common: bounds on reuse, and the ages they need.

Changes of a block's input say little while a picture takes shape and cost most when nothing comes after to mend
them, so the first steps and the last one are computed; and no prediction is trusted for ever, so what is older than
``max_reuse`` steps is computed again.

The trap is what "older" means. A block that is computed from the reused output of the block before hands on old data,
however new its output is. Counting reuses block by block, PatchedServe lets data grow older with every block it goes
through. Here a unit carries the step that its data is of, and a bound that ends the reuse of one block ends it
downstream as well.
"""

from __future__ import annotations

import numpy as np

from policies.caching.contract import CachingPolicy, Flags, Ints, Signals
from policies.parameters import StepCount


class DataSteps:
    """The step that each unit's output of each block holds data of, by request: one array [requests, blocks, units]."""

    def __init__(self) -> None:
        self._steps: Ints = np.zeros((0, 0, 0), dtype=np.int64)
        self._rows: dict[str, int] = {}
        self._free: list[int] = []

    def ages(self, signals: Signals) -> Ints:
        """How many steps ago that was for what this block could reuse; 0 for what is not known."""
        rows = np.array([self._rows.get(name, -1) for name in signals.request_ids])[signals.request]
        ages = np.zeros(len(rows), dtype=np.int64)
        _, blocks, units = self._steps.shape
        if signals.block < blocks:
            known = (rows >= 0) & (signals.unit < units)
            ages[known] = signals.step[known] - self._steps[rows[known], signals.block, signals.unit[known]]
        return ages

    def record(self, signals: Signals, computed: Flags) -> None:
        """What was computed holds what the block before handed on; what was reused stays as old as it was."""
        for name in signals.request_ids:
            if name not in self._rows:
                self._rows[name] = self._free.pop() if self._free else len(self._rows)
        self._grow(len(self._rows) + len(self._free), signals.blocks, int(signals.unit.max(initial=-1)) + 1)
        rows = np.array([self._rows[name] for name in signals.request_ids])[signals.request]
        coming = self._steps[rows, signals.block - 1, signals.unit] if signals.block else signals.step
        at = (rows, signals.block, signals.unit)
        self._steps[at] = np.where(computed, coming, self._steps[at])

    def drop(self, request_id: str) -> None:
        """Forget a request."""
        row = self._rows.pop(request_id, None)
        if row is not None:
            self._steps[row] = 0
            self._free.append(row)

    def _grow(self, *wanted: int) -> None:
        have = self._steps.shape
        if any(w > h for w, h in zip(wanted, have, strict=True)):
            shape = tuple(h if w <= h else max(w, 2 * h) for w, h in zip(wanted, have, strict=True))
            grown = np.zeros(shape, dtype=np.int64)
            grown[: have[0], : have[1], : have[2]] = self._steps
            self._steps = grown


class BoundedReuse(CachingPolicy):
    """Base of the policies that reuse: they only say what they would reuse within the bounds.

    Args:
        warmup: steps of a request that are always computed, from its first.
        max_reuse: steps for which data may be reused before it is computed again (like PatchedServe's C, but through
            all blocks).

    Raises:
        ValueError: a bound below 1.
    """

    def __init__(self, warmup: StepCount = 2, max_reuse: StepCount = 4) -> None:
        for name, value in (("warmup", warmup), ("max_reuse", max_reuse)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected a whole number of at least 1")
        self.warmup = warmup
        self.max_reuse = max_reuse

    def reusable(self, signals: Signals, ages: Ints) -> Flags:
        """What the policy would reuse, [units]; ``ages`` are the steps since what each unit's output holds."""
        raise NotImplementedError

    def reset(self) -> None:
        self._data = DataSteps()

    def decide(self, signals: Signals) -> Flags:
        ages = self._data.ages(signals)
        within = (signals.step >= self.warmup) & (signals.step < signals.steps - 1) & (ages <= self.max_reuse)
        within &= np.isfinite(signals.input_change)
        return ~(within & self.reusable(signals, ages)) if within.any() else ~within

    def commit(self, signals: Signals, computed: Flags) -> None:
        self._data.record(signals, computed)

    def forget(self, request_id: str) -> None:
        self._data.drop(request_id)
