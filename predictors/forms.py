"""Fitted latency models as plain numbers: what `predictors.compiled` makes of them and `predictors.fit_cache` keeps."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from math import exp

from predictors.features import FEATURES

Seconds = Callable[[list[float]], float]
"""A row of features -> seconds per step."""

ROWS = FEATURES.index("rows")
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
