"""A job walks its recipe, whatever the stages are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import Decision, PolicyError, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.job import Job, advance, through
from tests.policies.costs import FlatCosts
from traces.request import Request
from traces.stages import STAGES, Recipe

TILED: Recipe = (("encode", 1), ("sketch", 4), ("upscale", 1), ("refine", 3), ("decode", 1))


def request(name: str = "a", side: int = 64, **more: float) -> Request:
    return Request(name, 0.0, side, side, 4, **more)  # type: ignore[arg-type]


def recipe_of(request: Request) -> Recipe:
    return TILED if request.height > 64 else through(("encode", "denoise", "decode"))(request)


def test_a_tiled_job_goes_from_stage_to_stage() -> None:
    job = Job(request(), 0, TILED)
    assert (job.mixes, job.steps_left, job.denoise_steps, job.denoise_left) == (False, 10, 7, 7)
    assert job.segments(7) == (("encode", 1), ("sketch", 4), ("upscale", 1), ("refine", 1))
    assert not advance(job, 3)
    assert (job.stage, job.stage_left, job.steps_done, job.done_in("sketch"), job.done_in("refine")) == (
        ("sketch", 2, 2, 2, 0)
    )
    assert not advance(job, 5)
    assert (job.stage, job.stage_left, job.denoise_left, job.done_in("refine")) == ("refine", 1, 1, 2)
    assert job.seconds_left({"refine": 5.0, "decode": 2.0}) == 7.0
    assert advance(job, 2)
    assert (job.stage, job.stage_left, job.steps_left, job.denoise_left) == ("decode", 0, 0, 0)


def test_an_ordinary_job_mixes_with_other_sizes() -> None:
    job = Job(request(), 0)
    assert job.mixes
    assert job.recipe == (("encode", 1), ("denoise", 4), ("decode", 1))


@given(
    counts=st.lists(st.tuples(st.sampled_from(["encode", "sketch", "refine"]), st.integers(1, 5)), min_size=1).filter(
        lambda counts: len({stage for stage, _ in counts}) == len(counts)
    ),
    data=st.data(),
)
def test_what_is_ahead_is_what_is_walked(counts: list[tuple[str, int]], data: st.DataObject) -> None:
    job = Job(request(), 0, tuple(counts))
    seconds = {"encode": 1.0, "sketch": 10.0, "refine": 100.0}
    done: dict[str, int] = {}
    while job.steps_left:
        steps = data.draw(st.integers(1, job.steps_left))
        ahead, before_s = job.segments(steps), job.seconds_left(seconds)
        ended = advance(job, steps)
        for stage, count in ahead:
            done[stage] = done.get(stage, 0) + count
        assert before_s - job.seconds_left(seconds) == sum(seconds[stage] * count for stage, count in ahead)
        assert ended == (not job.steps_left)
        assert job.sampled == sum(count for stage, count in done.items() if STAGES[stage].sampler)
    assert done == dict(counts)


class Together(SchedulingPolicy):
    """Runs all that waits in one launch of one step."""

    def plan(self, replica: Replica, now: float) -> Decision | None:
        return Decision(tuple(self.cluster.waiting.values()), 1) if self.cluster.waiting else None


@pytest.mark.parametrize("sides", [(64, 128), (128, 64), (128, 192)])
def test_a_launch_of_tiled_requests_holds_one_size(sides: tuple[int, int]) -> None:
    controller = Controller(Together(), FlatCosts(), recipe=recipe_of)
    for name, side in zip("ab", sides, strict=True):
        controller.submit(request(name, side), 0.0)
    with pytest.raises(PolicyError, match="mixes sizes in a launch of requests that do not mix"):
        controller.launches(0.0)


def test_tiled_requests_of_one_size_share_a_launch() -> None:
    controller = Controller(Together(), FlatCosts(), recipe=recipe_of)
    for name in "ab":
        controller.submit(request(name, 128), 0.0)
    (launch,) = controller.launches(0.0)
    assert [segment.stage for segment in launch.segments] == ["encode"]
