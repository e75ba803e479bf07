"""Least frequently used, of late."""

from __future__ import annotations

from collections.abc import Sequence

from policies.weights.contract import WeightsPolicy
from traces.limits import PositiveSpan


class LFU(WeightsPolicy):
    """Gives up the checkpoint with the fewest requests started, those of long ago counting less.

    Counts outlive the checkpoint's stay, so that a popular one is known when it comes back.

    Args:
        half_life_s: seconds after which a start counts half.
    """

    def __init__(self, half_life_s: PositiveSpan = 600.0) -> None:
        self.half_life_s = half_life_s

    def reset(self) -> None:
        self._counts: dict[str, tuple[float, float]] = {}

    def used(self, checkpoint: str, gb: float, load_s: float, now: float) -> None:
        self._counts[checkpoint] = (1.0 + self._count(checkpoint, now), now)

    def victim(self, loaded: Sequence[str], now: float) -> str:
        return min(loaded, key=lambda checkpoint: self._count(checkpoint, now))

    def _count(self, checkpoint: str, now: float) -> float:
        count, at_s = self._counts.get(checkpoint, (0.0, now))
        return float(count * 0.5 ** ((now - at_s) / self.half_life_s))
