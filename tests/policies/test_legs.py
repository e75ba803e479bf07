"""Requests that go on from pool to pool, by hand and whatever happens."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import Launch, Outcome
from policies.controller import Controller
from policies.events import EventRecord, Ledger, check_parity
from policies.faults import Happening
from policies.legs import Legs, check_stages, standalone_on
from policies.pool import Pool
from policies.record import request_table, run_arrays, step_table
from policies.routing import ROUTINGS
from policies.run_arrays import STATUSES
from policies.scaling import QueueLength
from policies.scaling.elastic import Elastic
from policies.scheduling import EDF, FCFS, SCHEDULERS
from policies.weights import ModelSwapping
from predictors.costs import Batch
from sim.check_ended import check_conservation
from sim.check_worlds import CheckedWorld, IrregularCosts
from sim.driver import Simulation
from sim.world import World
from tests.examples_tried import examples
from traces.errors import BadInput
from traces.request import Request
from traces.stages import RECEIVE, ordinary

STAGE_S = {"encode": 1.0, "denoise": 0.5, "decode": 3.0}
APART = (("encode", "denoise"), ("decode",))
TWICE = (("denoise",), ("encode", "decode"))
DIVISIONS = (APART, TWICE, (("encode",), ("denoise",), ("decode",)), (("encode",), ("denoise", "decode")))


class Costs(IrregularCosts):
    """Round seconds; what is handed on takes a quarter of one, and is 100 bytes a picture."""

    def step_s(self, stage: str, batch: Batch) -> float:
        return 0.25 if stage == RECEIVE else STAGE_S[stage]

    def moved_bytes(self, stage: str, batch: Batch) -> float:
        return 100.0 * sum([count for _, count in batch.composition])


def request(name: str, arrival_s: float = 0.0, steps: int = 4, **more: Any) -> Request:
    return Request(name, arrival_s, 256, 256, steps, **more)


def pools(*stages: tuple[str, ...], costs: IrregularCosts | None = None, replicas: int = 1) -> list[Pool]:
    of = Costs() if costs is None else costs
    return [Pool(of, replicas, name="+".join(each), stages=frozenset(each)) for each in stages]


def done(launch: Launch, steps: int | None = None) -> Outcome:
    """A launch ended after so many steps, all by default, as was predicted."""
    ends_s, at_s = [], launch.start_s
    reached = launch.done(launch.steps if steps is None else steps)
    for segment in reached[:-1]:
        at_s += segment.steps * segment.predicted_step_s
        ends_s.append(at_s)
    return Outcome(launch.steps if steps is None else steps, stage_ends_s=tuple(ends_s))


def started(controller: Controller, now: float) -> dict[int, Launch]:
    return {launch.replica: launch for launch in controller.launches(now)}


def test_a_request_goes_on_where_its_next_stage_is_served_and_brings_what_it_has() -> None:
    c = Controller(FCFS(), pools(*APART))
    c.submit(request("a"), 0.0)
    first = started(c, 0.0)[0]
    assert first.work.stages == (("encode", 1), ("denoise", 4))
    c.complete(first, done(first), 3.0)
    assert c.open == 1
    second = started(c, 3.0)[1]
    assert second.work.stages == ((RECEIVE, 1), ("decode", 1))
    assert second.work.received == Batch("", (((256, 256, 1), 1),), 1.0)
    assert second.predicted_step_s == (0.25, 3.0)
    assert c.resident_on(0) == []
    c.complete(second, done(second), 6.25)
    assert [(job.state, job.replica, job.finish_s) for job in c.jobs] == [("passed", 0, 3.0), ("finished", 1, 6.25)]
    assert c.jobs[1].earlier is c.jobs[0]
    assert c.open == 0


def test_a_leg_is_due_so_early_that_the_later_ones_have_their_time() -> None:
    c = Controller(EDF(), pools(*APART))
    c.submit(request("a", 10.0, deadline_s=100.0), 10.0)
    c.submit(request("b", 10.0, slo_s=1.0), 10.0)  # hopeless
    c.submit(request("c", 10.0), 10.0)
    a, b, without = (job.request for job in c.jobs)
    assert a.deadline == 100.0 - 3.25
    assert b.arrival_s < b.deadline < 10.0 + 1e-9
    assert without.deadline == float("inf")
    launch = started(c, 10.0)[0]
    c.complete(launch, done(launch), 13.0)
    started(c, 13.0)
    a_again = next(job for job in c.jobs if job.receives and job.asked.request_id == "a")
    assert (a_again.request.arrival_s, a_again.request.deadline, a_again.asked.arrival_s) == (13.0, 100.0, 10.0)
    assert standalone_on(pools(*APART))(a) == 3.0 + 3.25


def test_the_fastest_pool_counts() -> None:
    class Slow(Costs):
        def step_s(self, stage: str, batch: Batch) -> float:
            return 10 * super().step_s(stage, batch)

    both = [*pools(*APART), *pools(("decode",), costs=Slow())]
    assert standalone_on(both)(request("a")) == 3.0 + 3.25
    c = Controller(FCFS(), both)
    for name in "abcd":
        c.submit(request(name), 0.0)
    now = 0.0
    while c.open:
        now += 1.0
        for launch in started(c, now).values():
            c.complete(launch, done(launch), now)
    assert {job.replica for job in c.jobs if job.leg and job.leg.number} == {1}  # of ten, one more is sooner done there


def test_who_leaves_at_the_border_is_cancelled_wherever_it_is() -> None:
    c = Controller(FCFS(), pools(*APART))
    for name in ("a", "b"):
        c.submit(request(name), 0.0)
    launch = started(c, 0.0)[0]
    c.cancel("a", 1.0)  # ends with its launch
    c.complete(launch, done(launch), 3.0)
    assert [job.state for job in c.jobs] == ["cancelled", "waiting"]
    launch = started(c, 3.0)[0]
    c.complete(launch, done(launch), 6.0)
    c.cancel("b", 6.0)  # between its legs
    assert [job.state for job in c.jobs] == ["cancelled", "passed", "cancelled"]
    assert c.open == 0
    assert c.launches(6.0) == []


def test_a_lost_leg_begins_again_with_what_it_was_handed_and_no_other_does() -> None:
    c = Controller(FCFS(), pools(*APART))
    c.submit(request("a"), 0.0)
    c.complete(launch := started(c, 0.0)[0], done(launch), 3.0)
    second = started(c, 3.0)[1]
    c.replica_down(0, 3.5, "restart")  # what came from there is kept
    c.replica_down(1, 4.0, "restart", {second.launch_id: done(second, 1)})
    assert c.launches(4.0) == []
    c.replica_up(1, 5.0)
    third = started(c, 5.0)[1]
    assert third.work.stages == ((RECEIVE, 1), ("decode", 1))
    c.complete(third, done(third)._replace(moved_bytes=100), 8.25)
    assert [job.state for job in c.jobs] == ["passed", "lost", "finished"]
    steps = step_table(c, lambda stage, launch: False)
    assert steps["moved_bytes"].tolist() == [0, 0, 0, 100, 0]
    row = request_table(c, [request("a")], steps, lambda request: 1.0).iloc[0]
    assert (row["replica"], row["replicas"], row["attempts"], row["steps_done"]) == (1, "0 1", 2, 4)
    assert (row["first_start_s"], row["finish_s"]) == (0.0, 8.25)


@pytest.mark.parametrize(("lost_on", "stages"), [(0, ("denoise",)), (1, ("decode",))])
def test_a_resumed_leg_has_the_steps_that_it_lacks(lost_on: int, stages: tuple[str, ...]) -> None:
    c = Controller(FCFS(), pools(*APART, replicas=2))
    c.submit(request("a"), 0.0)
    launch = started(c, 0.0)[0]
    if lost_on == 0:
        c.replica_down(0, 2.0, "resume", {launch.launch_id: done(launch, 3)})
        launch = started(c, 2.0)[1]
        assert launch.work.stages == (("encode", 1), ("denoise", 2))
    c.complete(launch, done(launch), 4.0)
    launch = started(c, 4.0)[2]
    if lost_on == 1:
        c.replica_down(2, 5.0, "resume", {launch.launch_id: done(launch, 1)})
        launch = started(c, 5.0)[3]
    c.complete(launch, done(launch), 9.0)
    steps = step_table(c, lambda stage, launch: False)
    row = request_table(c, [request("a")], steps, lambda request: 1.0).iloc[0]
    assert (row["status"], row["steps_done"]) == ("finished", 4)
    assert STAGE_S.keys() >= set(stages)


def test_a_request_that_comes_to_a_pool_twice_shares_no_launch_with_those_that_come_once() -> None:
    controller, _ = run(TWICE, "same-size-continuous", "shared", requests_of(0, 20))
    for launch, _, _ in controller.launched:
        assert len({job.leg and job.leg.number for job in launch.jobs}) == 1
    assert {job.state for job in controller.jobs} == {"passed", "finished"}


def test_replicas_of_each_pool_come_and_go_by_its_own_work() -> None:
    elastic = Elastic(QueueLength(), least=0, start_s=0.5)
    of = [Pool(Costs(), 2, name=each[0], stages=frozenset(each), elastic=elastic) for each in APART]
    controller = Controller(FCFS(), of)
    requests = [request(f"r{at}", 0.1 * at) for at in range(6)]
    Simulation(controller, World(Costs(), 4), start_s=[0.5] * 4).run(requests)
    assert {job.state for job in controller.jobs} == {"passed", "finished"}
    ordered = {replica: at_s for replica, at_s, _, _ in reversed(controller.lifetimes) if at_s is not None}
    assert ordered[0] == 0.0
    assert ordered[2] >= 3.0  # nothing is decoded before
    arrays = run_arrays(controller, requests, of, lifetimes=controller.lifetimes)
    for pool in arrays.pools:
        assert len(arrays.of_pool(pool).requests) == 6
    assert len(arrays.of_replica(0).requests) + len(arrays.of_replica(1).requests) == 6


def test_policies_see_a_leg_without_denoising_as_a_request_of_one_step() -> None:
    _, leg = Legs(pools(*APART)).recipes(request("a"), ordinary(request("a")))
    assert leg == (("decode", 1),)
    c = Controller(FCFS(), pools(*APART))
    c.submit(request("a"), 0.0)
    c.complete(launch := started(c, 0.0)[0], done(launch), 3.0)
    job = c.pass_on(3.0)[0]
    assert (job.denoise_steps, job.denoise_left, job.preparing, job.finishing) == (1, 1, False, False)
    assert (job.kind.main, job.kind.finish_steps, job.sampled) == ("decode", 0, 0)
    first = c.jobs[0]
    assert (first.denoise_steps, first.kind.finish_steps, first.sampled, first.done) == (4, 0, 4, True)


@pytest.mark.parametrize(
    ("serving", "said"),
    [
        (
            {"a": {"denoise"}, "b": {"decode"}},
            "no pool serves the stage encode of 'm': of it there are 'a' denoise",
        ),
        (
            {"a": {"encode", "denoise"}, "b": {"denoise", "decode"}},
            "pools 'a' and 'b' both serve denoise of 'm', but only one of them decode and encode: expected",
        ),
        ({"a": set(), "b": {"decode"}}, "pools 'a' and 'b' both serve decode of 'm', but only one"),
    ],
)
def test_stages_that_cannot_be_are_said_in_one_line(serving: dict[str, set[str]], said: str) -> None:
    with pytest.raises(BadInput, match=said) as found:
        check_stages({name: frozenset(of) for name, of in serving.items()}, "m", ("encode", "denoise", "decode"))
    assert "\n" not in str(found.value)


def requests_of(seed: int, count: int) -> list[Request]:
    return CheckedWorld(3, 8.0, seed % 2 == 1).requests(seed, count)


def controller_of(stages: Any, name: str, routing: str, on_event: Any = None, replicas: int = 2) -> Controller:
    policy = SCHEDULERS[name]()
    twice = stages == TWICE
    return Controller(
        ModelSwapping(policy) if twice else policy,
        pools(*stages, costs=Sized(), replicas=replicas),
        on_event=on_event,
        routing=ROUTINGS[routing](),
    )


class Sized(IrregularCosts):
    def moved_bytes(self, stage: str, batch: Batch) -> float:
        return float(sum([size[0] * size[1] * count for size, count in batch.composition]))


def run(
    stages: Any,
    name: str,
    routing: str,
    requests: list[Request],
    happenings: tuple[Happening, ...] = (),
    in_flight: str = "restart",
    per_step: bool = False,
) -> tuple[Controller, list[str]]:
    record = EventRecord()
    controller = controller_of(stages, name, routing, record.add)
    world = World(Sized(), 2 * len(stages), 3)
    Simulation(controller, world, per_step, None, iter(happenings) if happenings else None, in_flight).run(requests)
    return controller, record.lines


@settings(max_examples=examples(12), deadline=None)
@given(st.data())
def test_every_request_ends_once_and_every_stage_is_done_once_whatever_happens(data: st.DataObject) -> None:
    """Any division of stages, scheduler, routing, failures and clients that leave; by quanta, by steps, from events."""
    stages = data.draw(st.sampled_from(DIVISIONS))
    name, routing = data.draw(st.sampled_from(sorted(SCHEDULERS))), data.draw(st.sampled_from(sorted(ROUTINGS)))
    in_flight = data.draw(st.sampled_from(["restart", "resume", "fail"]))
    requests = requests_of(data.draw(st.integers(0, 5)), 10)
    happenings, at_s = [], 0.0
    for _ in range(data.draw(st.integers(0, 3))):
        at_s += data.draw(st.sampled_from([0.137, 0.713, 1.31]))
        replica = data.draw(st.integers(0, 2 * len(stages) - 1))
        happenings += [Happening(at_s, "down", replica), Happening(at_s + 0.4, "up", replica)]
        happenings.append(Happening(at_s + 0.45, "cancel", request_id=f"r{data.draw(st.integers(0, 9))}"))
        at_s += 0.5
    controller, lines = run(stages, name, routing, requests, tuple(happenings), in_flight)
    if in_flight != "resume":  # which asks for fewer steps
        check_conservation(SCHEDULERS[name](), controller, requests)
    for request in requests:
        jobs = [job for job in controller.jobs if job.request.request_id == request.request_id]
        assert all(job.ended for job in jobs)
        assert [job.state in STATUSES for job in jobs] == [False] * (len(jobs) - 1) + [True]
    stepped, _ = run(stages, name, routing, requests, tuple(happenings), in_flight, per_step=True)
    ends = [[(job.state, job.finish_s, job.replica) for job in each.jobs] for each in (controller, stepped)]
    assert ends[0] == ends[1]

    events = [json.loads(line) for line in lines]
    parity = check_parity(events, requests, lambda hook: controller_of(stages, name, routing, hook))
    assert parity.same, parity.difference
    ledger = Ledger(requests, 2 * len(stages))
    for event in events:
        ledger.tell(event)
    tables = []
    for each in (controller, ledger):
        steps = step_table(each, lambda stage, launch: False)
        tables.append((request_table(each, requests, steps, lambda request: 1.0), steps))
    for mine, theirs in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(mine, theirs)

    received = 0
    for launch, outcome, _ in controller.launched:
        pool = stages[launch.replica // 2]
        assert {stage for stage, _ in launch.work.stages} <= {*pool, RECEIVE}
        fresh = [job for job in launch.jobs if job.receives and job.first_start_s == launch.start_s]
        assert bool(fresh) == (launch.stage == RECEIVE)
        if fresh and outcome.steps_done:
            assert outcome.moved_bytes == sum(job.request.height * job.request.width * job.images for job in fresh)
        received += outcome.moved_bytes
    assert tables[0][1]["moved_bytes"].sum() == received
