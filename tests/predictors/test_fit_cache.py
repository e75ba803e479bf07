"""Fits kept in the user's cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import predictors.fit_cache
from predictors.costs import Batch
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from predictors.shipped import find

BATCH = (((96, 96, 1), 2), ((192, 192, 1), 1))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tilecast" / "fits"


def never(*_: object) -> None:
    raise AssertionError("fitted although the fit was kept")


def answers(table: LatencyModel) -> list[object]:
    stages = ("encode", "denoise", "decode")
    return [(table.step_s(stage, Batch("sd3", BATCH, 1.0)), table.noise(stage)) for stage in stages]


def test_a_kept_fit_answers_the_same_to_the_last_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile.load(find("cpu-1core"))
    fitted = answers(LatencyModel.fit(profile, "tiny-image"))
    assert len(list(folder.iterdir())) == 3
    monkeypatch.setattr(predictors.fit_cache, "_fit", never)
    assert answers(LatencyModel.fit(profile, "tiny-image")) == fitted


def test_other_measurements_or_another_model_are_fitted_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile.load(find("cpu-1core"))
    LatencyModel.fit(profile, "tiny-image")
    slower = profile.frame.copy()
    slower["seconds"] *= 1.001
    monkeypatch.setattr(predictors.fit_cache, "_fit", never)
    with pytest.raises(AssertionError):
        LatencyModel.fit(Profile(slower, profile.metadata), "tiny-image")
    with pytest.raises(AssertionError):
        LatencyModel.fit(profile, "tiny-image", latency_model="linear")


def test_a_kept_fit_that_cannot_be_read_is_fitted_anew(folder: Path) -> None:
    profile = Profile.load(find("cpu-1core"))
    fitted = answers(LatencyModel.fit(profile, "tiny-image"))
    for path, text in zip(sorted(folder.iterdir()), ("", "{}", "[1"), strict=True):
        path.write_text(text)
    assert answers(LatencyModel.fit(profile, "tiny-image")) == fitted


def test_a_cache_folder_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert LatencyModel.fit(Profile.load(find("cpu-1core")), "tiny-image").step_s("denoise", Batch("sd3", BATCH)) > 0
