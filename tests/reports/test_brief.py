"""A run in a dozen lines of 80 columns, whatever kind of run it is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from policies.runlog import Run
from reports.brief import MOST_LINES, WIDTH, Brief
from reports.comparison import Comparison
from reports.terminal import show
from tests.reports.test_notes import finish
from traces.notes import Note

ENDING = ["tilecast report runs/ours --all shows everything (386 requests simulated in 0.21 s)"]


def many(make_run: Callable[..., Run], served_s: float, **info: object) -> Run:
    """300 requests, one a second, each served for so long, one after the other."""
    one = make_run("one", edit=finish).requests.iloc[[0]]
    requests = pd.concat([one] * 300, ignore_index=True)
    requests["request_id"] = [f"r{at}" for at in range(300)]
    requests["arrival_s"] = np.arange(300.0)
    requests["finish_s"] = np.arange(1, 301) * max(1.0, served_s) + served_s
    requests["first_start_s"], requests["standalone_s"] = requests["finish_s"] - served_s, served_s
    requests["deadline_s"] = requests["arrival_s"] + 5.0
    requests["tenant"] = ["alice", "bob"] * 150
    return make_run("many", requests=requests, steps=make_run("none").steps.head(0), **info)


def scaled(make_run: Callable[..., Run]) -> Run:
    lifetimes = [[0, None, 0.0, None], [1, 1.0, 2.0, 19.0]]
    return make_run("scaled", lifetimes=lifetimes, outages=[[0, 12.0, 13.0]], edit=finish)


def pooled(make_run: Callable[..., Run]) -> Run:
    pools = [
        {"name": name, "replicas": 1, "devices": 1, "price_per_hour": 2.0, "models": {"sd3": basis}}
        for name, basis in (("large", "MEASURED"), ("small", "ESTIMATED"))
    ]
    return make_run("pooled", pools=pools)


def warned(make_run: Callable[..., Run]) -> Run:
    """More warnings than there is room for, and everything else there may be."""
    warnings = [f"warning number {at}: " + "some words that say what to do about it, " * 6 for at in range(9)]
    lifetimes = [[0, None, 0.0, None], [1, 1.0, 2.0, 19.0]]
    pools = [{"name": name, "replicas": 1, "devices": 1, "price_per_hour": 2.0} for name in ("large", "small")]
    return make_run("warned", lifetimes=lifetimes, outages=[], pools=pools, warnings=warnings, hardware="a" * 200)


RUNS: dict[str, Callable[[Callable[..., Run]], Run]] = {
    "plain": lambda make: make("plain", edit=finish),
    "flowing": lambda make: many(make, 0.5),
    "overloaded": lambda make: many(make, 2.0),
    "scaled": scaled,
    "pooled": pooled,
    "replayed": lambda make: make("replayed", kind="replay", drift=0.14, interrupted=True),
    "warned": warned,
}


def printed(run: Run, width: int = WIDTH) -> list[str]:
    out = io.StringIO()
    show(Comparison.of([run]), Console(file=out, width=width), ending=ENDING)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_ends_with_a_dozen_lines_of_80_columns(make_run: Callable[..., Run], kind: str) -> None:
    lines = printed(RUNS[kind](make_run))
    assert len(lines) <= MOST_LINES, "\n".join(lines)
    assert max(map(len, lines)) <= WIDTH, "\n".join(lines)
    text = "\n".join(lines)
    for wanted in ("P50", "P95", "P99", "Goodput", "requests", "Trust", "--all shows everything"):
        assert wanted in text, wanted


@pytest.mark.parametrize("fixture", ["empty_run", "lost_run", "interrupted_run", "loading_run"])
def test_odd_runs_have_their_dozen_lines_too(fixture: str, request: pytest.FixtureRequest) -> None:
    lines = printed(request.getfixturevalue(fixture))
    assert len(lines) <= MOST_LINES
    assert "nan" not in "\n".join(lines)


def test_what_is_said_of_each_kind_of_run(make_run: Callable[..., Run]) -> None:
    said = {kind: "\n".join(printed(make(make_run))) for kind, make in list(RUNS.items())[2:]}
    assert said["overloaded"].startswith("! OVERLOADED: requests arrive 2 times as fast as they are served")
    assert "every figure depends on how long the trace is" in said["overloaded"].replace("\n  ", " ")
    assert "paid for in the mean, of at most 2" in said["scaled"]
    assert "replicas in working order" in said["scaled"]
    assert "times are ESTIMATED, least trusted of the pools'" in said["pooled"]
    assert "Pools     2 requests ran in none · " in said["pooled"]
    assert "small 100.0 % in time" in said["pooled"]
    assert "ran on real devices · steps took 14 % longer than the profile says" in said["replayed"]


def test_warnings_that_have_no_room_are_counted(make_run: Callable[..., Run]) -> None:
    run = warned(make_run)
    lines = printed(run)
    brief = Brief.of(Comparison.of([run]))
    shown = sum(line.startswith("! ") for line in lines) - 1
    assert f"! {len(brief.notes) - shown} more warnings: --all shows them" in lines
    assert shown >= 1
    everything = io.StringIO()
    show(Comparison.of([run]), Console(file=everything, width=WIDTH), every=True)
    assert all(f"warning number {at}" in everything.getvalue() for at in range(9))
    assert max(map(len, everything.getvalue().splitlines())) <= WIDTH


@pytest.mark.parametrize("room", range(1, 5))
def test_a_warning_never_ends_with_a_word_that_promises_more(room: int) -> None:
    text = "70 % of the requests never finished (18 dropped); means are of the 30.0 % that finished; mostly: too late."
    brief = Brief("One request.", (), (Note(text),))
    lines = brief.lines(most=1 + room, width=80)
    assert not any(line.text.rstrip(".").endswith("mostly") for line in lines)


def test_a_path_is_never_broken(make_run: Callable[..., Run], tmp_path: Path) -> None:
    path = "/" + "folder" * 20
    lines = [line.text for line in Brief.of(Comparison.of([make_run()])).lines([f"wrote {path}"])]
    assert path in lines
