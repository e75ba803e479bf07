"""Whose turn it is among jobs that run together, and for how long."""

from __future__ import annotations

import pytest

from policies.job import Job, advance, rest
from policies.scheduling import SameSizeContinuous
from policies.scheduling.batch import beside_first, next_quantum
from tests.policies.driving import Driven, names
from traces.request import Request
from traces.stages import Recipe

SKETCH: Recipe = (("sketch", 4), ("upscale", 1), ("refine", 3), ("decode", 1))
TILED: Recipe = (("encode", 1), *SKETCH)


def job(name: str, done: int = 0, recipe: Recipe | None = TILED, state: str = "resident") -> Job:
    made = Job(Request(name, 0.0, 64, 64, 4), 0, recipe)
    advance(made, done)
    if state == "resident":
        rest(made)
    return made


def chosen(*jobs: Job) -> tuple[str, int]:
    decision = next_quantum(jobs)
    return "".join(job.request.request_id for job in decision.jobs), decision.steps


def test_a_tiled_job_by_itself_runs_to_its_end() -> None:
    assert chosen(job("a")) == ("a", 10)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (9, 6, ("a", 1)),  # decode before refinement
        (0, 6, ("a", 1)),  # encode before refinement
        (5, 6, ("a", 1)),  # upscale, to join those that are refined
        (7, 2, ("a", 3)),  # refine, and decode, before others are sketched
        (3, 3, ("ab", 7)),
        (2, 3, ("ab", 2)),  # together until the second is sketched
        (7, 8, ("ab", 1)),
    ],
)
def test_stages_take_turns(first: int, second: int, expected: tuple[str, int]) -> None:
    assert chosen(job("a", first), job("b", second)) == expected


def test_jobs_with_as_much_left_may_be_in_different_places() -> None:
    longer: Recipe = (("sketch", 5), ("upscale", 1), ("refine", 2), ("decode", 1))
    assert chosen(job("a", recipe=SKETCH), job("b", recipe=longer)) == ("ab", 4)


def test_who_has_not_started_takes_a_first_step() -> None:
    assert chosen(job("a", 6, SKETCH), job("b", 0, SKETCH, "waiting")) == ("b", 1)
    assert chosen(job("a", 5, SKETCH), job("b", 0, SKETCH, "waiting")) == ("b", 1)
    assert chosen(job("a", 4, SKETCH), job("b", 0, SKETCH, "waiting")) == ("b", 1)


def test_who_joins_during_refinement_is_not_lost() -> None:
    """Without a stage of its own to begin with: what a policy takes from its queue must run, or nobody knows of it."""
    driven = Driven(SameSizeContinuous())
    driven.controller.recipe = lambda request: SKETCH
    driven.submit(Request("a", 0.0, 64, 64, 4))
    (launch,) = driven.start()
    driven.submit(Request("b", 0.0, 64, 64, 4))
    assert driven.recalled() == [launch.launch_id]
    driven.end(launch, 6)
    assert driven.controller.jobs[0].stage == "refine"
    ran = []
    for _ in range(20):
        for launch in driven.start():
            ran.append(("".join(names(launch)), launch.segments[0].stage, launch.steps))
            driven.end(launch)
    assert ran == [("b", "sketch", 1), ("a", "refine", 3), ("b", "sketch", 8)]
    assert set(driven.states().values()) == {"finished"}


def test_a_tiled_request_shares_no_mixed_batch() -> None:
    tiled, other, plain, also = job("t"), job("u"), job("p", recipe=None), job("q", recipe=None)
    assert beside_first([tiled, plain, other]) == [tiled]
    assert beside_first([plain, tiled, also]) == [plain, also]
    assert beside_first([]) == []
