"""Fits kept in the user's cache folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import predictors.fit_cache
from predictors.costs import Batch
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from predictors.shipped import find

BATCH = (((96, 96, 1), 2), ((192, 192, 1), 1))


def never(*_: object) -> None:
    raise AssertionError("fitted although the fit was kept")


def answers(table: LatencyModel) -> list[object]:
    stages = ("encode", "denoise", "decode")
    return [(table.step_s(stage, Batch("sd3", BATCH, 1.0)), table.noise(stage)) for stage in stages]


@pytest.fixture(scope="module")
def profile() -> Profile:
    return Profile.load(find("cpu-1core"))


@pytest.fixture(scope="module")
def kept(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object]]:
    """A cache folder with the fits of a profile, and what these answer."""
    cache = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return cache, answers(LatencyModel.fit(profile, "tiny-image"))


@pytest.fixture
def folder(kept: tuple[Path, list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(kept[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tilecast" / "fits"


def test_a_kept_fit_answers_the_same_to_the_last_bit(
    folder: Path, kept: tuple[Path, list[object]], profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(list(folder.iterdir())) == 3
    monkeypatch.setattr(predictors.fit_cache, "_fit", never)
    assert answers(LatencyModel.fit(profile, "tiny-image")) == kept[1]


@pytest.mark.usefixtures("folder")
def test_other_measurements_or_another_model_are_fitted_anew(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    slower = profile.frame.copy()
    slower["seconds"] *= 1.001
    monkeypatch.setattr(predictors.fit_cache, "_fit", never)
    with pytest.raises(AssertionError):
        LatencyModel.fit(Profile(slower, profile.metadata), "tiny-image")
    with pytest.raises(AssertionError):
        LatencyModel.fit(profile, "tiny-image", latency_model="linear")


def test_a_kept_fit_that_cannot_be_read_is_fitted_anew(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fitted = answers(LatencyModel.fit(profile, "tiny-image", latency_model="linear"))
    for path, text in zip(sorted((tmp_path / "tilecast" / "fits").iterdir()), ("", "{}", "[1"), strict=True):
        path.write_text(text)
    assert answers(LatencyModel.fit(profile, "tiny-image", latency_model="linear")) == fitted


def test_a_cache_folder_that_cannot_be_written_is_done_without(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    table = LatencyModel.fit(profile, "tiny-image", latency_model="linear")
    assert table.step_s("denoise", Batch("sd3", BATCH)) > 0
