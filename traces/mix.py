"""A mix: values and how often each is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from traces.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class Mix(Generic[T]):
    """Values with weights. Weights need not sum to 1.

    Raises:
        BadInput: no values, counts that differ, a weight below 0 or not finite, or no weight above 0.
    """

    values: tuple[T, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or len(self.values) != len(self.weights):
            raise BadInput(
                f"a mix of {len(self.values)} values and {len(self.weights)} weights, "
                "expected as many of each, at least 1"
            )
        for value, weight in zip(self.values, self.weights, strict=True):
            if not (weight >= 0 and math.isfinite(weight)):
                raise BadInput(f"weight of {value} is {weight}, expected a number of at least 0")
        total = sum(self.weights)
        if not (total > 0 and math.isfinite(total)):
            raise BadInput(f"the weights of a mix sum to {total}, expected a finite sum above 0")

    @classmethod
    def of(cls, counts: Mapping[T, int]) -> Mix[T]:
        """The mix in which each value was counted so often."""
        return cls(tuple(counts), tuple(float(count) for count in counts.values()))

    def draw(self, count: int, rng: np.random.Generator) -> list[T]:
        """``count`` values drawn independently by weight."""
        share = np.asarray(self.weights) / sum(self.weights)
        return [self.values[index] for index in rng.choice(len(self.values), size=count, p=share)]


def parse_counts(text: str, field: str) -> Mix[int]:
    """A mix of whole numbers spelled ``30`` or ``20:1,30:3`` (value:weight).

    Args:
        text: the spelling.
        field: what the numbers are, for messages.

    Raises:
        BadInput: another spelling, or a value below 1.
    """
    values, weights = [], []
    for part in text.split(","):
        value, weight = split_weight(part, text, field)
        if not _is_count(value):
            raise BadInput(f"{field} {text!r}: {part.strip()!r} is not like '30' or '30:2' (a whole number[:weight])")
        values.append(int(value))
        weights.append(weight)
    return Mix(tuple(values), tuple(weights))


def parse_count(text: str, field: str) -> int:
    """The whole number that ``text`` spells.

    Args:
        text: the spelling.
        field: what the number is, for messages.

    Raises:
        BadInput: another spelling, or a value below 1.
    """
    if not _is_count(text):
        raise BadInput(f"{field} {text!r} is not like '30' (a whole number of at least 1)")
    return int(text)


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= 18 and int(text) >= 1


def split_weight(part: str, text: str, field: str) -> tuple[str, float]:
    """``value:weight`` in two; the weight is 1 where none is given.

    Raises:
        BadInput: the weight is no number.
    """
    value, colon, weight = part.strip().partition(":")
    if not colon:
        return value, 1.0
    try:
        return value, float(weight)
    except ValueError:
        raise BadInput(f"{field} {text!r}: weight {weight!r} in {part.strip()!r} is not a number") from None
