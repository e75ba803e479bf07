"""Misfits: what a fit misses by more than noise, named, and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from predictors.latency import fitted
from predictors.latency_model import LatencyModel
from predictors.measurements import Measurements
from predictors.misfit import misfits
from predictors.profile import Profile
from traces.geometry import geometry_of


def frame_of(seconds: list[list[float]]) -> pd.DataFrame:
    rows = [(f"{i + 1}@512x512", value) for i, values in enumerate(seconds) for value in values]
    frame = pd.DataFrame(rows, columns=["composition", "seconds"])
    return frame.assign(software="test", guided=True, computed=1.0, cached=False, steps=1)


def test_a_miss_beyond_the_noise_of_its_repeats_is_named() -> None:
    frame = frame_of([[0.99, 1.0, 1.01]] * 5 + [[1.2, 1.21, 1.22]])
    found = misfits(frame, np.ones(len(frame)))
    assert (found.missed, found.measured) == (1, 6)
    said = found.sentence("denoise")
    assert said is not None
    assert said.startswith(
        "denoise: the fit misses 1 of the 6 batches it was fitted to by more than noise: 6@512x512 by"
    )
    assert "-17 %; repeats of a batch differ by 1 %" in said


def test_what_noise_explains_is_none() -> None:
    rng = np.random.default_rng(0)
    frame = frame_of(rng.normal(1, 0.1, (30, 3)).tolist())
    assert misfits(frame, np.ones(90)).sentence("denoise") is None


def test_many_repeats_leave_less_to_noise() -> None:
    rng = np.random.default_rng(0)
    others = rng.normal(1, 0.08, (20, 3)).tolist()
    for often, missed in (([1.15], 0), ((1.15 * rng.normal(1, 0.08, 30)).tolist(), 1)):
        frame = frame_of([*others, often])
        assert misfits(frame, np.ones(len(frame))).missed == missed


def test_without_repeats_it_is_what_is_missed_more_than_others() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.normal(1, 0.02, 30)
    seconds[7] = 1.3
    found = misfits(frame_of(seconds[:, None].tolist()), np.ones(30))
    said = found.sentence("decode")
    assert found.missed == 1
    assert said is not None
    assert "8@512x512 by -23 %; none was repeated; others are missed by 2 %" in said


def test_cached_batches_say_what_was_computed() -> None:
    frame = frame_of([[1.0, 1.0, 1.01]] * 6).assign(cached=True, computed=0.31)
    predicted = np.where(frame["composition"] == "2@512x512", 2.0, 1.0)
    assert "2@512x512 with 31 % computed by +100 %" in str(misfits(frame, predicted).sentence("denoise"))


def test_a_linear_model_of_a_launch_bound_one_says_so_and_the_chosen_one_has_nothing_to_say(
    launch_bound: Profile,
) -> None:
    linear = LatencyModel.fit(launch_bound, "sd3", latency_model="linear")
    (said,) = linear.misfits
    assert "512x512" in said
    assert LatencyModel.fit(launch_bound, "sd3").misfits == []
    data = Measurements.of(launch_bound, "denoise", geometry_of("sd3"))
    predicted = fitted("linear", data.matrix, data.per_step).predict(data.matrix)
    assert linear.costs["denoise"].misfits == misfits(data.frame, predicted)


@pytest.mark.parametrize("latency_model", ["auto", "linear"])
def test_kept_fits_remember_what_they_miss(
    launch_bound: Profile, latency_model: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, again = (LatencyModel.fit(launch_bound, "sd3", latency_model=latency_model) for _ in range(2))
    assert first.misfits == again.misfits
    assert first.fitted_models == again.fitted_models
