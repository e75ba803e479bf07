"""The choice: by rows that were not seen, the same for the same data, and the first in doubt."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

from predictors.choice import BestByCrossValidation
from predictors.latency import NonNegativeLinear, auto, fitted, images_of_sizes
from predictors.launch_floor import LaunchFloor
from predictors.measurements import Measurements
from predictors.profile import Profile
from traces.composition import parse
from traces.geometry import geometry_of


def measurements(profile: Profile, executor: str = "whole") -> Measurements:
    return Measurements.of(profile.select("sd3", executor), "denoise", geometry_of("sd3"))


@pytest.mark.parametrize("candidates", [None, [("floor", LaunchFloor()), ("linear", NonNegativeLinear())]])
def test_follows_the_scikit_learn_contract(candidates: list[tuple[str, object]] | None) -> None:
    check_estimator(BestByCrossValidation(candidates), on_skip=None)


def test_images_of_sizes_are_those_of_the_composition(made_up: Profile) -> None:
    data = measurements(made_up, "patched")
    images = images_of_sizes(data.matrix)
    for composition, row in zip(data.compositions, images, strict=True):
        assert dict(composition) == {size: n for size, n in zip(data.features.sizes, row, strict=True) if n}


def test_a_launch_bound_model_gets_a_floor(launch_bound: Profile) -> None:
    data = measurements(launch_bound)
    found = fitted("auto", data.matrix, data.per_step)
    assert found.chosen_ in ("floor", "floor-gaussian")
    assert set(found.errors_) == {"floor-gaussian", "floor", "boosted", "linear"}
    for errors in found.errors_.values():
        assert set(errors) == {"composition", "size", "nothing"}
    assert all(found.errors_["floor"][way] < 0.2 * found.errors_["linear"][way] for way in ("composition", "size"))
    assert (found.predict(data.matrix) == found.estimator_.predict(data.matrix)).all()


def test_another_than_the_first_must_be_clearly_better() -> None:
    rng = np.random.default_rng(0)
    work = rng.uniform(0.1, 10, (60, 1))
    pair = [("linear", NonNegativeLinear()), ("floor", LaunchFloor())]
    flat = BestByCrossValidation(pair).fit(work, np.maximum(3.0, work[:, 0]))
    assert flat.chosen_ == "floor"
    features = np.c_[np.ones(60), work]
    straight = (3 + work[:, 0]) * rng.normal(1, 0.02, 60)
    for candidates in (pair, pair[::-1]):
        assert BestByCrossValidation(candidates).fit(features, straight).chosen_ == candidates[0][0]
    assert BestByCrossValidation(pair, margin=1.0).fit(work, np.maximum(3.0, work[:, 0])).chosen_ == "linear"


def test_nothing_that_is_tested_was_fitted_to(made_up: Profile) -> None:
    data = measurements(made_up, "patched")
    ways = dict(auto()._ways(images_of_sizes(data.matrix)))
    assert set(ways) == {"composition"}  # two sizes are too few to hold one out
    for train, test in ways["composition"]:
        assert not {data.compositions[at] for at in train} & {data.compositions[at] for at in test}


def test_sizes_are_held_out_one_at_a_time(launch_bound: Profile) -> None:
    data = measurements(launch_bound)
    folds = dict(auto()._ways(images_of_sizes(data.matrix)))["size"]
    assert len(folds) == 3
    for train, test in folds:
        held_out = {size for at in test for size, _ in data.compositions[at]}
        assert len(held_out) == 1
        assert not held_out & {size for at in train for size, _ in data.compositions[at]}


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_with_too_little_to_hold_out_it_is_the_first(made_up: Profile, rows: int) -> None:
    data = measurements(made_up)
    few = fitted("auto", data.matrix[:rows], data.per_step[:rows])
    assert few.chosen_ == "floor-gaussian"
    assert few.errors_ == {}
    asked = data.features.matrix([parse("3@512x512")], [True])
    assert 0 < few.predict(asked)[0] < np.inf
