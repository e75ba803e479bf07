"""predictor.online in a scenario: on by default, learned error in the log, off step by step."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from policies.runlog import read_run
from tests.cli.run_command import run
from tests.tilecast.test_setup import SCENARIO, write_profile


def folder_of(tmp_path: Path) -> Path:
    write_profile(tmp_path / "profile.parquet")
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    trace = ("--rate", 6, "--duration", 20, "--sizes", "64x64:1,128x128:1", "--steps", 6, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", tmp_path / "trace.parquet")
    return tmp_path


def mape(run_folder: Path) -> float:
    steps = read_run(run_folder).steps
    actual = steps["end_s"] - steps["start_s"]
    return float(((steps["predicted_s"] - actual).abs() / actual).iloc[30:].mean())


def test_a_wrong_profile_is_corrected_while_running_and_an_error_asked_for_is_not(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for name, settings in (
        ("online", ["world.slowdown=1.3"]),
        ("fixed", ["world.slowdown=1.3", "predictor.online=false"]),
        ("error", ["predictor.error=0.3"]),
    ):
        options = [option for setting in settings for option in ("--set", setting)]
        run("simulate", folder / "scenario.toml", *options, "--scheduler", "least-slack", "-o", folder / name)
    assert mape(folder / "fixed") > 0.2
    assert mape(folder / "online") < 0.06
    assert mape(folder / "error") > 0.25
    assert read_run(folder / "online").info["predictor"]["online"] is True


def test_step_by_step_turns_it_off_and_says_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    scenario = folder / "scenario.toml"
    printed = run("simulate", scenario, "--per-step", "--scheduler", "edf", "-o", folder / "steps", "--all")
    assert "--per-step turned predictor.online off" in " ".join(printed.split())
    run("simulate", scenario, "--set", "predictor.online=false", "--scheduler", "edf", "-o", folder / "quanta")
    steps, quanta = (read_run(folder / name).requests for name in ("steps", "quanta"))
    same = ["request_id", "finish_s", "status"]
    pd.testing.assert_frame_equal(steps[same], quanta[same])
    assert read_run(folder / "steps").info["predictor"]["online"] is False
