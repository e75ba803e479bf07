"""Rolling a queue forward, against a simulation step by step and against every subset."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.scheduling.lookahead_roll import Task, best_plan, feasible, roll

WIDTHS = [4, 3, 2, 1]


@st.composite
def tasks(draw: st.DrawFn, most: int = 7, must: bool = True) -> list[Task]:
    made = []
    for order in range(draw(st.integers(1, most))):
        kind = draw(st.integers(0, 2))
        steps, images = draw(st.integers(1, 6)), draw(st.sampled_from([1, 1, 1, 2, 5]))
        images_s, kind_s, join_s, leave_s = (1.0 + kind) * images, 0.25 * kind, 0.5, 0.75
        alone_s = join_s + steps * (1.0 + images_s + kind_s) + leave_s
        due = draw(st.floats(0.5, 60.0))
        of_must = must and draw(st.sampled_from([False, False, True]))
        made.append(Task(due, order, steps, images_s, kind, kind_s, join_s, leave_s, alone_s, images, of_must))
    return sorted(made)


def ends_step_by_step(queue: list[Task], width: int, shared_s: float, first: int) -> list[float]:
    """When each is finished: nothing but one step after another."""
    now, position, limit = 0.0, 0, first
    running: dict[int, int] = {}
    ends = [math.nan] * len(queue)
    while position < len(queue) or running:
        while position < len(queue):
            images = sum(queue[i].images for i in running)
            if running and images + queue[position].images > limit:
                break
            running[position] = queue[position].steps
            now += queue[position].join_s
            position += 1
        now += shared_s + sum(queue[i].images_s for i in running)
        now += sum({queue[i].kind: queue[i].kind_s for i in running}.values())
        running = {i: steps - 1 for i, steps in running.items()}
        leaving = [i for i, steps in running.items() if not steps]
        now += sum(queue[i].leave_s for i in leaving)
        for i in leaving:
            limit = width
            del running[i]
            ends[i] = now
    return ends


@settings(max_examples=200, deadline=None)
@given(tasks(), st.sampled_from(WIDTHS), st.sampled_from(WIDTHS))
def test_a_roll_is_the_simulation_step_by_step(queue: list[Task], width: int, first: int) -> None:
    ends = ends_step_by_step(queue, width, 1.0, first)
    rolled = roll(queue, width, 1.0, first=first)
    late = {i for i, task in enumerate(queue) if ends[i] > task.due + 1e-9 and not task.must}
    if rolled.late >= 0:
        assert rolled.late in {i for i, task in enumerate(queue) if ends[i] > task.due - 1e-9}
        assert ends[rolled.late] == min(ends[i] for i in late | {rolled.late})
    else:
        assert not late
        assert rolled.end_s == pytest.approx(max(ends))
        assert rolled.sum_s == pytest.approx(sum(ends))


@given(tasks(), st.sampled_from(WIDTHS))
def test_a_roll_scales_and_shifts(queue: list[Task], width: int) -> None:
    relaxed = [task._replace(must=True) for task in queue]
    end_s = roll(relaxed, width, 1.0).end_s
    assert roll(relaxed, width, 1.0, now=7.0, scale=1.5).end_s == pytest.approx(7.0 + 1.5 * end_s)


def test_a_roll_gives_up_beyond_its_steps() -> None:
    queue = [Task(math.inf, 0, 10, 1.0, 0, 0.0, 0.0, 0.0, 20.0, 1, False)]
    assert roll(queue, 1, 1.0, most_steps=10).end_s == 20.0
    assert roll(queue, 1, 1.0, most_steps=9).end_s == math.inf


@settings(max_examples=100, deadline=None)
@given(tasks(must=False))
def test_one_by_one_as_many_as_possible_are_feasible(queue: list[Task]) -> None:
    queue = [task._replace(images=1, kind_s=0.0) for task in queue]
    most = max(
        len(subset)
        for count in range(len(queue) + 1)
        for subset in itertools.combinations(queue, count)
        if roll(subset, 1, 1.0).late < 0
    )
    chosen = feasible(queue, 1, 1.0)
    assert len(chosen) == most
    assert roll(chosen, 1, 1.0).late < 0


@settings(max_examples=150, deadline=None)
@given(tasks())
def test_a_plan_keeps_what_it_promises(queue: list[Task]) -> None:
    plan = best_plan(queue, WIDTHS, 1.0)
    assert set(plan.queue) >= {task for task in queue if task.must}
    assert plan.batch == plan.queue[: len(plan.batch)]
    if len(queue) == 1 or not plan.queue:
        return
    rolled = roll(plan.queue, plan.width, 1.0, first=plan.first)
    assert rolled.late < 0
    assert rolled.end_s == plan.end_s
    assert plan.met == len(plan.queue) - rolled.overdue
    for first in WIDTHS:  # to begin wider or narrower would not do as well sooner
        other = roll(plan.queue, plan.width, 1.0, first=first)
        assert other.late >= 0 or other.overdue > rolled.overdue or plan.end_s <= 1.02 * other.end_s


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tasks(most=5, must=False))
def test_a_plan_misses_at_most_one_deadline_that_could_be_met(queue: list[Task]) -> None:
    subsets = itertools.chain.from_iterable(itertools.combinations(queue, n) for n in range(len(queue) + 1))
    most = max(len(subset) for subset in subsets if any(roll(subset, width, 1.0).late < 0 for width in WIDTHS))
    assert best_plan(queue, WIDTHS, 1.0).met >= most - 1
