"""What golden logs are held against each other by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.golden import differences


@pytest.fixture
def before(tmp_path: Path) -> Path:
    folder = tmp_path / "before"
    (folder / "plain.fcfs").mkdir(parents=True)
    pd.DataFrame({"id": ["a", "b"], "finish_s": [1.5, float("nan")]}).to_parquet(folder / "plain.fcfs" / "r.parquet")
    (folder / "plain.fcfs" / "run.json").write_text(json.dumps({"seed": 3, "world": {"noise": float("nan")}}))
    (folder / "plan.md").write_text("a plan\n")
    return folder


def test_the_same_logs_have_no_difference(before: Path, tmp_path: Path) -> None:
    shutil.copytree(before, tmp_path / "after")
    assert list(differences(before, tmp_path / "after")) == []


def test_each_kind_of_difference_is_named(before: Path, tmp_path: Path) -> None:
    after = tmp_path / "after"
    shutil.copytree(before, after)
    pd.DataFrame({"id": ["a", "b"], "finish_s": [1.5, 2.0]}).to_parquet(after / "plain.fcfs" / "r.parquet")
    (after / "plain.fcfs" / "run.json").write_text(json.dumps({"seed": 4, "world": {"noise": float("nan")}}))
    (after / "plan.md").unlink()
    (after / "more.md").write_text("more\n")
    assert list(differences(before, after)) == [
        "more.md: only in the second",
        "plain.fcfs/r.parquet: column finish_s",
        "plain.fcfs/run.json: seed was 3, is 4",
        "plan.md: only in the first",
    ]
