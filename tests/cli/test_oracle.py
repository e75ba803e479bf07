"""predictor.oracle and trace.step_reduction in a scenario: for any scheduler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from policies.runlog import read_run
from tests.cli.run_command import refused, run
from tests.tilecast.test_setup import SCENARIO, write_profile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_profile(tmp_path / "profile.parquet")
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    trace = ("--rate", 6, "--duration", 20, "--sizes", "64x64:1,128x128:1", "--steps", 10, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", tmp_path / "trace.parquet")
    return tmp_path


def simulated(folder: Path, name: str, *settings: str) -> pd.DataFrame:
    options = [option for setting in settings for option in ("--set", setting)]
    run("simulate", folder / "scenario.toml", *options, "--scheduler", "patchedserve-joins", "-o", folder / name)
    return read_run(folder / name).steps


def test_an_oracle_knows_the_world_whatever_the_predictor_believes(folder: Path) -> None:
    world = ("world.slowdown=1.4", 'world.latency_model="linear"', "world.noise=false", "predictor.error=0.5")
    steps = simulated(folder, "oracle", "predictor.oracle=true", *world)
    np.testing.assert_allclose(steps["predicted_s"], steps["end_s"] - steps["start_s"], rtol=1e-6)
    assert read_run(folder / "oracle").info["predictor"]["oracle"] is True
    believed = simulated(folder, "believed", "predictor.online=false", *world)
    error = believed["predicted_s"] / (believed["end_s"] - believed["start_s"])
    assert (np.abs(error - 1) > 0.01).all()


def test_an_oracle_does_not_know_the_noise(folder: Path) -> None:
    steps = simulated(folder, "noisy", "predictor.oracle=true")
    ratio = (steps["end_s"] - steps["start_s"]) / steps["predicted_s"]
    assert ratio.std() > 0.005
    assert ratio.mean() == pytest.approx(1.0, abs=0.02)


def test_a_replay_has_no_oracle(folder: Path) -> None:
    message = refused("replay", folder / "scenario.toml", "--set", "predictor.oracle=true", "-o", folder / "none")
    assert "predictor.oracle is true, but nobody knows how long a real run will take" in message
    assert not (folder / "none").exists()


def test_step_reduction_leaves_deadlines_as_they_were(folder: Path) -> None:
    simulated(folder, "all")
    simulated(folder, "some", "trace.step_reduction.share=0.5", 'trace.step_reduction.skip="25"')
    before, after = (read_run(folder / name).requests for name in ("all", "some"))
    assert set(before["steps"]) == {10}
    assert after["steps"].value_counts(normalize=True)[5] == pytest.approx(0.5, abs=0.15)
    pd.testing.assert_series_equal(before["deadline_s"], after["deadline_s"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["trace.step_reduction.share=0.5"], "expected skip beside share"),
        (["trace.step_reduction.share=2", 'trace.step_reduction.skip="5"'], "trace.step_reduction.share is 2"),
        (["trace.step_reduction.share=1", 'trace.step_reduction.skip="often"'], "trace.step_reduction.skip 'often'"),
        (["trace.step_reduction.share=1", "trace.step_reduction.skipp=5"], "did you mean 'skip'"),
    ],
)
def test_a_step_reduction_that_cannot_be_is_said_in_one_line(folder: Path, settings: list[str], words: str) -> None:
    options = [option for setting in settings for option in ("--set", setting)]
    assert words in refused("simulate", folder / "scenario.toml", *options, "-o", folder / "none")
