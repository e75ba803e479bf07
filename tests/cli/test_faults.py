"""Faults and spikes of a scenario, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.runlog import read_run
from reports.checks import checked
from reports.figures import summary
from tests.cli.run_command import refused, run

SCENARIO = """
model = "tiny-image"
[cluster]
replicas = 2
[trace]
path = "trace.parquet"
[predictor]
profile = "cpu-1core"
[slo]
scale = 6.0
[faults]
outages = ["5:0:6"]
in_flight = "restart"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    trace = ("--rate", 5, "--duration", 20, "--sizes", "96x96:1,128x128:1", "--steps", 10, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", tmp_path / "trace.parquet")
    return tmp_path


def test_a_failure_is_simulated_and_reported(folder: Path) -> None:
    run("simulate", folder / "scenario.toml", "-o", folder / "run")
    run("simulate", folder / "scenario.toml", "--set", "faults.in_flight=fail", "-o", folder / "failing")
    restarted, failing = read_run(folder / "run"), read_run(folder / "failing")
    first_s = restarted.requests["arrival_s"].iloc[0]  # from when on the times of outages count
    [[replica, down_s, up_s]] = restarted.info["outages"]
    assert (replica, down_s, up_s) == (0, pytest.approx(first_s + 5), pytest.approx(first_s + 11))
    assert restarted.info["scenario"]["faults"]["in_flight"] == "restart"
    figures = summary(checked(restarted))
    assert figures["restarts"] == 1.0
    assert 0.5 < figures["availability"] < 1.0
    assert (restarted.requests["status"] == "finished").all()
    assert failing.requests["reason"].eq("its replica failed").sum() == 1
    run("report", folder / "run", folder / "failing", "-o", folder / "report.html")
    assert "Replicas in working order" in (folder / "report.md").read_text()


def test_spikes_add_requests(folder: Path) -> None:
    run("simulate", folder / "scenario.toml", "--set", 'trace.spikes=["5:5:4"]', "-o", folder / "spike")
    run("simulate", folder / "scenario.toml", "-o", folder / "run")
    more, fewer = read_run(folder / "spike").requests, read_run(folder / "run").requests
    assert len(more) > 1.4 * len(fewer)
    assert more["request_id"].str.contains("+", regex=False).any()


def test_what_cannot_go_wrong_is_refused(folder: Path) -> None:
    wrong = 'faults.outages=["5:7:1"]'
    assert "names replica 7" in refused("simulate", folder / "scenario.toml", "--set", wrong, "-o", folder / "x")
    wrong = 'trace.spikes=["5"]'
    assert "start:seconds:factor" in refused("simulate", folder / "scenario.toml", "--set", wrong, "-o", folder / "x")
    assert "faults are simulated" in refused("replay", folder / "scenario.toml", "-o", folder / "x")
    assert not (folder / "x").exists()
