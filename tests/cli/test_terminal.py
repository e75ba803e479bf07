"""What stands in the terminal when a command has ended: a dozen lines of 80 columns, and everything where asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.brief import MOST_LINES, WIDTH
from tests.cli.run_command import run

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    return tmp_path


def test_simulate_and_report_end_with_a_dozen_lines(here: Path) -> None:
    for name, given in (
        ("tiny_image", ()),
        ("tiny_image", ("--set", "trace.rate_scale=4")),
        ("tiny_image", ("--set", "cluster.replicas=3", "--set", "policies.scaling=queue", "--set", "scaling.least=1")),
        ("pools", ()),
    ):
        made = run("simulate", EXAMPLES / f"{name}.toml", "-o", "run", "--set", "trace.limit=60", *given)
        shown = run("report", "run", "-o", "report.html")
        for printed in (made, shown):
            lines = printed.splitlines()
            assert len(lines) <= MOST_LINES, printed
            assert max(map(len, lines)) <= WIDTH, printed
        assert "tilecast report run --all" in made
        assert "wrote report.html" in shown
    everything = run("simulate", EXAMPLES / "tiny_image.toml", "-o", "run", "--set", "trace.limit=20", "--all")
    assert all(title in everything for title in ("By size", "By replica", "Batches and devices", "Goodput"))
