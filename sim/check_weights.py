"""What `sim.check` holds weights policies to: more checkpoints than a small cluster can hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from policies.controller import Controller
from policies.events import EventRecord
from policies.faults import Happening
from policies.guard import broken, copied_for_run, parameters_of
from policies.routing import ROUTINGS
from policies.scheduling import FCFS
from policies.weights import ModelSwapping, WeightsPolicy
from predictors.loading import LoadTimes, Weights
from sim.check_worlds import CheckedWorld, IrregularCosts
from sim.driver import Simulation
from sim.world import World
from traces.request import Request
from traces.stages import ordinary
from traces.streams import stream

_WEIGHTS = Weights(10.0, 4.0, disk_gb_per_s=40.0, load_s=0.013, of={"c1": 1.5})
_FAILURE = (Happening(1.0, "down", 0), Happening(2.0, "up", 0))


def check_weights(policy: WeightsPolicy, seed: int = 0) -> None:
    """Requests for six checkpoints, on one replica and on three of which one fails, bound to replicas and not.

    Raises:
        PolicyError: a request is left, the same run twice differs, or the policy changed its own parameters.
    """
    before = parameters_of(policy)
    for replicas, routing in ((1, "shared"), (3, "affinity"), (3, "shared")):
        requests = _requests(seed, replicas)
        first, ended = _run(policy, requests, replicas, routing, seed)
        again, _ = _run(copied_for_run(policy), requests, replicas, routing, seed)
        if first != again:
            raise broken(policy, "is not deterministic: the same run twice gave different decisions")
        if not ended:
            raise broken(policy, "left requests that have not ended")
    if parameters_of(policy) != before:
        raise broken(policy, "changed its own parameters during a run; per-run state belongs in reset")


def _requests(seed: int, replicas: int) -> list[Request]:
    requests = CheckedWorld(replicas, 4.0 * replicas, False).requests(seed, 60)
    drawn = stream(seed, "check/weights").choice(6, len(requests), p=np.array([8, 4, 3, 2, 2, 1]) / 20)
    return [replace(one, checkpoint=f"c{c}") for one, c in zip(requests, drawn.tolist(), strict=True)]


def _run(
    policy: WeightsPolicy, requests: list[Request], replicas: int, routing: str, seed: int
) -> tuple[list[str], bool]:
    """What was decided, and whether every request has ended."""
    swapping, record = ModelSwapping(FCFS(), policy), EventRecord()
    controller = Controller(
        swapping, IrregularCosts(), replicas, ordinary, record.add, _WEIGHTS, routing=ROUTINGS[routing]()
    )
    world = World(IrregularCosts(), replicas, seed, loads=LoadTimes(_WEIGHTS, [()] * replicas))
    Simulation(controller, world, happenings=iter(_FAILURE) if replicas > 1 else None).run(requests)
    return record.lines, all(job.ended for job in controller.jobs)
