"""Fitted latency models as plain numbers: what `predictors.compiled` makes of them and `predictors.fit_cache` keeps."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import exp, log

import numpy as np
import numpy.typing as npt

from predictors.features import FEATURES

Seconds = Callable[[list[float]], float]
"""A row of features -> seconds per step."""

ROWS = FEATURES.index("rows")
_TOKENS, _TOKENS_SQUARED, _SIZES, _PATCHES, _CACHED, _COMPUTED = map(
    FEATURES.index, ("tokens", "tokens_squared", "sizes", "patches", "cached_patches", "computed")
)
SMALLEST_SECONDS = 1e-12
"""Keeps the logarithm finite for a row that the linear part thinks is free."""


@dataclass(frozen=True, slots=True)
class LinearForm:
    """A dot product over the columns that cost something."""

    terms: tuple[tuple[int, float], ...]

    def __call__(self, row: list[float]) -> float:
        return sum([cost * row[column] for column, cost in self.terms])


Tree = tuple[list[int], list[int], list[int], list[float], list[float]]
"""Left child, right child, column, threshold and value of each node; the children of a leaf are -1."""


@dataclass(frozen=True, slots=True)
class BoostedForm:
    """A linear form times the exponential of walked trees, by the share of rows that have one of ``sizes``."""

    linear: LinearForm
    columns: tuple[int, ...]
    sizes: tuple[int, ...] | None
    start: float
    trees: tuple[Tree, ...]

    def __call__(self, row: list[float]) -> float:
        # Trees compare features rounded to 32 bits, as scikit-learn's do.
        seen = array("f", [row[column] for column in self.columns]).tolist()
        log_ratio = self.start
        for left, right, column, threshold, value in self.trees:
            node = 0
            while (child := left[node]) >= 0:
                node = child if seen[column[node]] <= threshold[node] else right[node]
            log_ratio += value[node]
        if self.sizes is not None:
            log_ratio *= sum([row[column] for column in self.sizes]) / max(row[ROWS], 1e-12)
        return max(self.linear(row), SMALLEST_SECONDS) * exp(log_ratio)


@dataclass(frozen=True, slots=True)
class FloorForm:
    """The smooth maximum of a floor and work: (floor^p + work^p)^(1/p), p the sharpness."""

    constant: float
    floor: LinearForm
    work: LinearForm
    sharpness: float

    def __call__(self, row: list[float]) -> float:
        floor, work = max(self.constant + self.floor(row), SMALLEST_SECONDS), self.work(row)
        larger, smaller = (floor, work) if floor > work else (work, floor)
        seconds: float = larger * (1.0 + (smaller / larger) ** self.sharpness) ** (1.0 / self.sharpness)
        return seconds


def batch_coordinates(row: list[float]) -> list[float]:
    """Where a batch lies among others: a distance of 1 along a coordinate is one over which seconds may behave anew.

    Logarithms of rows, of tokens a row, of how unequal its images are, of its distinct sizes, of patches a row, and of
    the share that a cache computes; and whether there is a cache.
    """
    rows, computed = max(row[ROWS], 1e-12), max(row[_COMPUTED], 1e-12)
    tokens = max(row[_TOKENS] / (rows * computed), 1e-12)
    squared = max(row[_TOKENS_SQUARED] / (rows * computed), 1e-24)
    return [
        log(rows),
        log(tokens),
        log(squared / tokens**2) / 0.7,
        log(max(row[_SIZES], 1e-12)) / 0.7,
        log(max(row[_PATCHES] / rows, 1e-12)),
        log(computed) / 0.7,
        1.0 if row[_CACHED] > 0 else 0.0,
    ]


@dataclass(frozen=True)
class GaussianForm:
    """A floor times the exponential of a Gaussian process over `batch_coordinates`, see `GaussianResidual`.

    ``wide`` and ``near`` are the variance and the reach of the process's two kernels; the first coordinate counts no
    further than ``most``, and no less than ``least``.
    """

    base: FloorForm
    centres: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    wide: tuple[float, float]
    near: tuple[float, float]
    least: float
    most: float

    @cached_property
    def _centres(self) -> npt.NDArray[np.float64]:
        return np.array(self.centres)

    @cached_property
    def _weights(self) -> npt.NDArray[np.float64]:
        return np.array(self.weights)

    def __call__(self, row: list[float]) -> float:
        at = batch_coordinates(row)
        at[0] = min(max(at[0], self.least), self.most)
        away = self._centres - at
        log_ratio = self._weights @ kernel((away * away).sum(axis=1), self.wide, self.near)
        return self.base(row) * exp(float(log_ratio))


def kernel(
    squared: npt.NDArray[np.float64], wide: tuple[float, float], near: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Covariances of batches at these squared distances: two squared exponentials, (variance, reach) each."""
    total = np.zeros_like(squared)
    for variance, reach in (wide, near):
        if variance > 0:
            total += variance * np.exp(squared / (-2.0 * reach * reach))
    return total
