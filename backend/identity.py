"""Keys by identity."""

from __future__ import annotations

from typing import Any


class Itself:
    """A key that equals only keys of the very same object.

    It keeps the object alive: a bare ``id`` may come to mean another object once the first is gone.

    Args:
        value: any object; it need not be hashable.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
