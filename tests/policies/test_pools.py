"""Pools of unlike replicas: who serves what, and where requests go."""

from __future__ import annotations

import pytest

from policies.contract import Decision, PolicyError, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.pool import Pool
from policies.routing import ROUTINGS
from policies.scheduling import SCHEDULERS
from predictors.costs import Batch, CostModel
from traces.request import Request


class Seconds(CostModel):
    """A step of every stage takes so many seconds of each model."""

    def __init__(self, **of: float) -> None:
        self.of = of

    def step_s(self, stage: str, batch: Batch) -> float:
        return self.of[batch.model]


def asked(name: str, model: str = "picture", **more: object) -> Request:
    return Request(name, 0.0, 64, 64, 4, model=model, **more)  # type: ignore[arg-type]


FAST, SLOW = (
    Pool(Seconds(picture=1.0, clip=9.0), 2, "fast"),
    Pool(Seconds(picture=3.0), 2, "slow", frozenset({"picture"})),
)


def where(controller: Controller, name: str) -> str:
    """The pool in whose queue a request waits, or where it runs."""
    held = [r.pool.name for r in controller._replicas if name in r.queue or name in r.resident]
    assert len(set(held)) == 1
    return held[0]


@pytest.mark.parametrize("name", ROUTINGS)
def test_only_a_pool_that_serves_a_model_gets_its_requests(name: str) -> None:
    controller = Controller(SCHEDULERS["fcfs"](), [SLOW, FAST], routing=ROUTINGS[name]())
    for at in range(6):
        controller.submit(asked(f"c{at}", "clip"), 0.0)
    assert {where(controller, f"c{at}") for at in range(6)} == {"fast"}
    assert {launch.replica for launch in controller.launches(0.0)} <= {2, 3}


@pytest.mark.parametrize("name", ["shared", "earliest-completion", "least-work", "affinity"])
def test_a_request_goes_where_it_would_be_done_first(name: str) -> None:
    controller = Controller(SCHEDULERS["fcfs"](), [SLOW, FAST], routing=ROUTINGS[name]())
    went = []
    for at in range(40):
        controller.submit(asked(f"p{at}"), 0.0)
        went.append(where(controller, f"p{at}"))
    assert went[0] == "fast"  # and the slow ones when there is too much to do
    assert 5 <= went.count("slow") <= 15


def test_a_launch_costs_what_its_own_pool_says() -> None:
    controller = Controller(SCHEDULERS["fcfs"](), [SLOW, FAST], routing=ROUTINGS["round-robin"]())
    for at in range(4):
        controller.submit(asked(f"p{at}"), 0.0)
    started = controller.launches(0.0)
    assert {launch.replica: launch.predicted_step_s[0] for launch in started} == {0: 3.0, 1: 3.0, 2: 1.0, 3: 1.0}


def test_what_waits_for_a_pool_that_fails_goes_to_another_or_waits() -> None:
    controller = Controller(SCHEDULERS["fcfs"](), [SLOW, FAST])
    for model in ("picture", "clip"):
        controller.submit(asked(model, model), 0.0)
    assert (where(controller, "picture"), where(controller, "clip")) == ("fast", "fast")
    controller.replica_down(2, 1.0)
    assert where(controller, "picture") == "fast"  # the other one there works
    controller.replica_down(3, 1.0)
    assert where(controller, "picture") == "slow"
    assert [launch.jobs[0].request.request_id for launch in controller.launches(1.0)] == ["picture"]
    controller.replica_up(3, 2.0)
    assert [(launch.replica, launch.jobs[0].request.request_id) for launch in controller.launches(2.0)] == [(3, "clip")]


def test_a_batch_holds_one_model() -> None:
    class Both(SchedulingPolicy):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            return Decision(tuple(replica.queue.values()), 1)

    controller = Controller(Both(), [FAST])
    for model in ("picture", "clip"):
        controller.submit(asked(model, model), 0.0)
    with pytest.raises(PolicyError, match="mixes models in one launch: 'picture' is of 'picture', 'clip' of 'clip'"):
        controller.launches(0.0)
