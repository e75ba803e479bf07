"""What came of a run, from its events alone: the same tables, and a log that holds at any moment."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import Launch
from policies.controller import IN_FLIGHT
from policies.events import EventRecord, Ledger, Parity, check_parity, read_events
from policies.faults import Faults
from policies.record import INTERRUPTED, Served, request_table, step_table
from policies.runlog import Run
from policies.scheduling import SCHEDULERS
from reports.checks import check_run
from sim.check_worlds import WORLDS, CheckedWorld
from sim.driver import Simulation
from tests.examples_tried import examples
from traces.errors import BadInput
from traces.request import Request

FAULTS = Faults(mtbf_s=4.0, repair_s=0.5, cold_start_s=0.25)


def outside(stage: str, launch: Launch) -> bool:
    return stage == "denoise" and len(launch.composition) > 1


def tables(run: Served, requests: list[Request], world: CheckedWorld, **known: Any) -> tuple[pd.DataFrame, ...]:
    extrapolates = run.extrapolates if isinstance(run, Ledger) else outside
    steps = step_table(run, extrapolates)
    return request_table(run, requests, steps, world.costs.standalone_s, **known), steps


def simulate(
    name: str, world: CheckedWorld, requests: list[Request], in_flight: str | None = None
) -> tuple[Any, list[dict[str, Any]]]:
    record = EventRecord(outside)
    controller = world.controller(SCHEDULERS[name](), record.add)
    happenings = None if in_flight is None else FAULTS.happenings(world.replicas, requests, 0)
    Simulation(controller, world.world(0), False, None, happenings, in_flight or "restart").run(requests)
    return controller, [json.loads(line) for line in record.lines]


def told(events: list[dict[str, Any]], requests: list[Request], world: CheckedWorld) -> Ledger:
    ledger = Ledger(requests, world.replicas)
    for event in events:
        ledger.tell(event)
    return ledger


@pytest.mark.parametrize(
    ("name", "world"), [(name, world) for at, name in enumerate(SCHEDULERS) for world in WORLDS[at % 2 :: 2]]
)
def test_a_ledger_has_the_tables_of_the_controller(name: str, world: CheckedWorld) -> None:
    requests = world.requests(1, 25)
    controller, events = simulate(name, world, requests)
    for mine, theirs in zip(
        tables(told(events, requests, world), requests, world), tables(controller, requests, world), strict=True
    ):
        pd.testing.assert_frame_equal(mine, theirs)


@pytest.mark.parametrize("in_flight", IN_FLIGHT)
def test_also_where_replicas_fail(in_flight: str) -> None:
    world = WORLDS[3]
    requests = world.requests(2, 60)
    controller, events = simulate("edf", world, requests, in_flight)
    assert controller.outages
    for mine, theirs in zip(
        tables(told(events, requests, world), requests, world), tables(controller, requests, world), strict=True
    ):
        pd.testing.assert_frame_equal(mine, theirs)


@cache
def some_run(name: str) -> tuple[list[Request], list[dict[str, Any]]]:
    requests = WORLDS[2].requests(3, 40)
    return requests, simulate(name, WORLDS[2], requests)[1]


@given(st.sampled_from(("fcfs", "patchedserve", "lookahead")), st.data())
@settings(max_examples=examples(12), deadline=None)
def test_a_run_that_is_killed_anywhere_and_goes_on_keeps_every_request_once(name: str, data: st.DataObject) -> None:
    world = WORLDS[2]
    requests, events = some_run(name)
    events = events[: data.draw(st.integers(0, len(events)), "killed after")]
    for _ in range(data.draw(st.integers(0, 2), "resumed")):
        ledger = told(events, requests, world)
        before = ended(ledger)
        left = [request for request in requests if request.request_id not in before]
        _, more = simulate(name, world, left)
        for event in more:
            event["now"] += ledger.now
            if "complete" in event:
                event["complete"]["stage_ends"] = [s + ledger.now for s in event["complete"].get("stage_ends", ())]
        cut = data.draw(st.integers(0, len(more)), "killed after")
        events = [*events, {"now": ledger.now, "resumed": "later"}, *more[:cut]]
        after = ended(told(events, requests, world))
        assert {key: after[key] for key in before} == before
    ledger = told(events, requests, world)
    both = tables(ledger, requests, world, until_s=ledger.now)
    check_run(Run(Path("killed"), *both, {"replicas": world.replicas}))
    assert both[0]["request_id"].tolist() == [request.request_id for request in requests]
    assert not both[1].duplicated(["launch_id", "stage", "start_s"]).any()
    open_jobs = {job.request.request_id for job in ledger.jobs if not job.ended}
    cancelled = both[0].loc[both[0]["reason"] == INTERRUPTED, "request_id"]
    assert set(cancelled) <= open_jobs


def test_every_part_of_a_run_is_checked_for_parity() -> None:
    requests, events = some_run("patchedserve")
    assert any("drop" in event for event in events)
    parts = [*events[: len(events) // 2], {"now": 0.0, "resumed": "later"}, *events]

    def parity(events: list[dict[str, Any]]) -> Parity:
        return check_parity(events, requests, lambda hook: WORLDS[2].controller(SCHEDULERS["patchedserve"](), hook))

    assert parity(parts).difference is None
    assert parity(parts).decisions > parity(events).decisions > 50
    at = next(number for number, event in enumerate(parts) if "drop" in event)
    assert "drops: recorded" in str(parity([*parts[:at], *parts[at + 1 :]]).difference)


def ended(ledger: Ledger) -> dict[str, tuple[str, float | None]]:
    return {job.request.request_id: (job.state, job.finish_s) for job in ledger.jobs if job.ended}


def test_events_that_do_not_follow_are_refused() -> None:
    requests = [Request("a", 0.0, 64, 64, 2)]
    ledger = Ledger(requests, 1)
    with pytest.raises(BadInput, match=r"the event at 1.5 s does not follow"):
        ledger.tell({"now": 1.5, "complete": {"launch": 3, "steps": 1}})
    with pytest.raises(BadInput, match="does not follow"):
        ledger.tell({"now": 2.0, "submit": "nobody"})


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"now": 1.0, "submit": "a"}\n{"now": 2.0, "sub')
    assert read_events(tmp_path / "events.jsonl") == [{"now": 1.0, "submit": "a"}]
    (tmp_path / "events.jsonl").write_text("")
    assert read_events(tmp_path / "events.jsonl") == []
