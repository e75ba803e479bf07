"""The comparison's command, on the published data where it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import weights

DATA = Path(__file__).parents[3] / "shared" / "data"


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["weights", *arguments])
    return weights.main()


def test_every_combination_has_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if not DATA.is_dir():
        pytest.skip("published data not here")
    monkeypatch.setattr(weights, "FITTING", (3,))
    assert _run(monkeypatch, "--data", str(DATA), "--requests", "60", "--recorded") == 0
    printed = capsys.readouterr().out
    assert "60 requests, recorded, 6 replicas at 65%, least-slack" in printed
    assert sum([line.startswith("│ 3 fit") for line in printed.splitlines()]) == 15


def test_without_data_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _run(monkeypatch, "--data", str(tmp_path)) == 2
    assert "--data names their folder" in capsys.readouterr().out
