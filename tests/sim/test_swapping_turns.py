"""Models that share replicas: what runs does not depend on how steps are grouped into launches."""

from __future__ import annotations

import numpy as np
import pytest

from policies.controller import Controller
from policies.routing import ROUTINGS
from policies.scheduling import SCHEDULERS
from policies.weights import ModelSwapping
from predictors.costs import Batch, CostModel
from sim.driver import Simulation
from sim.world import World
from traces.request import Request
from traces.streams import stream

STEP_S = {"picture": 0.0713, "clip": 0.5391}


class Shared(CostModel):
    """Each image more takes six tenths of the first."""

    def step_s(self, stage: str, batch: Batch) -> float:
        return STEP_S[batch.model] * (0.4 + 0.6 * sum([count for _, count in batch.composition]))


def requests(seed: int, count: int = 25) -> list[Request]:
    rng = stream(seed, "turns")
    arrivals = np.cumsum(rng.exponential(0.9, count))
    return [
        Request(
            f"r{at}",
            float(arrival_s),
            64,
            64 * int(rng.integers(1, 3)),
            int(rng.integers(3, 12)),
            model="clip" if rng.random() < 0.3 else "picture",
            slo_s=float(rng.uniform(3, 30)) if rng.random() < 0.8 else None,
        )
        for at, arrival_s in enumerate(arrivals)
    ]


@pytest.mark.parametrize("routing", ["shared", "affinity"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_turns_pass_at_the_same_steps_whether_launches_are_of_one_step_or_of_many(name: str, routing: str) -> None:
    launches = {False: 0, True: 0}
    for seed in range(2):
        ended = []
        for per_step in (False, True):
            controller = Controller(
                ModelSwapping(SCHEDULERS[name]()), Shared(), 1 + seed % 2, routing=ROUTINGS[routing]()
            )
            Simulation(controller, World(Shared(), 1 + seed % 2), per_step).run(requests(seed))
            ended.append([(job.request.request_id, job.state, job.finish_s, job.replica) for job in controller.jobs])
            launches[per_step] += len(controller.launched)
        assert ended[0] == ended[1]
    assert launches[False] < launches[True]
