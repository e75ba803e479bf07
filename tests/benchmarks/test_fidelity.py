"""The fidelity study: what it measures and runs is kept, and its words follow from its figures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")

from benchmarks.fidelity import study
from benchmarks.fidelity.__main__ import main
from benchmarks.fidelity.compare import Findings
from benchmarks.fidelity.table import markdown, verdict
from reports.fidelity import GOALS
from reports.repeats import held_against
from tests.cli.run_command import either, run
from traces.stages import ORDINARY


@pytest.mark.usefixtures("loads_not_measured")
def test_a_small_study_from_measuring_to_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "MAX_BATCH", 2)
    monkeypatch.setattr(study, "SLO_SCALE", 1e4)  # nothing is dropped, however slow the machine
    monkeypatch.setattr(study, "FIRST_ROUNDS", 1)
    monkeypatch.setattr(study, "SIZES", "64x64:2,96x96:1")
    monkeypatch.setattr(study, "tilecast", run)  # a process each would mostly import
    folder = tmp_path / "study"
    arguments = ["--loads", "0.9", "--schedulers", "least-slack", "--requests", "8", "--repeats", "1", "--steps", "3"]
    main(["-o", str(folder), *arguments, "--seeds", "3", "--results", str(tmp_path / "results")])
    said = capsys.readouterr()
    assert "90-least-slack-0, 1 left" in said.err
    document = json.loads((folder / "fidelity.json").read_text())
    assert {row["figure"] for row in document["figures"]} == set(GOALS)
    for row in document["figures"]:
        assert row["met"] == (abs(row["error"]) <= row["goal"])
        assert row["spread"] is None  # of one run
    (of_run,) = document["runs"]
    assert of_run["reproduced"] is True
    assert of_run["decisions"] >= 8
    of_stages = [of_run[f"speed_{stage}"] for stage in ORDINARY]
    assert 0 < min(of_stages) <= of_run["speed"] <= max(of_stages)
    assert 0 < of_run["utilisation"] <= 1
    (kept,) = (tmp_path / "results").iterdir()
    assert kept.name.startswith("fidelity-")
    assert json.loads(kept.read_text()) == document
    assert str(tmp_path) not in kept.read_text()
    assert (folder / "fidelity.md").read_text() in said.out

    log = folder / "real" / "90-least-slack-0" / "run.json"
    before = log.stat().st_mtime_ns
    main(["-o", str(folder), *arguments, "--seeds", "3"])
    assert "1 of 1 runs are there" in capsys.readouterr().err
    assert log.stat().st_mtime_ns == before
    assert json.loads((folder / "fidelity.json").read_text()) == document

    info = log.read_text()
    log.write_text(info.replace('"interrupted": false', '"interrupted": true'))
    again = study.Study(folder, (0.9,), ("least-slack",), 1, 8, 3, "whole", None, None, 1)
    assert again.unfinished() == again.runs
    log.write_text(info)
    assert again.unfinished() == []

    with pytest.raises(SystemExit):
        main(["-o", str(folder), *arguments, "--steps", "4"])
    assert "steps was 3, now it is 4; choose another -o" in capsys.readouterr().err

    scenario = ["examples/tiny_image.toml", "--trace", folder / "trace-90.parquet", "--profile"]
    for seed in (0, 1):
        run("simulate", *scenario, folder / "profile.parquet", "--seed", seed, "-o", tmp_path / f"sim-{seed}")
    printed = either("validate", tmp_path / "sim-0", log.parent, tmp_path / "sim-1", "-o", tmp_path / "v.json")
    assert "Decision parity" in printed
    assert "all the same" in printed
    assert json.loads((tmp_path / "v.json").read_text())["sims"] == ["sim-0", "sim-1"]


def test_a_command_of_a_study_is_a_process_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "trace.csv"
    study.tilecast("trace", "generate", "--rate", 1, "--duration", 9, "--sizes", "96x96", "-o", made)
    assert made.is_file()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(subprocess.CalledProcessError):
        study.tilecast("trace", "describe", tmp_path / "none.csv")
    assert "none.csv" in capfd.readouterr().err


@pytest.fixture
def findings() -> Findings:
    frames = []
    for load, error in ((0.7, 0.01), (0.9, 0.09)):
        real = dict.fromkeys(GOALS, 1.0) | {"slo_attainment": 0.5}
        again = {name: 1.04 * value for name, value in real.items()}
        sim = {name: (1.02 + error) * value for name, value in real.items()}
        frame = held_against([sim], [real, again]).reset_index()
        frames.append(frame.assign(load=load, scheduler="fcfs", at_speed_sim=frame["sim"], at_speed_error=0.001))
    figures = pd.concat(frames, ignore_index=True)
    figures["goal"] = figures["figure"].map(GOALS)
    figures["met"] = figures["error"].abs() <= figures["goal"]
    speeds = {f"speed{stage}": 1.25 for stage in ("", "_encode", "_denoise", "_decode")}
    runs = [
        {"load": 0.7, "scheduler": "fcfs", "repeat": repeat, "utilisation": 0.66, "decisions": 9} | speeds
        for repeat in (0, 1)
    ]
    facts = {
        "model": "tiny-image",
        "hardware": "a core",
        "date": "2026-01-01",
        "settings": {"requests": 5, "steps": 4, "executor": "whole", "caching": None, "repeats": 2},
        "simulated_seeds": 1,
    }
    return Findings(figures, pd.DataFrame(runs).assign(reproduced=[True, False]), facts)


def test_goals_missed_and_decisions_that_differ_are_said(findings: Findings) -> None:
    assert verdict(findings) == (
        "4 of 4 goals met up to 70 % load, 1 of 4 goals met above, decisions reproduced in 1 of 2 real runs."
    )
    text = markdown(findings)
    assert "1.02 s: +1.0 % (3.9 %) |" in text
    assert "1.02 s: +8.8 % (3.9 %) *" in text
    assert "51.0 %: +4.5 points (2.0 points) *" in text
    assert "Goals: P50 5.0 %, P95 8.0 %, P99 10.0 %, attainment 2.0 points." in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines[:4]}) == 1  # a table that can be read as it is
