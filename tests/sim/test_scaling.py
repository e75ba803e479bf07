"""Replicas that come and go, in virtual time."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from policies.contract import PolicyError
from policies.controller import Controller
from policies.events import EventRecord, Ledger, check_parity
from policies.faults import Happening
from policies.pool import Pool
from policies.routing import ROUTINGS
from policies.scaling import SCALINGS, DaySchedule, PoolView, QueueLength, ScalingPolicy
from policies.scaling.elastic import Elastic
from policies.scheduling import SCHEDULERS
from sim.check import check_policy
from sim.check_worlds import CheckedWorld, IrregularCosts
from sim.driver import Simulation
from tests.examples_tried import examples
from traces.request import Request

MOST = 4
WORLD = CheckedWorld(MOST, 9.0, False)


class Whims(ScalingPolicy):
    """Wants whatever a list says, one entry a question; asks to be asked."""

    def __init__(self, wanted: tuple[int, ...], every_s: float) -> None:
        self.answers = wanted
        self.every_s = every_s

    def reset(self) -> None:
        self.asked_s = -1.0
        self.times = 0

    def wanted(self, pool: PoolView, now: float) -> int:
        if now >= self.asked_s + self.every_s:
            self.asked_s = now
            self.times += 1
        found = self.answers[self.times % len(self.answers)]
        return max(found, int(bool(pool.jobs)))

    def wakeup(self, now: float) -> float | None:
        return self.asked_s + self.every_s


def run(
    scheduler: str,
    elastic: Elastic,
    requests: Sequence[Request],
    routing: str | None = None,
    per_step: bool = False,
    failures: Sequence[Happening] = (),
    in_flight: str = "restart",
) -> tuple[Controller, list[str]]:
    record = EventRecord()
    controller = made(scheduler, elastic, routing, record.add)
    happenings = iter(failures) if failures else None
    world = WORLD.world(3)
    starts = [0.3137 + 0.011 * i for i in range(MOST)]
    Simulation(controller, world, per_step, None, happenings, in_flight, starts).run(requests)
    return controller, record.lines


def made(scheduler: str, elastic: Elastic, routing: str | None, on_event: Any) -> Controller:
    pools = [Pool(IrregularCosts(), MOST, elastic=elastic)]
    chosen = None if routing is None else ROUTINGS[routing]()
    return Controller(SCHEDULERS[scheduler](), pools, recipe=WORLD.recipe, on_event=on_event, routing=chosen)


def fates(controller: Controller) -> list[tuple[Any, ...]]:
    return [(job.request.request_id, job.state, job.finish_s, job.replica) for job in controller.jobs]


def check(controller: Controller, requests: Sequence[Request], least: int) -> None:
    """Nothing is lost or doubled, never more or fewer replicas than may be, and work only where a replica is."""
    changes = []
    for _, ordered, _, gone in controller.lifetimes:
        changes.append((-1.0 if ordered is None else ordered, 1))
        changes += [] if gone is None else [(gone, -1)]
    count = 0
    for at in sorted({at for at, _ in changes}):
        count += sum([change for when, change in changes if when == at])
        assert least <= count <= MOST
    last = {job.request.request_id: job for job in controller.jobs}
    assert list(last) == [request.request_id for request in requests]
    assert all(job.ended and job.state != "lost" for job in last.values())
    spans: dict[int, list[tuple[float, float]]] = {}
    for replica, ordered, ready, gone in controller.lifetimes:
        begun = -1.0 if ordered is None else ordered
        assert begun <= (begun if ready is None else ready) <= (1e9 if gone is None else gone)
        came = -1.0 if ordered is None else 1e9 if ready is None else ready
        spans.setdefault(replica, []).append((came, 1e9 if gone is None else gone))
    for launch, _, end_s in controller.launched:
        assert any(came <= launch.start_s and end_s <= gone for came, gone in spans[launch.replica])


failing = st.lists(st.tuples(st.floats(0, 8), st.integers(0, MOST - 1), st.floats(0.05, 2)), max_size=4)


@settings(max_examples=examples(12), deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.sampled_from(sorted(SCHEDULERS)),
    st.sampled_from([None, "shared", "least-work", "earliest-completion", "affinity"]),
    st.lists(st.integers(0, MOST + 1), min_size=1, max_size=6),
    st.floats(0.05, 1.5),
    st.integers(0, 2),
    failing,
    st.sampled_from(["restart", "resume", "fail"]),
)
def test_whatever_is_wanted_no_request_is_lost_and_a_quantum_is_a_promise(
    scheduler: str,
    routing: str | None,
    wanted: list[int],
    every_s: float,
    least: int,
    outages: list[tuple[float, int, float]],
    in_flight: str,
) -> None:
    requests = WORLD.requests(1, 25)
    elastic = Elastic(Whims(tuple(wanted), every_s), least, start_s=0.3)
    failures = []
    until = dict.fromkeys(range(MOST), -1.0)
    for at, replica, for_s in sorted(outages):
        if at > until[replica]:
            failures += [Happening(at, "down", replica), Happening(at + for_s, "up", replica)]
            until[replica] = at + for_s
    failures.sort(key=lambda one: one.at_s)
    how: dict[str, Any] = {"routing": routing, "failures": failures, "in_flight": in_flight}
    controller, lines = run(scheduler, elastic, requests, **how)
    check(controller, requests, elastic.least)
    assert run(scheduler, elastic, requests, **how)[1] == lines
    oracle, _ = run(scheduler, elastic, requests, **how, per_step=True)
    assert fates(oracle) == fates(controller)
    assert oracle.lifetimes == controller.lifetimes
    events = [json.loads(line) for line in lines]
    fresh = made(scheduler, elastic, routing, None)
    ledger = Ledger(requests, MOST, initial=[index for index in range(MOST) if fresh.state_of(index) == "ready"])
    for event in events:
        ledger.tell(event)
    assert ledger.lifetimes == controller.lifetimes
    assert ledger.outages == controller.outages
    ended = [(job.request.request_id, job.state, job.finish_s) for job in controller.jobs if job.state != "rerouted"]
    assert sorted([(job.request.request_id, job.state, job.finish_s) for job in ledger.jobs]) == sorted(ended)
    parity = check_parity(events, requests, lambda hook: made(scheduler, elastic, routing, hook))
    assert parity.same, parity.difference


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.sampled_from(["fcfs", "edf", "least-slack", "same-size-continuous"]),
    st.sampled_from(["shared", "least-work"]),
    st.lists(st.integers(0, 2), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.floats(0.1, 1.0),
)
def test_pools_come_and_go_each_for_itself(
    scheduler: str, routing: str, small: list[int], large: list[int], every_s: float
) -> None:
    """One serves one model alone, and may have no replica; the other serves both."""
    requests = [replace(one, model="m" if i % 3 else "n") for i, one in enumerate(WORLD.requests(2, 25))]

    def controller(hook: Any) -> Controller:
        pools = [
            Pool(IrregularCosts(), 1, "small", frozenset({"m"}), elastic=Elastic(Whims(tuple(small), every_s), 0)),
            Pool(IrregularCosts(), 3, "large", elastic=Elastic(Whims(tuple(large), every_s + 0.07), 1)),
        ]
        return Controller(SCHEDULERS[scheduler](), pools, on_event=hook, routing=ROUTINGS[routing]())

    ended = []
    for per_step in (False, True):
        record = EventRecord()
        ran = controller(record.add)
        Simulation(ran, WORLD.world(3), per_step, start_s=[0.3, 0.31, 0.32, 0.33]).run(requests)
        check(ran, requests, 1)
        assert all(job.request.model == "m" for job in ran.jobs if job.replica == 0)
        ended.append((fates(ran), ran.lifetimes))
        parity = check_parity([json.loads(line) for line in record.lines], requests, controller)
        assert parity.same, parity.difference
    assert ended[0] == ended[1]


def test_a_burst_starts_replicas_and_quiet_stops_them() -> None:
    requests = [Request(f"r{i}", 0.0, 512, 512, 8) for i in range(12)] + [Request("late", 60.0, 512, 512, 8)]
    elastic = Elastic(QueueLength(waiting=2.0, keep_alive_s=5.0), least=0, initial=1, start_s=0.3)
    controller, _ = run("fcfs", elastic, requests)
    check(controller, requests, 0)
    started = [life for life in controller.lifetimes if life[1] == 0.0]
    assert len(started) == MOST - 1
    assert all(life[3] is not None for life in controller.lifetimes[:-1])
    _, ordered, ready, gone = controller.lifetimes[-1]
    assert (ordered, ready, gone) == (60.0, pytest.approx(60.3137), None)  # from nothing


@pytest.mark.parametrize("name", SCALINGS)
def test_every_scaling_policy_keeps_the_contract(name: str) -> None:
    policy = DaySchedule("00:00=1 00:01=3 00:05=2") if name == "schedule" else SCALINGS[name]()
    check_policy(policy)


class Never(ScalingPolicy):
    def wanted(self, pool: PoolView, now: float) -> int:
        return 0


class Halves(ScalingPolicy):
    def wanted(self, pool: PoolView, now: float) -> int:
        return len(pool.jobs) / 2  # type: ignore[return-value]


class Asleep(Halves):
    def wanted(self, pool: PoolView, now: float) -> int:
        return 1

    def wakeup(self, now: float) -> float | None:
        return "soon"  # type: ignore[return-value]


class Rolls(ScalingPolicy):
    def wanted(self, pool: PoolView, now: float) -> int:
        return random.randint(1, 3)


class Grouped(ScalingPolicy):
    """Counts steps, of which it depends on the grouping how many are known."""

    def wanted(self, pool: PoolView, now: float) -> int:
        return 1 + sum([job.steps_done for job in pool.jobs.values()]) % 3


class Writes(ScalingPolicy):
    def wanted(self, pool: PoolView, now: float) -> int:
        for job in pool.jobs.values():
            object.__setattr__(job, "steps_left", 1)
        return 1


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Never(), "policy Never wants no replica"),
        (Halves(), "policy Halves answers wanted with"),
        (Asleep(), "policy Asleep answers wakeup with 'soon'"),
        (Rolls(), "policy Rolls is not deterministic"),
        (Grouped(), "policy Grouped breaks the promise of its quanta"),
        (Writes(), "has written to request"),
        (ScalingPolicy(), "policy ScalingPolicy has no wanted"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_broken_scaling_policy_ends_in_one_line(policy: ScalingPolicy, said: str) -> None:
    with pytest.raises(PolicyError, match=said) as told:
        check_policy(policy)
    assert "\n" not in str(told.value)
