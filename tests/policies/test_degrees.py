"""Launches on some of a replica's devices: side by side, and at another degree the next time."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import Cluster, Decision, Outcome, PolicyError, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.events import EventRecord, Ledger
from policies.record import step_table
from policies.scheduling import FCFS, SCHEDULERS, lookahead_degrees
from predictors.costs import CostModel
from sim.check_ended import check_conservation
from sim.check_worlds import CheckedWorld, DividedCosts
from sim.driver import Simulation
from tests.examples_tried import examples
from traces.request import Request

NODE = CheckedWorld(1, 9.0, False, divided=True)


class ByNumber(SchedulingPolicy):
    """Every request runs alone, a few steps at a time, on a number of devices that changes from time to time."""

    usual_routing = "shared"

    def __init__(self, degrees: tuple[int, ...] = (1, 2, 4), steps: int = 3) -> None:
        self.degrees = degrees
        self.steps = steps

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._waiting: list[Any] = []

    def arrived(self, job: Any, now: float) -> None:
        self._waiting.append(job)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        self._waiting = [job for job in self._waiting if job.state == "waiting"]
        for job in (*replica.resident.values(), *self._waiting[:1]):
            if job.state == "running":
                continue
            at = job.order + (job.steps_left - 1) // self.steps
            degree = self.degrees[at % len(self.degrees)]
            if degree <= replica.free_devices:
                return Decision((job,), (job.steps_left - 1) % self.steps + 1, devices=degree)
        return None


def run(policy: SchedulingPolicy, requests: list[Request], per_step: bool = False) -> tuple[Controller, EventRecord]:
    record = EventRecord()
    controller = NODE.controller(policy, record.add)
    Simulation(controller, NODE.world(0), per_step).run(requests)
    return controller, record


def test_launches_run_side_by_side_on_disjoint_devices() -> None:
    requests = NODE.requests(1, 60)
    controller, _ = run(ByNumber(), requests)
    launched = sorted(controller.launched, key=lambda record: record[0].launch_id)
    assert {len(launch.devices) for launch, _, _ in launched} == {1, 2, 4}
    beside = 0
    for i, (launch, _, end_s) in enumerate(launched):
        assert all(0 <= device < 4 for device in launch.devices)
        for other, _, _ in launched[i + 1 :]:
            if other.start_s < end_s:
                assert not set(other.devices) & set(launch.devices)
                beside += 1
    assert beside > 20
    assert all(launch.batch.devices == len(launch.devices) for launch, _, _ in launched)


def test_another_degree_moves_what_lies_elsewhere_first() -> None:
    controller, _ = run(ByNumber(), [Request("a", 0.0, 256, 256, 8)])
    stages = [[stage for stage, _ in launch.work.stages] for launch, _, _ in controller.launched]
    assert stages == [["encode"], ["reshard", "denoise"], ["reshard", "denoise"], ["reshard", "denoise", "decode"]]
    (job,) = controller.jobs
    assert job.state == "finished"
    assert job.denoise_steps == job.steps_done == 8


def test_the_same_degree_again_moves_nothing() -> None:
    controller, _ = run(ByNumber((2,)), [Request(f"r{i}", 0.0, 256, 256, 8) for i in range(2)])
    assert {launch.devices for launch, _, _ in controller.launched} == {(0, 1), (2, 3)}
    assert not any(launch.moving_steps for launch, _, _ in controller.launched)


def test_what_says_nothing_takes_all_and_devices_are_busy_while_a_step_is_divided() -> None:
    controller, _ = run(FCFS(), [Request("a", 0.0, 256, 256, 4)])
    (launch, outcome, end_s), *_ = controller.launched
    assert launch.devices == (0, 1, 2, 3)
    table = step_table(controller, lambda stage, of: False)
    seconds = table["end_s"] - table["start_s"]
    degree = table["stage"].map({"encode": 1, "denoise": 4, "decode": 4})
    assert table["device_s"].tolist() == pytest.approx((seconds * degree).tolist())
    assert outcome.device_s[0] == pytest.approx(end_s)
    assert len(outcome.device_s) == 4


def test_decoding_has_the_devices_that_its_costs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DividedCosts, "degree", CostModel.degree)  # decoding on one
    controller, _ = run(FCFS(), [Request("a", 0.0, 256, 256, 4)])
    (launch, outcome, end_s), *_ = controller.launched
    assert launch.work.degrees == (1, 4, 1)
    table = step_table(controller, lambda stage, of: False)
    seconds = table["end_s"] - table["start_s"]
    assert table["device_s"].tolist() == pytest.approx((seconds * launch.work.degrees).tolist())
    assert sum(outcome.device_s) == pytest.approx(end_s + 3 * seconds[1])


@pytest.mark.parametrize(("side", "images", "slo_s", "decoding"), [(512, 6, 1.2, 2), (256, 1, 0.09, 1)])
def test_devices_decode_what_they_have_denoised_where_that_takes_little_more_of_them(
    side: int, images: int, slo_s: float, decoding: int
) -> None:
    """Two of them denoise it, that it is in time."""
    request = Request("a", 0.0, side, side, 4, images=images, slo_s=slo_s)
    controller, _ = run(SCHEDULERS["best-fit"](), [request])
    assert [job.state for job in controller.jobs] == ["finished"]
    degrees = {}
    for launch, _, _ in controller.launched:
        degrees |= {stage: degree for (stage, _), degree in zip(launch.work.stages, launch.work.degrees, strict=True)}
    assert (degrees["denoise"], degrees["decode"]) == (2, decoding)


@given(st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 5))
@settings(max_examples=examples(15))
def test_the_record_alone_gives_the_same_launches(degrees: list[int], steps: int, seed: int) -> None:
    requests = NODE.requests(seed, 12)
    policy = ByNumber(tuple(degrees), steps)
    controller, record = run(policy, requests)
    events = [json.loads(line) for line in record.lines]
    ledger = Ledger(requests, 1)
    for event in events:
        ledger.tell(event)
    assert [launch[:2] + launch[-1:] for launch, _, _ in ledger.launched] == [
        launch[:2] + launch[-1:] for launch, _, _ in controller.launched
    ]
    assert [(job.state, job.finish_s) for job in ledger.jobs] == [(job.state, job.finish_s) for job in controller.jobs]


def test_a_failure_takes_all_launches_of_a_replica() -> None:
    controller = NODE.controller(ByNumber((1,)))
    for i in range(3):
        controller.submit(Request(f"r{i}", 0.0, 256, 256, 4), 0.0)
    started = controller.launches(0.0)
    assert [launch.devices for launch in started] == [(0,), (1,), (2,)]
    assert controller._replicas[0].free_devices == 1
    controller.complete(started[1], Outcome(started[1].steps), 0.5)
    assert controller._replicas[0].launches == (started[0], started[2])
    controller.replica_down(0, 1.0, "restart", {started[0].launch_id: Outcome(0), started[2].launch_id: Outcome(0)})
    assert controller._replicas[0].launches == ()
    assert [job.state for job in controller.jobs] == ["lost"] * 3 + ["waiting"] * 3
    controller.replica_up(0, 2.0)
    assert [launch.devices for launch in controller.launches(2.0)] == [(0,), (1,), (2,)]


def test_a_client_that_leaves_ends_its_own_launch() -> None:
    controller = NODE.controller(ByNumber((1,)))
    for i in range(3):
        controller.submit(Request(f"r{i}", 0.0, 256, 256, 4), 0.0)
    started = controller.launches(0.0)
    controller.cancel("r1", 0.1)
    assert controller.recalls(0.1) == [started[1].launch_id]


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (3, "wants 3 devices for '', which runs on 1, 2, 4"),
        (5, "wants 5 devices of replica 0, of which 4 are free"),
        (0, "devices = 0, expected a whole number of at least 1"),
        (True, "devices = True, expected a whole number of at least 1"),
        ((0, 0), "wants devices \\(0, 0\\) of replica 0, which are not all free"),
        ((3, 4), "wants devices \\(3, 4\\) of replica 0, which are not all free"),
    ],
)
def test_devices_that_cannot_be_had_are_named(devices: Any, said: str) -> None:
    class Greedy(FCFS):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            decision = super().plan(replica, now)
            return None if decision is None else decision._replace(devices=devices)

    with pytest.raises(PolicyError, match=said):
        run(Greedy(), [Request("a", 0.0, 256, 256, 4)])


@pytest.mark.parametrize("name", ["lookahead", "tetriserve", "best-fit", "load-adaptive"])
@pytest.mark.parametrize("seed", range(3))
def test_everybody_is_served_or_dropped_where_batches_form(name: str, seed: int) -> None:
    """Small requests in bursts, so that many share a device and one of a batch ends before others have begun."""
    world = CheckedWorld(1, 120.0, True, divided=True)
    requests = world.requests(seed, 240)
    controller = world.controller(SCHEDULERS[name]())
    Simulation(controller, world.world(seed)).run(requests)
    check_conservation(controller.policy, controller, requests)


def test_no_plan_has_two_on_a_device_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[list[Any]] = []
    plan = lookahead_degrees.planned

    def seen(*given: Any) -> Any:
        places, others = plan(*given)
        plans.append(places)
        return places, others

    monkeypatch.setattr(lookahead_degrees, "planned", seen)
    world = CheckedWorld(1, 120.0, True, divided=True)
    for seed in range(2):
        Simulation(world.controller(SCHEDULERS["lookahead"]()), world.world(seed)).run(world.requests(seed, 120))
    assert any(len(place.items) > 1 for places in plans for place in places)
    for places in plans:
        for device in range(4):
            spans = sorted((place.begins_s, place.free_s) for place in places if device in place.devices)
            assert all(before[1] <= after[0] for before, after in pairwise(spans)), spans
