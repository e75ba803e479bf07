"""What was used last."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Keeps the values that were used last.

    Args:
        limit: how many; more make it forget those that were not used for longest.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: dict[Key, Value] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Value | None:
        """The value, which is used; None: it is not kept."""
        if key not in self._kept:
            return None
        value = self._kept[key] = self._kept.pop(key)
        return value

    def keep(self, key: Key, value: Value) -> None:
        """A value that is used now."""
        self._kept.pop(key, None)
        self._kept[key] = value
        if len(self._kept) > self.limit:
            del self._kept[next(iter(self._kept))]

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
