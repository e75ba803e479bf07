"""What `sim.check` holds scaling policies to: a pool that bursts, falls quiet, fails and bursts again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from policies.contract import PolicyError
from policies.controller import Controller
from policies.events import EventRecord, check_parity
from policies.faults import Happening
from policies.guard import broken, parameters_of
from policies.pool import Pool
from policies.routing import ROUTINGS
from policies.scaling import ScalingPolicy
from policies.scaling.elastic import Elastic
from policies.scheduling import MixedFCFS
from sim.check_ended import check_conservation, check_promise
from sim.check_worlds import CheckedWorld, IrregularCosts
from sim.driver import Simulation
from sim.stalled import Stalled
from traces.request import Request

_MOST, _START_S = 3, 0.371
_QUIET_S = 400.0
_WORLD = CheckedWorld(_MOST, 9.0, False)
_FAILURES = (
    Happening(0.7, "down", 1), Happening(1.2, "down", 0), Happening(1.6, "up", 1), Happening(2.0, "up", 0),
    Happening(401.3, "down", 0), Happening(402.1, "up", 0),
)  # fmt: skip


def check_scaling(policy: ScalingPolicy, seed: int = 0) -> None:
    """From no replica and from one, bound to replicas and not, with failures and without.

    Raises:
        PolicyError: a request is left, the same run twice differs, planning at every step gives another, or the policy
            changed its own parameters.
    """
    before = parameters_of(policy)
    requests = _WORLD.requests(seed, 40)
    requests[20:] = [replace(one, arrival_s=one.arrival_s + _QUIET_S) for one in requests[20:]]
    for least, routing, failures in ((0, "shared", ()), (1, "least-work", _FAILURES), (1, "shared", _FAILURES)):
        elastic = Elastic(policy, least, start_s=_START_S)
        first, events = _run(elastic, routing, failures, requests, seed)
        check_conservation(policy, first, requests)
        if _run(elastic, routing, failures, requests, seed)[1] != events:
            raise broken(policy, "is not deterministic: the same run twice gave different decisions")
        oracle, _ = _run(elastic, routing, failures, requests, seed, per_step=True)
        check_promise(policy, first, oracle)
        parity = check_parity(
            [json.loads(line) for line in events],
            requests,
            lambda hook, elastic=elastic, routing=routing: _controller(elastic, routing, hook),  # type: ignore[misc]
        )
        if not parity.same:
            raise broken(policy, f"decides differently for the same events: {parity.difference}")
    if parameters_of(policy) != before:
        raise broken(policy, "changed its own parameters during a run; per-run state belongs in reset")


def _controller(elastic: Elastic, routing: str, on_event: object) -> Controller:
    pools = [Pool(IrregularCosts(), _MOST, elastic=elastic)]
    return Controller(MixedFCFS(), pools, on_event=on_event, routing=ROUTINGS[routing]())  # type: ignore[arg-type]


def _run(
    elastic: Elastic,
    routing: str,
    failures: Sequence[Happening],
    requests: list[Request],
    seed: int,
    per_step: bool = False,
) -> tuple[Controller, list[str]]:
    record = EventRecord()
    controller = _controller(elastic, routing, record.add)
    happenings = iter(failures) if failures else None
    simulation = Simulation(controller, _WORLD.world(seed), per_step, happenings=happenings, start_s=[_START_S] * _MOST)
    try:
        simulation.run(requests)
    except Stalled as error:
        raise PolicyError(str(error)) from error
    return controller, record.lines
