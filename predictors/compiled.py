"""Fitted latency models as plain Python, for one composition at a time.

A one-row ``predict`` of scikit-learn spends most of its time on validation; a simulation asks thousands of
times. These forms give the same seconds to within rounding, can be pickled, and return plain floats.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from math import exp
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from predictors.latency import ROWS, SMALLEST_SECONDS, BoostedResidual, Floats, NonNegativeLinear

Seconds = Callable[[list[float]], float]
"""A row of features -> seconds per step."""


@dataclass(frozen=True, slots=True)
class PredictOne:
    """Any estimator, by its own ``predict``: right, but slow."""

    estimator: Any

    def __call__(self, row: list[float]) -> float:
        return float(self.estimator.predict(np.array([row]))[0])


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


@dataclass(frozen=True, slots=True, eq=False)
class MlpForm:
    """Standardised columns through rectified layers; the last gives the logarithm of the seconds."""

    columns: tuple[int, ...]
    mean: Floats
    scale: Floats
    layers: tuple[tuple[Floats, Floats], ...]

    def __call__(self, row: list[float]) -> float:
        values = (np.array([row[column] for column in self.columns]) - self.mean) / self.scale
        *hidden, (weights, bias) = self.layers
        for hidden_weights, hidden_bias in hidden:
            values = np.maximum(values @ hidden_weights + hidden_bias, 0.0)
        return exp(float((values @ weights + bias)[0]))


@singledispatch
def compile_model(estimator: Any) -> Seconds:
    """The fast form of a fitted latency model; equal to its ``predict`` to 1e-9 relative."""
    return PredictOne(estimator)


@compile_model.register
def _(estimator: NonNegativeLinear) -> Seconds:
    return _linear_form(estimator)


@compile_model.register
def _(estimator: BoostedResidual) -> Seconds:
    boosting = estimator.trees_
    trees = []
    for tree in (regressor.tree_ for regressor in boosting.estimators_[:, 0]):
        value = boosting.learning_rate * tree.value[:, 0, 0]
        nodes = (tree.children_left, tree.children_right, tree.feature, tree.threshold, value)
        trees.append(tuple(column.tolist() for column in nodes))
    start = float(np.ravel(boosting.init_.constant_)[0])
    sizes = None if estimator.sizes_ is None else tuple(estimator.sizes_)
    return BoostedForm(_linear_form(estimator.linear_), tuple(estimator.columns_), sizes, start, tuple(trees))


@compile_model.register
def _(estimator: Pipeline) -> Seconds:
    """The forms of `predictors.latency.paper_mlp` and `paper_linear`; any other pipeline uses its ``predict``."""
    if list(estimator.named_steps) == ["features", "linear"]:
        (_, _, columns) = estimator.named_steps["features"].transformers_[0]
        form = _linear_form(estimator.named_steps["linear"])
        return LinearForm(tuple((columns[column], cost) for column, cost in form.terms))
    if list(estimator.named_steps) != ["features", "mlp"]:
        return PredictOne(estimator)
    (_, scaler, columns) = estimator.named_steps["features"].transformers_[0]
    network = estimator.named_steps["mlp"].regressor_
    layers = tuple(zip(network.coefs_, network.intercepts_, strict=True))
    return MlpForm(tuple(columns), scaler.mean_, scaler.scale_, layers)


def _linear_form(estimator: NonNegativeLinear) -> LinearForm:
    costs = enumerate(estimator.coef_.tolist())
    return LinearForm(tuple((column, cost) for column, cost in costs if cost > 0))
