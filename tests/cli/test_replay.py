"""What a replay says of its requests, and what it does with an environment that is not its own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")

from policies.runlog import read_run
from tests.cli.run_command import refused, run
from tests.tilecast.test_setup import SCENARIO, write_profile


@pytest.fixture
def given(tmp_path: Path) -> list[object]:
    """A scenario of two requests, the second with a prompt that no encoder reads whole."""
    write_profile(tmp_path / "profile.parquet")
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    rows = {"arrival_s": 0.0, "height": 64, "width": 64, "steps": 1, "prompt": ["a red circle", "a red circle " * 140]}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    return ["replay", tmp_path / "scenario.toml", "--trace", tmp_path / "t.csv", "--set", "cluster.threads=1"]


def test_one_process_is_no_rank_and_says_whose_prompt_it_cut(
    given: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "300")
    printed = run(*given, "--all", "-o", tmp_path / "run")
    log = read_run(tmp_path / "run")
    assert log.requests["status"].tolist() == ["finished", "finished"]
    assert log.requests["note"].str.contains("longer than the text encoder reads and was cut").tolist() == [False, True]
    assert "1 request: the prompt was longer than the text encoder reads and was cut" in printed


def test_of_several_processes_without_tiles_the_first_replays(
    given: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    printed = run(*given, "-o", tmp_path / "run")
    assert "rank 1 of 2 has nothing to do" in printed
    assert not (tmp_path / "run").exists()


def test_a_rank_that_is_none_is_refused(given: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert "WORLD_SIZE is 'many', expected a whole number" in refused(*given, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_has_no_effect_is_said_before_it_runs(
    given: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    frame = pd.read_csv(tmp_path / "t.csv").head(1)
    frame.assign(lora="style").to_csv(tmp_path / "t.csv", index=False)
    printed = run(*given, "--all", "-o", tmp_path / "run")
    said = "columns that have no effect: lora"
    assert printed.startswith(f"! {said}")
    assert printed.count(said) == 2  # and beside the figures
