"""A fit that misses its own measurements says so wherever figures rest on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from policies.runlog import read_run
from predictors.profile import Profile
from tests.cli.run_command import run

SCENARIO = """
model = "tiny-image"
[trace]
path = "trace.parquet"
[predictor]
profile = "profile.parquet"
[slo]
scale = 4.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Requests, and a profile of a model whose single image takes as long as five."""
    rng = np.random.default_rng(0)
    rows = []
    for side in (64, 96, 128):
        for images in (1, 2, 3, 4, 6, 8):
            step_s = 0.05 * max(1.0, images * side**2 / (5 * 64**2))
            rows += [(f"{images}@{side}x{side}", 4 * step_s * rng.normal(1, 0.01)) for _ in range(3)]
    frame = pd.DataFrame(rows, columns=["composition", "seconds"]).assign(stage="denoise", steps=4, executor="whole")
    frame = frame.assign(hardware="a test", software="none", model="tiny-image", guided=True)
    Profile.from_frame(frame, {}).save(tmp_path / "profile.parquet")
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    trace = ("--rate", 1, "--duration", 10, "--sizes", "64x64:1,128x128:1", "--steps", 4, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", tmp_path / "trace.parquet")
    return tmp_path


def test_a_run_says_which_batches_its_fit_misses(folder: Path) -> None:
    linear = ("--set", "predictor.latency_model=linear")
    said = run("simulate", folder / "scenario.toml", *linear, "-o", folder / "linear", "--all")
    (note,) = [note for note in read_run(folder / "linear").info["warnings"] if "the fit misses" in note]
    assert note.startswith("denoise: the fit misses")
    assert "1@64x64 by -" in note
    assert "repeats of a batch differ by 1 %" in note
    assert "the fit misses" in " ".join(said.split())
    assert "the fit misses" in " ".join(run("report", folder / "linear", "--all").split())


def test_the_chosen_fit_misses_none_and_is_named(folder: Path) -> None:
    run("simulate", folder / "scenario.toml", "-o", folder / "run")
    info = read_run(folder / "run").info
    assert not [note for note in info["warnings"] if "the fit misses" in note]
    assert info["predictor"]["latency_model"] == "auto"
    assert info["predictor"]["fitted_models"]["denoise"] in ("floor", "floor-gaussian")


def test_describe_names_what_the_chosen_fit_misses(folder: Path) -> None:
    profile = Profile.load(folder / "profile.parquet")
    frame = profile.frame.copy()
    twice = frame["composition"] == "8@128x128"
    frame.loc[twice, "seconds"] *= 2
    Profile(frame, profile.metadata).save(folder / "odd.parquet")
    said = run("profile", "describe", folder / "odd.parquet")
    assert "! tiny-image whole, denoise: the fit misses 1 of the 18" in " ".join(said.split())
