"""The floor: found where there is one, a sum where there is none, and growing wherever it is asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictors.latency import fitted
from predictors.launch_floor import LaunchFloor
from predictors.measurements import Measurements
from predictors.profile import Profile
from tests.examples_tried import examples
from traces.composition import Composition, composition_of, parse
from traces.geometry import geometry_of

from .conftest import launch_bound_seconds

SIDES = st.integers(4, 128).map(lambda n: 16 * n)
BATCHES = st.lists(st.tuples(st.tuples(SIDES, SIDES, st.just(1)), st.integers(1, 40)), min_size=1, max_size=4)


def measurements(profile: Profile, executor: str = "whole") -> Measurements:
    return Measurements.of(profile.select("sd3", executor), "denoise", geometry_of("sd3"))


def test_recovers_floor_work_and_sharpness() -> None:
    rng = np.random.default_rng(0)
    work = rng.uniform(0.1, 10, (200, 1))
    for sharpness in (1.0, 2.0, 5.0):
        seconds = (3.0**sharpness + (2 * work[:, 0]) ** sharpness) ** (1 / sharpness)
        found = LaunchFloor().fit(work, seconds)
        assert found.predict(work) == pytest.approx(seconds, rel=0.005)
        assert found.constant_ == pytest.approx(3, rel=0.02)
        assert found.work_[0] == pytest.approx(2, rel=0.02)
        assert found.sharpness_ == pytest.approx(sharpness, rel=0.1)


def test_is_not_bent_by_outliers() -> None:
    rng = np.random.default_rng(0)
    work = rng.uniform(0.1, 10, (60, 1))
    true = np.maximum(3.0, 2 * work[:, 0])
    seconds = true * rng.normal(1, 0.01, 60)
    seconds[::10] *= 2
    assert LaunchFloor().fit(work, seconds).predict(work) == pytest.approx(true, rel=0.03)


def test_of_columns_that_look_alike_one_gets_the_cost() -> None:
    images = np.arange(1.0, 9.0)[:, None]
    found = LaunchFloor().fit(images * [1.0, 4096.0, 1e7], 0.1 + 0.7 * images[:, 0])
    shares = found.work_ * [1.0, 4096.0, 1e7]
    assert shares.sum() == pytest.approx(0.7, rel=0.02)
    assert LaunchFloor(work=(1,)).fit(images * [1.0, 4096.0, 1e7], 0.7 * images[:, 0]).work_[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("latency_model", ["floor", "floor-gaussian"])
def test_one_image_that_takes_as_long_as_five_is_met(launch_bound: Profile, latency_model: str) -> None:
    data = measurements(launch_bound)
    estimator = fitted(latency_model, data.matrix, data.per_step)
    asked = {(side, n): parse(f"{n}@{side}x{side}") for side in (512, 768, 1024) for n in (1, 2, 5, 7, 20)}
    predicted = estimator.predict(data.features.matrix(asked.values(), [True] * len(asked)))
    true = [launch_bound_seconds(2 * n * (side // 16) ** 2) for side, n in asked]
    assert predicted == pytest.approx(true, rel=0.03)
    linear = fitted("linear", data.matrix, data.per_step).predict(data.features.matrix([asked[512, 1]], [True]))[0]
    assert linear < 0.7 * launch_bound_seconds(2 * 32**2)  # a sum of both cannot


@pytest.mark.parametrize("latency_model", ["floor", "floor-gaussian"])
def test_an_unmeasured_size_is_met(launch_bound: Profile, latency_model: str) -> None:
    data = measurements(launch_bound)
    for side in (512, 768, 1024):
        held_out = data.frame["composition"].str.endswith(f"@{side}x{side}").to_numpy()
        estimator = fitted(latency_model, data.matrix[~held_out], data.per_step[~held_out])
        errors = estimator.predict(data.matrix[held_out]) / data.per_step[held_out] - 1
        assert np.abs(errors).mean() < 0.03


@pytest.mark.parametrize("latency_model", ["floor", "floor-gaussian"])
@pytest.mark.parametrize("executor", ["whole", "patched"])
def test_positive_and_growing_with_the_batch_beyond_what_was_measured(
    made_up: Profile, latency_model: str, executor: str
) -> None:
    data = measurements(made_up, executor)
    estimator = fitted(latency_model, data.matrix, data.per_step)

    @given(BATCHES.map(composition_of), st.integers(2, 5), st.floats(0, 1))
    @settings(max_examples=examples(20), deadline=None)
    def holds(batch: Composition, times: int, guided: float) -> None:
        most = max(8, *(n for _, n in batch))
        beyond = [composition_of((size, n * most * k) for size, n in batch) for k in (1, times)]
        less, more = estimator.predict(data.features.matrix(beyond, [guided] * 2))
        assert 0 < less < more

    holds()
