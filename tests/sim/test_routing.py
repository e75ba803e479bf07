"""Every scheduler behind every kind of routing, simulated while replicas fail, run slowly and clients leave."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policies.controller import IN_FLIGHT, Controller
from policies.events import EventRecord, check_parity
from policies.faults import Faults, Happening
from policies.routing import ROUTINGS, RoundRobin, RoutingPolicy
from policies.scheduling import FCFS, SCHEDULERS
from sim.check import check_policy
from sim.check_worlds import CheckedWorld
from sim.driver import Simulation
from tests.sim.few_requests import fewer_requests
from traces.request import Request

WORLD = CheckedWorld(3, 12.0, True)
ITS_OWN = ("clockwork", "patchedserve", "patchedserve-joins", "rounds")
"""Schedulers that are used with another routing than the shared queue."""
PAIRS = [
    *[(name, "round-robin") for name in SCHEDULERS],
    *[(name, "shared") for name in ITS_OWN],
    *[(name, routing) for name in ("lookahead", "rounds") for routing in ("earliest-completion", "least-work")],
]


def run(
    name: str, routing: str, requests: list[Request], happenings: list[Happening], per_step: bool, in_flight: str
) -> tuple[Controller, list[str]]:
    record = EventRecord()
    controller = WORLD.controller(SCHEDULERS[name](), record.add, ROUTINGS[routing]())
    Simulation(controller, WORLD.world(0), per_step, None, iter(happenings), in_flight).run(requests)
    return controller, record.lines


def ends(controller: Controller) -> list[tuple[Any, ...]]:
    return [(j.request.request_id, j.state, j.finish_s, j.replica, j.request.steps) for j in controller.jobs]


@pytest.mark.parametrize(("name", "routing"), PAIRS)
def test_quanta_are_kept_promises_and_events_say_everything_while_replicas_fail(name: str, routing: str) -> None:
    requests = WORLD.requests(0, 40)
    faults = Faults(mtbf_s=4.0, repair_s=1.0, cold_start_s=0.25, straggler_every_s=3.0, straggler_for_s=1.0,
                    straggler_slowdown=2.5, patience_s=20.0)  # fmt: skip
    happenings = [h for h, _ in zip(faults.happenings(3, requests, 0), range(300), strict=False)]
    in_flight = IN_FLIGHT[len(name) % 3]
    controller, events = run(name, routing, requests, happenings, False, in_flight)
    assert controller.outages
    assert all(job.ended for job in controller.jobs)
    assert {job.request.request_id for job in controller.jobs} == {request.request_id for request in requests}
    assert ends(run(name, routing, requests, happenings, True, in_flight)[0]) == ends(controller)
    recorded = [json.loads(line) for line in events]
    assert any("route" in event for event in recorded) == (routing != "shared")
    parity = check_parity(
        recorded, requests, lambda hook: WORLD.controller(SCHEDULERS[name](), hook, ROUTINGS[routing]())
    )
    assert parity.same, parity.difference


def test_a_route_that_would_now_be_another_is_named() -> None:
    requests = WORLD.requests(0, 10)
    record = EventRecord()
    controller = WORLD.controller(FCFS(), record.add, RoundRobin())
    Simulation(controller, WORLD.world(0)).run(requests)
    recorded = [json.loads(line) for line in record.lines]

    def parity(events: list[Any], routing: RoutingPolicy) -> str | None:
        return check_parity(events, requests, lambda hook: WORLD.controller(FCFS(), hook, routing)).difference

    assert parity(recorded, RoundRobin()) is None
    second = [event for event in recorded if "route" in event][1]["route"]
    second[1] = 2
    assert parity(recorded, RoundRobin()) == f"at 0.0 s, route: recorded ['{second[0]}', 2], now ['{second[0]}', 1]"
    without = [event for event in recorded if "route" not in event]
    assert str(parity(without, RoundRobin())).startswith("at 0.0 s, route: recorded None, now")
    assert str(parity(recorded, ROUTINGS["shared"]())).endswith("now None")


@pytest.mark.parametrize("name", ROUTINGS)
def test_every_shipped_routing_policy_keeps_the_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_requests(monkeypatch, 20)
    check_policy(ROUTINGS[name]())
