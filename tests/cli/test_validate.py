"""tilecast validate: which runs it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.run_command import negative, refused, run

TRACE = (
    "trace", "generate", "--rate", 2, "--duration", 10, "--sizes", "128x128", "--steps", 5, "--model", "tiny-image",
)  # fmt: skip


@pytest.fixture
def simulated(tmp_path: Path) -> list[Path]:
    """Two simulations of one trace."""
    run(*TRACE, "-o", tmp_path / "trace.parquet")
    runs = [tmp_path / "s0", tmp_path / "s1"]
    scenario = ("examples/tiny_image.toml", "--trace", tmp_path / "trace.parquet", "--profile", "cpu-1core")
    for seed, folder in enumerate(runs):
        run("simulate", *scenario, "--seed", seed, "-o", folder)
    return runs


def test_a_run_alone_is_not_enough(simulated: list[Path]) -> None:
    assert "one is missing" in refused("validate", simulated[0])


def test_several_runs_need_a_real_one(simulated: list[Path]) -> None:
    assert "3 simulated and 0 real runs" in refused("validate", *simulated, simulated[0])


def test_two_simulations_can_be_held_against_each_other(simulated: list[Path], tmp_path: Path) -> None:
    printed = negative("validate", *simulated, "-o", tmp_path / "v.json")
    assert printed.startswith("TOO SHORT TO TELL: ")  # two dozen requests differ by more than the goals
    assert "Latency error per request" in printed
    assert "Decision parity" not in printed
    assert (tmp_path / "v.json").is_file()
    assert "Not sure yet whether to trust" in (tmp_path / "v.html").read_text()


def test_a_run_held_against_itself_is_faithful(simulated: list[Path]) -> None:
    assert run("validate", simulated[0], simulated[0]).startswith("FAITHFUL: ")
