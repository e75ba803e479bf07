"""Pools of unlike replicas: who serves what, and where requests go."""

from __future__ import annotations

import pytest

from policies.contract import Decision, Outcome, PolicyError, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.pool import Pool
from policies.routing import ROUTINGS
from policies.scheduling import SCHEDULERS
from policies.weights import ModelSwapping
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


@pytest.mark.parametrize("name", ["shared", "earliest-completion"])
def test_what_waits_for_one_pool_goes_to_another_that_comes(name: str) -> None:
    controller = Controller(SCHEDULERS["fcfs"](), [SLOW, FAST], routing=ROUTINGS[name]())
    for index in (2, 3):
        controller.replica_down(index, 0.0)
    for at in range(8):
        controller.submit(asked(f"p{at}"), 0.0)
    assert {where(controller, f"p{at}") for at in range(8)} == {"slow"}
    controller.replica_up(3, 1.0)
    assert {where(controller, f"p{at}") for at in range(8)} == {"slow", "fast"}


def test_a_batch_holds_one_model() -> None:
    class Both(SchedulingPolicy):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            return Decision(tuple(replica.queue.values()), 1)

    controller = Controller(Both(), [FAST])
    for model in ("picture", "clip"):
        controller.submit(asked(model, model), 0.0)
    with pytest.raises(PolicyError, match="mixes models in one launch: 'picture' is of 'picture', 'clip' of 'clip'"):
        controller.launches(0.0)


CLIP = asked("clip", "clip", slo_s=500.0)


def sharing(*requests: Request, replicas: int = 1) -> Controller:
    """Replicas that serve both models, the requests submitted and the first of them started."""
    both = Pool(Seconds(picture=1.0, clip=9.0), replicas)
    controller = Controller(ModelSwapping(SCHEDULERS["fcfs"]()), [both], routing=ROUTINGS["shared"]())
    for request in requests:
        controller.submit(request, 0.0)
        controller.launches(0.0)
    return controller


def test_a_clip_gives_way_to_a_picture_at_the_next_step_and_goes_on_after_it() -> None:
    controller = sharing(CLIP)
    (running,) = [replica.launch for replica in controller._replicas]
    assert running is not None
    controller.submit(asked("picture", slo_s=60.0), 10.0)
    assert controller.recalls(10.0) == [running.launch_id]
    controller.complete(running, Outcome(2), 18.0)
    (launch,) = controller.launches(18.0)
    assert [job.request.request_id for job in launch.jobs] == ["picture"]
    controller.submit(asked("later", slo_s=600.0), 19.0)
    controller.complete(launch, Outcome(launch.steps), 24.0)
    while controller.open > 1:
        (launch,) = controller.launches(24.0)
        assert controller.recalls(24.0) == []
        assert [job.request.request_id for job in launch.jobs] == ["clip"]
        controller.complete(launch, Outcome(launch.steps), 25.0)


@pytest.mark.parametrize(
    ("request_", "replicas", "others"),
    [
        (asked("late", slo_s=900.0), 1, ()),  # due after the clip
        (asked("another", "clip", slo_s=60.0), 1, ()),  # its own policy decides among clips
        (asked("picture", slo_s=60.0), 2, ()),  # the other replica is idle
        (asked("picture", slo_s=60.0), 2, (asked("running", slo_s=900.0),)),  # the other runs pictures
    ],
)
def test_nothing_gives_way_where_it_need_not(request_: Request, replicas: int, others: tuple[Request, ...]) -> None:
    controller = sharing(CLIP, *others, replicas=replicas)
    controller.submit(request_, 10.0)
    assert controller.recalls(10.0) == []


def test_the_replica_whose_own_requests_are_due_last_gives_way() -> None:
    controller = sharing(CLIP, asked("patient", "clip", slo_s=800.0), replicas=2)
    controller.submit(asked("picture", slo_s=60.0), 10.0)
    (recalled,) = controller.recalls(10.0)
    (launch,) = [r.launch for r in controller._replicas if r.launch is not None and r.launch.launch_id == recalled]
    assert [job.request.request_id for job in launch.jobs] == ["patient"]
