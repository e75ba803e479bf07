"""What was used last."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Keeps the values that were used last; more make it forget those that were not used for longest.

    Args:
        limit: how many.
        limit_bytes: what they may take together, as far as that is said; None: any.
    """

    def __init__(self, limit: int, limit_bytes: int | None = None) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._kept: dict[Key, tuple[Value, int]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Value | None:
        """The value, which is used; None: it is not kept."""
        if key not in self._kept:
            return None
        kept = self._kept[key] = self._kept.pop(key)
        return kept[0]

    def keep(self, key: Key, value: Value, size_bytes: int = 0) -> None:
        """A value that is used now, and what it takes; one that takes more than there is room for is not kept."""
        self._forget(key)
        self._kept[key] = value, size_bytes
        self.held_bytes += size_bytes
        while len(self._kept) > self.limit or (self.limit_bytes is not None and self.held_bytes > self.limit_bytes):
            self._forget(key if size_bytes > (self.limit_bytes or size_bytes) else next(iter(self._kept)))

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self.held_bytes = 0

    def _forget(self, key: Key) -> None:
        if key in self._kept:
            self.held_bytes -= self._kept.pop(key)[1]
