"""What every reusing policy has in common: bounds on reuse, and the counts they need.

Changes of a block's input say little while a picture takes shape and cost most when nothing comes after to mend
them, so the first steps and the last one are computed; and no prediction is trusted for ever, so a unit that was
reused ``max_reuse`` times in a row is computed again.
"""

from __future__ import annotations

import numpy as np

from policies.caching.contract import CachingPolicy, Flags, Ints, Signals


class ReuseCounts:
    """Consecutive reuses of every unit at every block, by request: one array [requests, blocks, units]."""

    def __init__(self) -> None:
        self._counts: Ints = np.zeros((0, 0, 0), dtype=np.int64)
        self._rows: dict[str, int] = {}
        self._free: list[int] = []

    def of(self, signals: Signals) -> Ints:
        """How often each unit was reused in a row at this block; 0 for what is not known."""
        rows = np.array([self._rows.get(name, -1) for name in signals.request_ids])[signals.request]
        counts = np.zeros(len(rows), dtype=np.int64)
        _, blocks, units = self._counts.shape
        if signals.block < blocks:
            known = (rows >= 0) & (signals.unit < units)
            counts[known] = self._counts[rows[known], signals.block, signals.unit[known]]
        return counts

    def record(self, signals: Signals, computed: Flags) -> None:
        """Count one more reuse of what was reused, and begin again with what was computed."""
        for name in signals.request_ids:
            if name not in self._rows:
                self._rows[name] = self._free.pop() if self._free else len(self._rows)
        self._grow(len(self._rows) + len(self._free), signals.blocks, int(signals.unit.max(initial=-1)) + 1)
        rows = np.array([self._rows[name] for name in signals.request_ids])[signals.request]
        at = (rows, signals.block, signals.unit)
        self._counts[at] = np.where(computed, 0, self._counts[at] + 1)

    def drop(self, request_id: str) -> None:
        """Forget a request."""
        row = self._rows.pop(request_id, None)
        if row is not None:
            self._counts[row] = 0
            self._free.append(row)

    def _grow(self, *wanted: int) -> None:
        have = self._counts.shape
        if any(w > h for w, h in zip(wanted, have, strict=True)):
            shape = tuple(h if w <= h else max(w, 2 * h) for w, h in zip(wanted, have, strict=True))
            grown = np.zeros(shape, dtype=np.int64)
            grown[: have[0], : have[1], : have[2]] = self._counts
            self._counts = grown


class BoundedReuse(CachingPolicy):
    """Base of the policies that reuse: they only say what they would reuse within the bounds.

    Args:
        warmup: steps of a request that are always computed, from its first.
        max_reuse: reuses of one unit at one block in a row before it is computed again (PatchedServe's C).

    Raises:
        ValueError: a bound below 1.
    """

    def __init__(self, warmup: int = 2, max_reuse: int = 4) -> None:
        for name, value in (("warmup", warmup), ("max_reuse", max_reuse)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected a whole number of at least 1")
        self.warmup = warmup
        self.max_reuse = max_reuse

    def reusable(self, signals: Signals, reuses: Ints) -> Flags:
        """What the policy would reuse, [units]; ``reuses`` counts each unit's reuses in a row so far."""
        raise NotImplementedError

    def reset(self) -> None:
        self._reuses = ReuseCounts()

    def decide(self, signals: Signals) -> Flags:
        reuses = self._reuses.of(signals)
        within = (signals.step >= self.warmup) & (signals.step < signals.steps - 1) & (reuses < self.max_reuse)
        within &= np.isfinite(signals.input_change)
        return ~(within & self.reusable(signals, reuses)) if within.any() else ~within

    def commit(self, signals: Signals, computed: Flags) -> None:
        self._reuses.record(signals, computed)

    def forget(self, request_id: str) -> None:
        self._reuses.drop(request_id)
