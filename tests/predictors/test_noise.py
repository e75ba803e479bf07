"""Repeat noise: what is drawn in a simulation has the mean and the spread that were measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from predictors.noise import attainable_mape, perfect_mape, repeat_noise


def frame_of(seconds: list[list[float]], steps: int = 50) -> pd.DataFrame:
    rows = [(f"{i + 1}@512x512", value) for i, values in enumerate(seconds) for value in values]
    frame = pd.DataFrame(rows, columns=["composition", "seconds"])
    return frame.assign(software="test", guided=True, computed=1.0, cached=False, steps=steps)


def test_ratios_are_over_the_median_and_keep_the_measured_mean() -> None:
    noise = repeat_noise(frame_of([[1.0, 1.0, 2.0], [5.0]]), np.array([1.0, 1.0, 1.0, 4.0]) * 50)
    widened, mean = 2 ** np.sqrt(3 / 2), (1 + 1 + 2 + 1.25) / 4
    assert noise.ratios == pytest.approx(np.array([1, 1, widened]) * 3 / (2 + widened) * mean / 2500)
    assert noise.steps == 50
    assert all(type(ratio) is float for ratio in noise.ratios)


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_the_spread_is_the_measured_one(repeats: int) -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(1, 9, (3000, 1))
    seconds = rng.normal(1, 0.05, (3000, repeats)) * truth
    predicted = np.repeat(truth, repeats) / 50 / 1.03  # 3 % too fast
    noise = repeat_noise(frame_of(seconds.tolist()), predicted)
    assert np.std(noise.ratios) == pytest.approx(0.05 * 1.03, rel=0.12)
    assert np.mean(noise.ratios) == pytest.approx(1.03, rel=0.002)


def test_without_repeats_the_model_is_compared_with() -> None:
    noise = repeat_noise(frame_of([[1.0], [3.0]], steps=1), np.array([1.0, 1.0]))
    assert noise.ratios == pytest.approx((1.0, 3.0))
    assert repeat_noise(frame_of([[4.0]]), np.array([0.08])).ratios == (1.0,)


def test_cached_steps_say_nothing_about_the_noise_of_measurements() -> None:
    plain = frame_of([[0.9, 1.1], [2.0, 2.2]])
    cached = frame_of([[0.1, 5.0, 9.0]], steps=1).assign(cached=True)
    both = pd.concat([plain, cached], ignore_index=True)
    assert repeat_noise(both, np.ones(len(both))) == repeat_noise(plain, np.ones(len(plain)))
    assert repeat_noise(cached, np.ones(len(cached))).steps == 1


def test_a_perfect_predictor_errs_by_the_noise() -> None:
    assert perfect_mape(frame_of([[0.9, 1.2], [2.0]])) == pytest.approx((0.3 / 0.9 + 0.3 / 1.2) / 2 / np.sqrt(2))
    assert np.isnan(perfect_mape(frame_of([[0.9], [2.0]])))
    rng = np.random.default_rng(2)
    truth = rng.uniform(1, 9, (1000, 1))
    for repeats in (2, 3):
        seconds = truth * rng.normal(1, 0.05, (1000, repeats))
        assert perfect_mape(frame_of(seconds.tolist())) == pytest.approx(np.abs(truth / seconds - 1).mean(), rel=0.05)


@pytest.mark.parametrize("repeats", [2, 3, 6])
def test_what_is_attainable_is_what_the_truth_would_leave(repeats: int) -> None:
    rng = np.random.default_rng(2)
    normal = rng.normal(1, 0.03, (2000, repeats))
    assert attainable_mape(frame_of(normal.tolist())) == pytest.approx(0.03 * np.sqrt(2 / np.pi), rel=0.08)
    assert np.isnan(attainable_mape(frame_of([[1.0], [2.0]])))


def test_few_far_slower_measurements_leave_less_than_normal_noise_would() -> None:
    rng = np.random.default_rng(3)
    skewed = rng.normal(1, 0.01, (500, 6)) * np.where(rng.uniform(size=(500, 6)) < 0.05, 2.0, 1.0)
    truth = np.abs(1 / skewed - 1).mean()
    assert attainable_mape(frame_of(skewed.tolist())) == pytest.approx(truth, rel=0.15)
    assert perfect_mape(frame_of(skewed.tolist())) > 1.3 * truth
