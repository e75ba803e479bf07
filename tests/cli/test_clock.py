"""Runs of traces that count from 1970 start at once and say what they took off."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

from policies.runlog import read_run
from tests.cli.run_command import refused, run

EPOCH_S = 1_787_000_000
SCENARIO = """
model = "tiny-image"
[cluster]
threads = 1
[trace]
path = "trace.csv"
[predictor]
profile = "cpu-1core"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "s.toml").write_text(SCENARIO)
    arrivals = [EPOCH_S + i / 4 for i in range(4)]
    frame = pd.DataFrame({"arrival_s": arrivals, "height": 64, "width": 64, "steps": 1, "sampler": "euler"})
    frame.assign(deadline_s=frame["arrival_s"] + 60).to_csv(tmp_path / "trace.csv", index=False)
    return tmp_path


def test_simulate_and_replay_start_at_the_first_request(folder: Path) -> None:
    started = time.monotonic()
    for verb, times in (("simulate", 1), ("replay", 2)):  # a replay says it before it takes its time, too
        said = " ".join(run(verb, folder / "s.toml", "-o", folder / verb, "--all").split())
        assert "clock starts at the first request" in said
        assert said.count("columns that have no effect: sampler") == times
        found = read_run(folder / verb)
        assert found.info["clock_start_s"] == EPOCH_S
        assert any("1787000000 s were taken off" in warning for warning in found.info["warnings"])
        assert found.requests["arrival_s"].tolist() == [0.0, 0.25, 0.5, 0.75]
        assert found.requests["deadline_s"].tolist() == [60.0, 60.25, 60.5, 60.75]
        assert found.requests["status"].eq("finished").all()
    assert time.monotonic() - started < EPOCH_S / 1000


def test_spikes_and_outages_count_from_the_first_request(folder: Path) -> None:
    run(
        "simulate",
        folder / "s.toml",
        "--set",
        'trace.spikes=["0:1:3"]',
        "--set",
        'faults.outages=["0.1:0:2"]',
        "-o",
        folder / "r",
    )
    found = read_run(folder / "r")
    assert len(found.requests) == 12
    assert found.requests["arrival_s"].max() < 1.0
    assert found.requests["attempts"].max() > 1


def test_a_slice_is_named_in_the_times_of_the_file(folder: Path) -> None:
    run("simulate", folder / "s.toml", "--set", f"trace.start_s={EPOCH_S + 0.5}", "-o", folder / "r")
    found = read_run(folder / "r")
    assert found.requests["arrival_s"].tolist() == [0.0, 0.25]
    assert found.info["clock_start_s"] == EPOCH_S + 0.5
    said = refused("simulate", folder / "s.toml", "--set", "trace.end_s=600", "-o", folder / "r2")
    assert "its arrivals are at 1787000000 to 1787000000.75 s" in " ".join(said.split())
