"""Least recently used."""

from __future__ import annotations

from collections.abc import Sequence

from policies.weights.contract import WeightsPolicy


class LRU(WeightsPolicy):
    """Gives up the checkpoint whose last request started longest ago; one without any counts from when it came."""

    def reset(self) -> None:
        self._used: dict[str, None] = {}

    def came(self, checkpoint: str, gb: float, load_s: float, now: float) -> None:
        self.used(checkpoint, gb, load_s, now)

    def used(self, checkpoint: str, gb: float, load_s: float, now: float) -> None:
        self._used.pop(checkpoint, None)
        self._used[checkpoint] = None

    def left(self, checkpoint: str) -> None:
        del self._used[checkpoint]

    def victim(self, loaded: Sequence[str], now: float) -> str:
        return next(checkpoint for checkpoint in self._used if checkpoint in loaded)
