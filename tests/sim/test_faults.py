"""Replicas that fail, are repaired and run slowly; clients that leave; under every scheduler."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.controller import IN_FLIGHT, Controller
from policies.events import EventRecord, check_parity
from policies.faults import Faults, Happening
from policies.record import request_table, step_table
from policies.scheduling import SCHEDULERS
from policies.scheduling.fcfs import FCFS
from sim.check_worlds import CheckedWorld
from sim.driver import Simulation
from sim.stalled import Stalled
from tests.examples_tried import examples
from traces.errors import BadInput
from traces.request import Request

WORLD = CheckedWorld(3, 2.5, True)
FAULTS = Faults(mtbf_s=4.0, repair_s=0.5, cold_start_s=0.25, starts_cold=True, straggler_every_s=3.0,
                straggler_for_s=1.0, straggler_slowdown=2.5, patience_s=60.0)  # fmt: skip


def run(
    name: str, per_step: bool = False, in_flight: str = "restart", happenings: Iterator[Happening] | None = None
) -> tuple[Controller, list[Request], list[str]]:
    requests = WORLD.requests(0, 30)
    record = EventRecord()
    controller = WORLD.controller(SCHEDULERS[name](), record.add)
    if happenings is None:
        happenings = FAULTS.happenings(WORLD.replicas, requests, 0)
    Simulation(controller, WORLD.world(0), per_step, None, happenings, in_flight).run(requests)
    return controller, requests, record.lines


def ends(controller: Controller) -> list[tuple]:
    return [(j.request.request_id, j.state, j.finish_s, j.replica, j.request.steps) for j in controller.jobs]


@pytest.mark.parametrize("in_flight", IN_FLIGHT)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_request_ends_once_and_quanta_equal_steps(name: str, in_flight: str) -> None:
    controller, requests, _ = run(name, in_flight=in_flight)
    last = {job.request.request_id: job for job in controller.jobs}
    assert set(last) == {request.request_id for request in requests}
    assert all(job.ended and job.state != "lost" for job in last.values())
    assert {id(job.earlier) for job in controller.jobs if job.earlier} == {
        id(job) for job in controller.jobs if job.state == "lost"
    }
    assert len(controller.outages) > 2
    stepped, _, _ = run(name, per_step=True, in_flight=in_flight)
    assert ends(stepped) == ends(controller)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_nothing_runs_on_a_replica_that_is_down(name: str) -> None:
    controller, _, _ = run(name)
    for launch, _, end_s in controller.launched:
        for replica, down_s, up_s in controller.outages:
            outside = end_s <= down_s or (up_s is not None and launch.start_s >= up_s)
            assert launch.replica != replica or outside


@pytest.mark.parametrize("name", ["fcfs", "least-slack", "lookahead"])
def test_recorded_events_reproduce_every_decision(name: str) -> None:
    _, requests, lines = run(name, in_flight="resume")
    parity = check_parity(
        [json.loads(line) for line in lines], requests, lambda hook: WORLD.controller(SCHEDULERS[name](), hook)
    )
    assert parity.same, parity.difference
    assert any('"down"' in line for line in lines)


def test_in_flight_work_restarts_resumes_or_fails() -> None:
    request = Request("a", 0.0, 512, 512, 10, guidance_scale=1.0)

    def outcome(in_flight: str) -> tuple[list, Controller]:
        controller = CheckedWorld(1, 1.0, False).controller(FCFS())
        world = CheckedWorld(1, 1.0, False).world(0)
        whole = CheckedWorld(1, 1.0, False).controller(FCFS())
        Simulation(whole, CheckedWorld(1, 1.0, False).world(0)).run([request])
        half_s = whole.jobs[0].finish_s / 2
        happenings = [Happening(half_s, "down", 0), Happening(half_s + 100.0, "up", 0)]
        Simulation(controller, world, happenings=happenings, in_flight=in_flight).run([request])
        return [half_s, whole.jobs[0].finish_s], controller

    (half_s, alone_s), restarted = outcome("restart")
    assert restarted.jobs[-1].finish_s == pytest.approx(half_s + 100.0 + alone_s, rel=0.05)
    _, resumed = outcome("resume")
    assert resumed.jobs[-1].finish_s < half_s + 100.0 + 0.75 * alone_s
    _, failed = outcome("fail")
    assert [job.state for job in failed.jobs] == ["failed"]
    assert failed.jobs[0].finish_s == half_s
    for controller, attempts in ((restarted, 2), (resumed, 2), (failed, 1)):
        steps = step_table(controller, lambda stage, composition: False)
        row = request_table(controller, [request], steps, lambda request: 1.0).iloc[0]
        assert row["attempts"] == attempts
        assert row["first_start_s"] == 0.0
        assert row["steps_done"] == (10 if row["status"] == "finished" else controller.jobs[-1].steps_done)


def test_a_slow_spell_stretches_the_steps_that_begin_in_it() -> None:
    def finish_s(happenings: list[Happening]) -> float:
        world = CheckedWorld(1, 1.0, False)
        controller = world.controller(FCFS())
        Simulation(controller, world.world(0), happenings=happenings).run([Request("a", 0.0, 512, 512, 10)])
        return controller.jobs[0].finish_s

    alone_s = finish_s([])
    assert finish_s([Happening(0.0, "slowdown", 0, 2000)]) == pytest.approx(2 * alone_s, rel=1e-3)
    half = finish_s([Happening(alone_s / 2, "slowdown", 0, 2000)])
    assert 1.3 * alone_s < half < 1.6 * alone_s


def test_replicas_that_are_never_repaired_are_named() -> None:
    with pytest.raises(Stalled, match="down and are never repaired"):
        run("fcfs", happenings=iter([Happening(0.0, "down", replica) for replica in range(WORLD.replicas)]))


@settings(max_examples=examples(13), deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_happenings_come_in_order_and_downs_and_ups_alternate(seed: int, replicas: int) -> None:
    faults = Faults(mtbf_s=50.0, repair_s=20.0, cold_start_s=5.0, starts_cold=True, outages=("10:0:100", "60:0:10"),
                    straggler_every_s=30.0, slow=("5:0:50:3",))  # fmt: skip
    listed = list(takewhile(lambda h: h.at_s < 500, faults.happenings(replicas, [], seed)))
    assert [h.at_s for h in listed] == sorted(h.at_s for h in listed)
    for replica in range(replicas):
        verbs = [h.what for h in listed if h.replica == replica and h.what != "slowdown"]
        assert verbs == [("down", "up")[i % 2] for i in range(len(verbs))]
    assert listed == list(takewhile(lambda h: h.at_s < 500, faults.happenings(replicas, [], seed)))


def test_a_client_leaves_after_its_patience() -> None:
    requests = [Request(f"r{i}", float(i), 512, 512, 20) for i in range(2000)]
    happenings = list(islice(Faults(patience_s=30.0).happenings(1, requests, 0), 5000))
    assert len(happenings) == 2000
    arrival = {request.request_id: request.arrival_s for request in requests}
    waited = [h.at_s - arrival[h.request_id] for h in happenings]
    assert sum(waited) / len(waited) == pytest.approx(30.0, rel=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Faults(outages=("600:0",)), "expected start:replica:seconds"),
        (lambda: Faults(outages=("600:0:-1",)), "-1 in '600:0:-1', expected a number of 0.001 to 1,000,000,000 s"),
        (lambda: Faults(outages=("nan:0:1",)), "nan in 'nan:0:1', expected a number of 0"),
        (lambda: Faults(outages=("0:0.5:1",)), "0.5 in '0:0.5:1', expected a whole number"),
        (lambda: Faults(slow=("0:0:1:1e300",)), "expected a number of 0.001 to 1,000,000 times"),
        (lambda: Faults(mtbf_s=1.0, repair_s=1.0).check(100, 1e6), "about 100,000,000 times in the 1,000,000 s"),
        (lambda: Faults(slow=("600:0:10",)), "expected start:replica:seconds:slowdown"),
        (lambda: Faults(outages=("600:2:10",)).check(2, 60.0), "names replica 2, expected 0 to 1"),
    ],
)
def test_faults_that_cannot_be_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_waits_for_a_replica_that_is_down_runs_elsewhere(name: str) -> None:
    """One of two replicas fails early and is never repaired: the other serves all."""
    world = CheckedWorld(2, 6.0, False)
    controller, requests = world.controller(SCHEDULERS[name]()), world.requests(1, 40)
    Simulation(controller, world.world(1), happenings=[Happening(0.5, "down", 0)]).run(requests)
    assert all(job.ended for job in controller.jobs)
    assert all(launch.replica == 1 for launch, _, _ in controller.launched if launch.start_s > 0.5)


def test_the_clock_of_faults_starts_at_the_first_request() -> None:
    early = [Request(str(n), 10.0 * n, 64, 64, 4) for n in range(50)]
    faults = Faults(mtbf_s=30.0, repair_s=5.0, starts_cold=True, cold_start_s=2.0, outages=("100:1:7",),
                    straggler_every_s=50.0, slow=("200:0:9:3",), patience_s=100.0)  # fmt: skip
    epoch_s = 2.0**30  # from which differences of seconds are exact to a millionth
    late = [replace(request, arrival_s=request.arrival_s + epoch_s) for request in early]
    first, second = (list(islice(faults.happenings(2, trace, 7), 300)) for trace in (early, late))
    assert [one[1:] for one in first] == [one[1:] for one in second]
    assert [one.at_s for one in first] == pytest.approx([one.at_s - epoch_s for one in second], abs=1e-5)


def test_failures_that_no_request_survives_end_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.driver._MOST_HAPPENINGS", 5000)
    world = CheckedWorld(1, 2.5, True)
    request = Request("a", 0.0, 512, 512, 1000)
    happenings = Faults(mtbf_s=1.0, repair_s=0.001).happenings(1, [request], 0)
    simulation = Simulation(world.controller(FCFS()), world.world(0), False, None, happenings, "restart")
    with pytest.raises(Stalled, match="they fail sooner than any request is done"):
        simulation.run([request])
