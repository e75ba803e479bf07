"""Image to image: which steps of a schedule are made."""

from __future__ import annotations

import pytest

from traces.errors import BadInput
from traces.request import Request
from traces.strength import ImageToImage
from traces.trace import Trace


@pytest.mark.parametrize(
    ("steps", "strength", "down", "up"),
    [(10, 0.3, 3, 3), (10, 0.25, 2, 3), (50, 0.8, 40, 40), (10, 1.0, 10, 10), (3, 0.3, 0, 1), (7, 0.5, 3, 4)],
)
def test_the_share_of_a_schedule_is_rounded_down_or_up(steps: int, strength: float, down: int, up: int) -> None:
    assert ImageToImage(0.5).steps(steps, strength) == down
    assert ImageToImage(0.5, rounds_up=True).steps(steps, strength) == up


def test_a_trace_gets_the_steps_that_are_made_once() -> None:
    trace = Trace.from_requests(
        [Request("a", 0.0, 64, 64, 10, image="a.png"), Request("b", 1.0, 64, 64, 10, image="a.png", strength=0.75)]
    )
    planned = trace.with_schedules(ImageToImage(0.3))
    assert [(r.steps, r.schedule_steps, r.strength) for r in planned.requests()] == [(3, 10, 0.3), (7, 10, 0.75)]
    assert planned.with_schedules(ImageToImage(0.5)).requests() == planned.requests()


def test_a_strength_that_leaves_no_step_is_refused() -> None:
    trace = Trace.from_requests([Request("a", 0.0, 64, 64, 4, strength=0.2)])
    with pytest.raises(BadInput, match=r"request 'a': strength 0.2 of 4 steps leaves none"):
        trace.with_schedules(ImageToImage(0.3))


def test_a_schedule_has_the_steps_that_are_made() -> None:
    with pytest.raises(BadInput, match="schedule_steps is 3, expected 0, or at least the 4 steps"):
        Request("a", 0.0, 64, 64, 4, schedule_steps=3)
