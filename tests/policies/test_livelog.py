"""The log of a run while it runs: whatever moment it is killed at, what had ended is there, once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from policies.contract import PolicyError
from policies.livelog import EVENTS, LiveLog, still_open
from policies.record import request_table, step_table
from policies.runlog import REPLAY, Run, read_run
from policies.scheduling import FCFS
from reports.checks import check_run, checked
from reports.figures import summary
from reports.notes import run_notes
from sim.check_worlds import CheckedWorld
from sim.driver import Simulation
from tests.waiting import comes_true
from traces.files import read_table
from traces.notes import Note
from traces.output import Folder, claim_folder
from traces.request import Request
from traces.trace import Trace

WORLD = CheckedWorld(2, 12.0, False)
REQUESTS = WORLD.requests(0, 40)
INFO = {"kind": "replay", "replicas": 2, "started": "now"}


class Killed(BaseException):
    """Stands for a kill: nobody catches it, and nothing is written after it."""


def log_of(folder: Folder, killed_after: float = math.inf, error: type[BaseException] = Killed, **more: Any) -> LiveLog:
    """A log whose run ends by ``error`` after so many events."""

    class Limited(LiveLog):
        left = killed_after

        def take(self, event: dict[str, Any], line: str) -> None:
            self.left -= 1
            if self.left < 0:
                raise error
            super().take(event, line)

    def inputs() -> dict[str, Any]:
        Trace.from_requests(REQUESTS).save(folder.path / "trace.parquet")
        return {}

    def never(stage: str, composition: object) -> bool:
        return False

    return Limited(folder, REQUESTS, WORLD.replicas, WORLD.costs.standalone_s, never, {**INFO, **more}, inputs)


def simulate(log: LiveLog) -> Any:
    controller = WORLD.controller(FCFS(), log.add)
    Simulation(controller, WORLD.world(0)).run(REQUESTS)
    return controller


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A run that was killed after 110 events."""
    with claim_folder(tmp_path / "run", REPLAY) as folder:
        with pytest.raises(Killed):
            simulate(log_of(folder, 110))
        return folder.path


def test_the_tables_are_those_of_the_controller(tmp_path: Path) -> None:
    with claim_folder(tmp_path / "run", REPLAY) as folder:
        log = log_of(folder)
        with log:
            controller = simulate(log)
            log.close(interrupted=False, drift=0.5)
    run = read_run(tmp_path / "run")
    steps = step_table(controller, lambda stage, composition: False)
    pd.testing.assert_frame_equal(run.steps, steps, check_dtype=False)
    requests = request_table(controller, REQUESTS, steps, WORLD.costs.standalone_s)
    pd.testing.assert_frame_equal(run.requests, requests, check_dtype=False)
    assert {key: run.info[key] for key in ("interrupted", "drift", "started")} == {
        "interrupted": False, "drift": 0.5, "started": "now"
    }  # fmt: skip
    assert "unfinished" not in run.info


def notes_of(run: Run) -> list[Note]:
    arrays = checked(run)
    return run_notes(run, arrays, summary(arrays))


def test_a_killed_run_reads_as_interrupted_with_all_that_had_ended(killed: Path) -> None:
    whole = killed.joinpath(EVENTS).read_bytes()
    ended = []
    for cut in range(0, len(whole), 997):  # in the middle of lines, too
        killed.joinpath(EVENTS).write_bytes(whole[:cut])
        run = read_run(killed)
        check_run(run)
        assert run.requests["request_id"].tolist() == [request.request_id for request in REQUESTS]
        ended.append(int((run.requests["status"] == "finished").sum()))
        assert run.info["interrupted"]
    assert ended == sorted(ended)
    assert ended[-1] > 3
    assert any("was interrupted before its end" in note.text for note in notes_of(run))


def test_tables_follow(tmp_path: Path) -> None:
    with claim_folder(tmp_path / "run", REPLAY) as folder:
        log = log_of(folder, 110)
        with pytest.raises(Killed):
            simulate(log)
        path = folder.path / "requests.parquet"
        known = read_run(folder.path)
        assert comes_true(lambda: read_table(path).to_pandas().equals(known.requests))
        assert (known.requests["status"] == "finished").sum() > 3
        log.settle()


def test_an_error_keeps_what_had_ended_and_nothing_where_nothing_had(tmp_path: Path) -> None:
    for events, kept in ((110, True), (2, False)):
        path = tmp_path / str(events)
        with claim_folder(path, REPLAY) as folder:
            log = log_of(folder, events, PolicyError)
            with pytest.raises(PolicyError), log:
                simulate(log)
        assert path.exists() == kept
        if kept:
            run = read_run(path)
            check_run(run)
            assert run.info["interrupted"]
            assert "unfinished" not in run.info


def test_a_log_that_goes_on_has_every_request_once(killed: Path) -> None:
    first = read_run(killed)
    events = [json.loads(line) for line in killed.joinpath(EVENTS).read_bytes().splitlines()]
    killed.joinpath(EVENTS).write_bytes(killed.joinpath(EVENTS).read_bytes() + b'{"now": 9.9, "sub')
    with claim_folder(killed, REPLAY, goes_on=True) as folder:
        resumed = [{"at_s": events[-1]["now"], "started": "later"}]
        log = LiveLog(
            folder, REQUESTS, 2, WORLD.costs.standalone_s, lambda *_: False, {**INFO, "resumed": resumed}, dict, events
        )
        left = still_open(log.settle(), REQUESTS)
        assert 0 < len(left) < len(REQUESTS)
    with claim_folder(killed, REPLAY, goes_on=True) as folder:
        log = LiveLog(
            folder, REQUESTS, 2, WORLD.costs.standalone_s, lambda *_: False, {**INFO, "resumed": resumed}, dict, events
        )
        with log:
            later = [replace(request, arrival_s=max(request.arrival_s, events[-1]["now"])) for request in left]
            Simulation(WORLD.controller(FCFS(), log.add), WORLD.world(1)).run(later)
            log.close(interrupted=False)
    run = read_run(killed)
    assert run.requests["request_id"].tolist() == [request.request_id for request in REQUESTS]
    assert (run.requests["status"] == "finished").all()
    before = first.requests[first.requests["status"] == "finished"]
    pd.testing.assert_frame_equal(run.requests.loc[before.index], before)
    assert set(run.requests["attempts"]) == {1, 2}
    assert not run.steps.duplicated(["launch_id", "stage"]).any()
    assert any("was interrupted and resumed at" in note.text for note in notes_of(run))


def test_nothing_ends_twice_and_nobody_is_forgotten(killed: Path) -> None:
    run = Run(killed, *[getattr(read_run(killed), name) for name in ("requests", "steps", "info")])
    done = run.steps.explode("request_ids").groupby("request_ids")["steps"].sum()
    finished = run.requests[run.requests["status"] == "finished"]
    for row in finished.itertuples():
        assert done[row.request_id] == row.steps + 2
    assert isinstance(REQUESTS[0], Request)
