"""Fitted latency models as plain Python, for one composition at a time.

A one-row ``predict`` of scikit-learn spends most of its time on validation; a simulation asks thousands of
times. These forms give the same seconds to within rounding, can be pickled, and return plain floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from math import exp
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from predictors.choice import BestByCrossValidation
from predictors.forms import BoostedForm, FloorForm, GaussianForm, LinearForm, Seconds, batch_coordinates
from predictors.gaussian import GaussianResidual
from predictors.latency import BoostedResidual, NonNegativeLinear
from predictors.launch_floor import LaunchFloor
from predictors.validation import Floats


@dataclass(frozen=True, slots=True)
class PredictOne:
    """Any estimator, by its own ``predict``: right, but slow."""

    estimator: Any

    def __call__(self, row: list[float]) -> float:
        return float(self.estimator.predict(np.array([row]))[0])


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
    for tree in (regressor.tree_ for regressor in boosting.trees_):
        value = boosting.learning_rate * tree.value[:, 0, 0]
        nodes = (tree.children_left, tree.children_right, tree.feature, tree.threshold, value)
        trees.append(tuple(column.tolist() for column in nodes))
    sizes = None if estimator.sizes_ is None else tuple(estimator.sizes_)
    return BoostedForm(_linear_form(estimator.linear_), tuple(estimator.columns_), sizes, boosting.start_, tuple(trees))


@compile_model.register
def _(estimator: LaunchFloor) -> Seconds:
    return _floor_form(estimator)


@compile_model.register
def _(estimator: GaussianResidual) -> Seconds:
    """The form of `predictors.latency.floor_gaussian`; any other base or coordinates use their ``predict``."""
    base = estimator.base_
    if not isinstance(base, LaunchFloor) or estimator.coordinates is not batch_coordinates:
        return PredictOne(estimator)
    process = estimator.process_
    return GaussianForm(
        base=_floor_form(base),
        centres=tuple(map(tuple, process.centres.tolist())),
        weights=tuple(process.weights.tolist()),
        wide=process.wide,
        near=process.near,
        least=process.least,
        most=process.most,
    )


@compile_model.register
def _(estimator: BestByCrossValidation) -> Seconds:
    return compile_model(estimator.estimator_)


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
    return _terms(estimator.coef_)


def _floor_form(estimator: LaunchFloor) -> FloorForm:
    return FloorForm(estimator.constant_, _terms(estimator.floor_), _terms(estimator.work_), estimator.sharpness_)


def _terms(costs: Floats) -> LinearForm:
    return LinearForm(tuple((column, cost) for column, cost in enumerate(costs.tolist()) if cost > 0))
