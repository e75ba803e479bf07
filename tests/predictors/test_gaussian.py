"""The process on the residual: it follows what many measurements or repeats say, not noise, and fades."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin

from predictors.gaussian import GaussianResidual
from predictors.latency import fitted
from predictors.measurements import Measurements
from predictors.profile import Profile
from predictors.shipped import find
from traces.composition import parse
from traces.geometry import geometry_of


class Ones(RegressorMixin, BaseEstimator):
    """A model that leaves everything to the residual."""

    def fit(self, X: object, y: object) -> Ones:  # noqa: N803
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        return np.ones(len(X))


def place(row: list[float]) -> list[float]:
    return list(row)


def process(places: np.ndarray, seconds: np.ndarray) -> GaussianResidual:
    return GaussianResidual(Ones(), place).fit(places, seconds)


def test_a_batch_that_was_measured_often_is_believed_more() -> None:
    """Of forty batches each its own by 10 %, with 10 % of noise: the more repeats, the nearer to their median."""
    rng = np.random.default_rng(0)
    counts = np.tile([1, 2, 8, 30], 30)
    own = rng.normal(0, 0.1, len(counts))
    places = np.repeat(3.0 * np.arange(len(counts)), counts)[:, None]
    log_seconds = np.repeat(own, counts) + rng.normal(0, 0.1, counts.sum())
    found = process(places, np.exp(log_seconds))
    centres = 3.0 * np.arange(len(counts))[:, None]
    medians = np.array([np.median(log_seconds[places[:, 0] == at]) for at in centres[:, 0]])
    believed = np.log(found.predict(centres))
    slopes = [np.polyfit(medians[counts == n], believed[counts == n], 1)[0] for n in (1, 2, 8, 30)]
    assert slopes == sorted(slopes)
    # The posterior of one's own deviation: own variance over that and the noise of the median.
    assert slopes[0] == pytest.approx(1 / 2, abs=0.15)
    assert slopes[1] == pytest.approx(1 / (1 + 1 / 2), abs=0.15)
    assert slopes[3] == pytest.approx(1 / (1 + np.pi / 60), abs=0.05)
    assert np.abs(believed - own).mean() < np.abs(medians - own).mean()


def test_noise_alone_is_not_followed() -> None:
    rng = np.random.default_rng(1)
    places = np.repeat(np.arange(40.0), 3)[:, None]
    found = process(places, np.exp(rng.normal(0, 0.1, 120)))
    assert found.process_.noise == pytest.approx(0.1, rel=0.2)
    assert np.abs(np.log(found.predict(places))).mean() < 0.03


def test_what_many_share_is_followed_and_fades() -> None:
    rng = np.random.default_rng(2)
    places = np.c_[np.zeros(100), np.linspace(0, 6, 100)]
    true = 0.15 * np.sin(places[:, 1])
    found = process(places, np.exp(true + rng.normal(0, 0.03, 100)))
    assert np.log(found.predict(places)) == pytest.approx(true, abs=0.05)
    far = np.log(found.predict(np.array([[0.0, 7.0], [0.0, 30.0]])))
    assert abs(far[1]) < 1e-6
    sizes = np.log(found.predict(np.array([[0.0, 4.7], [50.0, 4.7]])))
    assert sizes[0] == sizes[1] < -0.1  # along the size of the batch it stays


def test_one_disturbed_measurement_is_not_followed() -> None:
    rng = np.random.default_rng(3)
    places = np.repeat(np.linspace(0, 4, 30), 2)[:, None]
    places = np.append(places, [[1.99]], axis=0)
    seconds = np.exp(np.append(rng.normal(0, 0.02, 60), np.log(2)))
    assert process(places, seconds).predict(places)[-1] < 1.1


def test_few_places_of_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import predictors.gaussian

    rng = np.random.default_rng(4)
    places = np.c_[np.zeros(200), np.linspace(0, 6, 200)]
    true = 0.15 * np.sin(places[:, 1])
    seconds = np.exp(true + rng.normal(0, 0.01, 200))
    monkeypatch.setattr(predictors.gaussian, "_MOST_JUDGED", 30)
    monkeypatch.setattr(predictors.gaussian, "_MOST_KEPT", 60)
    found = process(places, seconds)
    assert len(found.process_.centres) == 60
    assert np.log(found.predict(places)) == pytest.approx(true, abs=0.03)


def test_an_unmeasured_size_far_from_any_gets_the_floor(made_up: Profile) -> None:
    data = Measurements.of(made_up.select("sd3", "whole"), "denoise", geometry_of("sd3"))
    bent = data.per_step * np.where(np.arange(len(data.per_step)) % 3, 1.0, 1.5)
    found = fitted("floor-gaussian", data.matrix, bent)
    asked = data.features.matrix([parse("2@512x512"), parse("2@64x64"), parse("1@16384x16384")], [True] * 3)
    ratios = found.predict(asked) / found.base_.predict(asked)
    assert ratios[1:] == pytest.approx([1, 1], abs=0.01)


def test_single_images_of_what_ships_are_met_within_their_noise() -> None:
    profile = Profile.load(find("cpu-1core"))
    for executor in ("whole", "patched"):
        for stage in ("encode", "denoise", "decode"):
            data = Measurements.of(profile.select("tiny-image", executor), stage, geometry_of("tiny-image"))
            predicted = fitted("floor-gaussian", data.matrix, data.per_step).predict(data.matrix)
            frame = data.frame.assign(ratio=np.log(predicted / data.per_step))
            plain = frame[~frame["cached"]]
            noise = plain["ratio"].groupby(plain["composition"]).transform(lambda r: r - r.median()).std()
            singles = plain[plain["composition"].str.fullmatch(r"1@\d+x\d+")]
            misses = singles.groupby("composition")["ratio"].median().abs()
            assert (misses < max(0.05, 1.2 * noise)).all()
