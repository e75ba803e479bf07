"""What the schedulers that mix sizes are told about costs, and their queues."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import Outcome, SchedulingPolicy, composition_of_jobs, guided_share
from policies.controller import Controller
from policies.job import Job, advance, end
from policies.routing import RoundRobin
from policies.scheduling import SCHEDULERS, Clockwork, PatchedServe, Rounds
from policies.scheduling.forecast import forecast
from policies.scheduling.mixing import BatchCosts
from policies.scheduling.queues import KindQueues
from predictors.costs import Batch
from tests.examples_tried import examples
from tests.policies.costs import FlatCosts
from tests.policies.driving import request
from traces.request import Request
from traces.stages import Recipe

JOBS = st.lists(
    st.builds(
        lambda side, images, guidance, seen: Job(
            Request("r", 0.0, side, 64, 4, images=images, guidance_scale=guidance, reference_pixels=seen), 0
        ),
        st.sampled_from([64, 96, 128]),
        st.integers(1, 3),
        st.sampled_from([5.0, 1.0]),
        st.sampled_from([0, 4096]),
    ),
    min_size=1,
    max_size=10,
)


class Asked(FlatCosts):
    """Keeps what it was asked last."""

    def step_s(self, stage: str, batch: Batch) -> float:
        self.last = (batch.composition, batch.guided_share)
        return super().step_s(stage, batch)


@settings(max_examples=examples(20), deadline=None)
@given(JOBS, st.randoms(use_true_random=False))
def test_batches_put_together_in_any_order_are_what_the_controller_asks_for(jobs: list[Job], random: object) -> None:
    predictor = Asked()
    costs = BatchCosts(predictor)
    others = [Job(Request("o", 0.0, 64, 128, 4), 0) for _ in range(2)]
    mixed = [*jobs, *others]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    batch = costs.batch(mixed)
    for other in others:
        batch = costs.minus(batch, costs.kind(other))
    predictor.last = ((), 0.0)
    assert costs.step_s(batch) == FlatCosts().step_s("denoise", Batch("sd3", composition_of_jobs(jobs)))
    if predictor.last[0]:  # it is asked once a batch
        assert predictor.last == (composition_of_jobs(jobs), guided_share(jobs))


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("order", [["drawn", "shown"], ["shown", "drawn"]])
def test_requests_of_one_size_and_number_of_steps_may_go_through_other_stages(name: str, order: list[str]) -> None:
    """A tiled request that is shown a picture is not sketched first; each is predicted by its own stages."""
    refined = (("upscale", 1), ("refine", 2), ("decode", 1))

    def recipe(request: Request) -> Recipe:
        return (("encode", 1), *refined) if request.image else (("encode", 1), ("sketch", 4), *refined)

    controller, now = Controller(SCHEDULERS[name](), FlatCosts(), 1, recipe), 0.0
    for each in order:
        controller.submit(request(each, image="a.png" if each == "shown" else "", slo_s=100.0), now)
    costs = BatchCosts(FlatCosts())
    remaining = {job.request.request_id: costs.remaining_s(job) for job in controller.jobs}
    assert remaining == pytest.approx({"drawn": 1.8, "shown": 1.0})
    while controller.open:
        now = controller.wakeup(now) or now
        (launch,) = controller.launches(now)
        now += sum([segment.steps * segment.predicted_step_s for segment in launch.segments])
        controller.complete(launch, Outcome(launch.steps), now)
    assert {job.state for job in controller.jobs} == {"finished"}


@pytest.mark.parametrize("policy", [Clockwork(), PatchedServe(), Rounds()])
def test_what_the_policy_of_one_replica_has_asked_for_the_others_find(policy: SchedulingPolicy) -> None:
    class Counting(FlatCosts):
        times = 0

        def step_s(self, stage: str, batch: Batch) -> float:
            self.times += 1
            return super().step_s(stage, batch)

    def times(replicas: int) -> int:
        costs = Counting()
        controller = Controller(policy, costs, replicas, routing=RoundRobin())
        for index in range(replicas):
            controller.submit(request(f"r{index}", slo_s=100.0), 0.0)
        assert len(controller.launches(0.0)) == replicas
        return costs.times

    assert times(1) == times(5)


def test_a_predictor_that_corrects_itself_is_asked_every_time() -> None:
    class Learning(FlatCosts):
        factor = 1.0

        learns = True

        def step_s(self, stage: str, batch: Batch) -> float:
            return self.factor * super().step_s(stage, batch)

        def observe(self, *_: object) -> None:
            self.factor *= 2

    predictor = Learning()
    costs = BatchCosts(predictor)
    job = Job(request("a"), 0)
    before = (costs.step_s(costs.batch([job])), costs.remaining_s(job))
    predictor.observe()
    after = (costs.step_s(costs.batch([job])), costs.remaining_s(job))
    assert after == (2 * before[0], 2 * before[1])


def test_a_forecast_by_hand() -> None:
    """Width 2: a and b together for 2 steps of 0.3 s, then b with c for 2, then c alone for 2 of 0.2 s."""
    costs = BatchCosts(FlatCosts())
    queue = []
    for order, (name, steps, due_s) in enumerate((("a", 2, 0.65), ("b", 4, 1.15), ("c", 4, 1.65))):
        queue.append((due_s, order, Job(request(name, steps=steps), order, (("denoise", steps),))))
    seen = forecast(costs, queue, 2, 0.0)
    assert [job.request.request_id for job in seen.late] == ["b"]
    assert seen.end_s == pytest.approx(1.6)
    assert forecast(costs, queue, 1, 0.0).end_s == pytest.approx(2.0)
    assert len(forecast(costs, queue, 1, 1.0, most_late=0).late) == 1


def test_a_forecast_with_a_tiled_request_by_hand() -> None:
    """a and b together for 2 steps of 0.3 s; then t by itself, 4 steps of 0.5 s; only then c, 2 steps of 0.2 s."""
    costs = BatchCosts(FlatCosts())
    recipes = dict.fromkeys("abc", (("denoise", 2),)) | {"t": (("sketch", 1), ("upscale", 1), ("refine", 2))}
    jobs = [
        Job(request(name, side=128 if name == "t" else 64, steps=2), i, recipes[name]) for i, name in enumerate("abtc")
    ]
    queue = [(due_s, job.order, job) for due_s, job in zip((0.5, 0.7, 2.6, 2.7), jobs, strict=True)]
    seen = forecast(costs, queue, 3, 0.0)
    assert seen.end_s == pytest.approx(3.0)
    assert seen.late == [jobs[0], jobs[3]]
    advance(jobs[2], 3)
    assert forecast(costs, queue, 3, 0.0).end_s == pytest.approx(1.5)
    assert forecast(costs, queue[2:], 3, 2.2, most_late=0).late == [jobs[2]]


def test_queues_pass_over_what_has_ended() -> None:
    queues = KindQueues(BatchCosts(FlatCosts()))
    jobs = [Job(request(f"r{i}", slo_s=9.0 - i), i) for i in range(4)]
    for job in jobs:
        queues.add(job)
    (kind,) = queues.kinds()
    assert queues.first(kind, 2) == [jobs[3], jobs[2]]
    end(jobs[3], "cancelled", "", 0.0)
    assert queues.head(kind) is jobs[2]
    assert queues.take_before(kind, 8.5) == [jobs[2], jobs[1]]
    assert queues.head(kind) is jobs[0]
    queues.pop(kind)
    assert queues.kinds() == []
