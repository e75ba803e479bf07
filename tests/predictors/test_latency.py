"""Latency models: scikit-learn's contract, and that the compiled forms give the same seconds."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from predictors.compiled import PredictOne, compile_model
from predictors.gaussian import GaussianResidual
from predictors.latency import LATENCY_MODELS, BoostedResidual, NonNegativeLinear, fitted
from predictors.launch_floor import LaunchFloor
from predictors.measurements import Measurements
from predictors.profile import Profile
from traces.composition import parse
from traces.errors import BadInput
from traces.geometry import geometry_of

ASKED = ["1@512x512", "3@512x512+2@1024x1024", "1@256x256", "20@1024x1024", "1@320x512+2@768x1024"]


@pytest.mark.parametrize(
    "estimator", [NonNegativeLinear(), BoostedResidual(trees=10), LaunchFloor(), GaussianResidual()]
)
def test_follows_the_scikit_learn_contract(estimator: object) -> None:
    check_estimator(estimator, on_skip=None)


def test_linear_recovers_costs_and_none_is_negative() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 10, (40, 4))
    costs = np.array([0.5, 0.0, 2e-4, 3.0])
    found = NonNegativeLinear().fit(features, features @ costs).coef_
    assert found == pytest.approx(costs, abs=1e-6)
    falling = NonNegativeLinear().fit(features, 100 - features[:, 0])
    assert (falling.coef_ >= 0).all()
    only = NonNegativeLinear(columns=(3,)).fit(features, features @ costs)
    assert only.coef_[:3].tolist() == [0, 0, 0]


def test_of_columns_that_look_alike_the_least_penalised_gets_the_cost() -> None:
    images = np.array([[1.0], [2.0], [5.0]])
    alike = images * [1.0, 4096.0, 1e7]
    seconds = 0.7 * images[:, 0]
    for best in range(3):
        penalties = [float(column != best) for column in range(3)]
        costs = NonNegativeLinear(penalties=penalties).fit(alike, seconds).coef_
        assert costs[best] * alike[0, best] == pytest.approx(0.7)
        assert np.delete(costs, best) * np.delete(alike[0], best) == pytest.approx([0, 0], abs=1e-5)


def test_linear_minimises_the_relative_error() -> None:
    ones = np.ones((2, 1))
    constant = NonNegativeLinear(huber=np.inf).fit(ones, [1.0, 10.0]).coef_[0]
    assert constant == pytest.approx((1 + 0.1) / (1 + 0.01), rel=1e-6)  # sum(1/y) / sum(1/y^2)


def test_linear_is_not_bent_by_outliers() -> None:
    rng = np.random.default_rng(0)
    features = np.column_stack([np.ones(60), rng.uniform(1, 10, 60)])
    seconds = features @ [1.0, 2.0] * rng.normal(1, 0.01, 60)
    seconds[::10] *= 2
    robust, plain = (NonNegativeLinear(huber=huber).fit(features, seconds).coef_ for huber in (0.03, np.inf))
    assert robust == pytest.approx([1.0, 2.0], rel=0.03)
    assert np.abs(plain / [1.0, 2.0] - 1).max() > 0.03


def test_what_the_trees_learned_is_about_the_measured_sizes(made_up: Profile) -> None:
    data = Measurements.of(made_up.select("sd3", "whole"), "denoise", geometry_of("sd3"))
    bent = data.per_step * np.where(np.arange(len(data.per_step)) % 3, 1.0, 1.5)
    boosted = fitted("boosted", data.matrix, bent)
    asked = data.features.matrix([parse("2@512x512"), parse("2@640x640")], [True, True])
    assert boosted.predict(asked)[1] == boosted.linear_.predict(asked)[1]
    assert boosted.predict(asked)[0] != boosted.linear_.predict(asked)[0]


def test_the_papers_features_are_requests_a_size_sizes_and_patches(made_up: Profile) -> None:
    data = Measurements.of(made_up.select("sd3", "patched"), "denoise", geometry_of("sd3"))
    form = compile_model(fitted("paper-linear", data.matrix, data.per_step))
    used = {data.features.columns[column] for column, _ in form.terms}
    assert used <= {"intercept", "sizes", "patches", "512x512x1", "1024x1024x1"}


@pytest.mark.parametrize("name", sorted(LATENCY_MODELS))
@pytest.mark.parametrize("executor", ["whole", "patched"])
def test_compiled_equals_predict(made_up: Profile, name: str, executor: str) -> None:
    data = Measurements.of(made_up.select("sd3", executor), "denoise", geometry_of("sd3"))
    estimator = fitted(name, data.matrix, data.per_step)
    compiled = compile_model(estimator)
    asked = [*map(parse, ASKED), *data.compositions]
    for guided in (True, False):
        matrix = data.features.matrix(asked, [guided] * len(asked))
        values = [compiled(row) for row in matrix.tolist()]
        assert all(type(value) is float for value in values)
        assert values == pytest.approx(estimator.predict(matrix), rel=1e-12)
    assert not isinstance(compiled, PredictOne)
    assert pickle.loads(pickle.dumps(compiled))(data.matrix[0].tolist()) == compiled(data.matrix[0].tolist())


@pytest.mark.parametrize("name", sorted(LATENCY_MODELS))
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_measurements_are_enough(made_up: Profile, name: str, rows: int) -> None:
    data = Measurements.of(made_up.select("sd3", "whole"), "denoise", geometry_of("sd3"))
    predicted = fitted(name, data.matrix[:rows], data.per_step[:rows]).predict(data.matrix)
    assert np.isfinite(predicted).all()
    assert (predicted > 0).all()


def test_any_other_estimator_is_asked_by_its_predict() -> None:
    features = np.ones((3, 2))
    for estimator in (DummyRegressor(), make_pipeline(DummyRegressor())):
        assert compile_model(estimator.fit(features, [1.0, 2.0, 3.0]))([1.0, 1.0]) == 2.0


def test_unknown_names_are_refused() -> None:
    with pytest.raises(BadInput, match=r"unknown latency model 'tree'; known: .*floor, boosted, linear, paper-l"):
        fitted("tree", np.ones((1, 1)), np.ones(1))
