"""The event record: what a controller was told is enough to make it decide the same again, learning included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policies.contract import Decision, Outcome
from policies.controller import Controller
from policies.events import EventRecord, Parity, check_parity, read_events
from policies.scheduling import LeastSlack
from predictors.costs import Batch, RepeatNoise
from predictors.online import OnlinePredictor
from sim.driver import Simulation
from sim.world import World
from tests.policies.costs import FlatCosts
from traces.errors import BadInput
from traces.request import Request


class Truth(FlatCosts):
    """A world in which decoding takes thrice and denoising half as long again as anybody thinks, with noise."""

    def step_s(self, stage: str, batch: Batch) -> float:
        return {"encode": 1.0, "denoise": 1.5, "decode": 3.0}[stage] * super().step_s(stage, batch)

    def noise(self, stage: str) -> RepeatNoise:
        return RepeatNoise((0.9, 1.0, 1.1), 2)


class Hurried(LeastSlack):
    """Drops a request as soon as the predictor says that it will be late, so what was learned changes decisions."""

    def plan(self, replica: Any, now: float) -> Any:
        for job in self.cluster.waiting.values():
            if now + replica.costs.standalone_s(job.request) > job.request.deadline:
                return Decision(drop=((job, "late"),))
        return super().plan(replica, now)


def requests() -> list[Request]:
    return [Request(f"r{i}", 1.2 * i, 64 * (1 + i % 2), 64, 2 + i % 3, slo_s=6.0 + i % 5) for i in range(60)]


def record() -> list[dict[str, Any]]:
    taken = EventRecord()
    controller = Controller(Hurried(max_batch=1), OnlinePredictor(FlatCosts()), 1, on_event=taken.add)
    Simulation(controller, World(Truth(), 1)).run(requests())
    assert {job.state for job in controller.jobs} == {"finished", "dropped"}
    return [json.loads(line) for line in taken.lines]


def again(events: list[dict[str, Any]], predictor: Any) -> Parity:
    return check_parity(events, requests(), lambda hook: Controller(Hurried(max_batch=1), predictor, 1, on_event=hook))


def test_a_predictor_that_learns_decides_the_same_again() -> None:
    events = record()
    assert sum("stage_ends" in event.get("complete", {}) for event in events) > 5
    parity = again(events, OnlinePredictor(FlatCosts()))
    assert parity.difference is None
    assert parity.decisions > 50


def test_one_that_learned_before_or_sees_less_is_caught() -> None:
    events = record()
    used = OnlinePredictor(FlatCosts())
    assert again(events, used).same
    assert not again(events, used).same
    assert not again(events, FlatCosts()).same
    for event in events:
        event.get("complete", {}).pop("stage_ends", None)
    assert not again(events, OnlinePredictor(FlatCosts())).same


def test_what_is_no_event_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"now": 1.0, "submit": "a"}\n{"submit": "b"}\n')
    with pytest.raises(BadInput, match=r"events\.jsonl, line 2: not an event"):
        read_events(tmp_path / "events.jsonl")
    with pytest.raises(BadInput, match="cannot be read"):
        read_events(tmp_path / "none.jsonl")


def test_notes_are_recorded_and_come_back() -> None:
    asked, record = [Request("a", 0.0, 64, 64, 2)], EventRecord()
    controller = Controller(LeastSlack(), FlatCosts(), on_event=record.add)
    controller.submit(asked[0], 0.0)
    (launch,) = controller.launches(0.0)
    controller.complete(launch, Outcome(launch.steps, notes={"a": "the prompt was cut"}), 4.0)
    again: list[Controller] = []

    def anew(hook: Any) -> Controller:
        again.append(Controller(LeastSlack(), FlatCosts(), on_event=hook))
        return again[0]

    assert check_parity([json.loads(line) for line in record.lines], asked, anew).same
    assert again[0].jobs[0].note == controller.jobs[0].note == "the prompt was cut"
