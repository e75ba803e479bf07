"""Faults and spikes of a scenario, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.runlog import read_run
from reports.checks import checked
from reports.figures import summary
from tests.cli.run_command import either, refused, run

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
    for wrong, said in {
        'faults.slow=["5:1:1:2"]': "faults.slow: slow spells are simulated",
        "faults.straggler_every_s=60": "faults.straggler_every_s: slow spells are simulated",
        "faults.in_flight=resume": "a replay can restart or fail",
        "cluster.launcher=thread": "[faults] end replicas, which cluster.launcher 'thread' cannot",
    }.items():
        assert said in refused("replay", folder / "scenario.toml", "--set", wrong, "-o", folder / "x")
    assert not (folder / "x").exists()


def test_a_real_replica_is_ended_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is killed at its time, and another takes its place: pictures as ever, decisions reproduced."""
    pytest.importorskip("torch")
    monkeypatch.setenv("COLUMNS", "300")
    rows = [f"{0.4 * at},64,64,6,{at}" for at in range(6)]
    (tmp_path / "t.csv").write_text("\n".join(["arrival_s,height,width,steps,seed", *rows]) + "\n")
    settings = (
        *("--set", "trace.path=t.csv", "--set", "cluster.threads=1", "--set", "cluster.replicas=1"),
        *("--set", 'faults.outages=["1:0:1"]', "--set", "faults.patience_s=1000"),
    )
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    printed = run("replay", tmp_path / "scenario.toml", *settings, "--save-images", "-o", tmp_path / "real")
    real = read_run(tmp_path / "real")
    assert (real.requests["status"] == "finished").all(), printed
    assert len(list((tmp_path / "real" / "images").glob("*.png"))) == len(rows)
    [[replica, down_s, up_s]] = real.info["outages"]
    assert replica == 0
    assert down_s >= 1.0
    assert up_s is None or up_s > down_s + 0.9
    run("simulate", tmp_path / "scenario.toml", *settings, "-o", tmp_path / "sim")
    said = either("validate", tmp_path / "sim", tmp_path / "real", "-o", tmp_path / "v.json")
    assert "same" in said
