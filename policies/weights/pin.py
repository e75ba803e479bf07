"""Some weights stay."""

from __future__ import annotations

from collections.abc import Sequence

from policies.weights.lru import LRU


class Pin(LRU):
    """Least recently used, but the checkpoints named go only when nothing else is left to give up.

    Args:
        checkpoints: those that stay.
    """

    def __init__(self, checkpoints: list[str]) -> None:
        if isinstance(checkpoints, str):
            raise ValueError(f'checkpoints is {checkpoints!r}, expected a list like ["{checkpoints}"]')
        self.checkpoints = tuple(checkpoints)

    def victim(self, loaded: Sequence[str], now: float) -> str:
        others = [checkpoint for checkpoint in loaded if checkpoint not in self.checkpoints]
        return super().victim(others or loaded, now)
