"""Schedules of shared steps: what they promise, against simulations and against the optimum of all schedules."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.optimum import most_in_time
from policies.controller import Controller
from policies.job import Job
from policies.scheduling import Lookahead
from policies.scheduling.lookahead_rides import Task, schedule
from policies.scheduling.lookahead_search import choose, seemingly
from policies.scheduling.mixing import BatchCosts, CostsNow
from predictors.costs import Batch, CostModel
from sim.driver import Simulation
from sim.world import World
from tests.examples_tried import examples
from traces.request import Request
from traces.stages import ORDINARY


class Linear(CostModel):
    """A step costs ``shared_s`` and 0.1 s for every 64x64 px of it; encode and decode 0.05 s an image."""

    def __init__(self, shared_s: float = 0.2) -> None:
        self.shared_s = shared_s

    def step_s(self, stage: str, batch: Batch) -> float:
        if stage != "denoise":
            return 0.05 * sum(n for _, n in batch.composition)
        return self.shared_s + 0.1 * sum(h * w * n for (h, w, _), n in batch.composition) / 4096


class TakingTurns(CostModel):
    """Whole images: those of one size share 0.2 s of a step, sizes take turns."""

    def step_s(self, stage: str, batch: Batch) -> float:
        return sum(Linear().step_s(stage, batch._replace(composition=(item,))) for item in batch.composition)


@st.composite
def bursts(draw: st.DrawFn, most: int = 6) -> list[Request]:
    count = draw(st.integers(1, most))
    made = []
    for i in range(count):
        side, steps = draw(st.sampled_from([64, 128])), draw(st.integers(1, 12))
        made.append(Request(f"r{i}", 0.0, side, side, steps, slo_s=draw(st.floats(0.5, 12.0))))
    return made


def tasks_of(requests: list[Request], model: CostModel) -> tuple[CostsNow, list[Task]]:
    """What a look-ahead knows of requests that wait."""
    costs, tasks = BatchCosts(model), []
    for order, request in enumerate(requests):
        job = Job(request, order)
        kind = costs.kind(job)
        encode_s, step_s, decode_s = costs.alone(kind)
        alone_s = costs.remaining_s(job)
        task = Task(
            due=request.deadline,
            order=order,
            steps=request.steps,
            step_s=step_s,
            join_s=encode_s,
            leave_s=decode_s,
            alone_s=alone_s,
            must=request.deadline == math.inf,
            worth=1.0,
            kind=kind,
            job=job,
        )
        tasks.append(task)
    return costs.now(), sorted(tasks)


@settings(max_examples=examples(20), deadline=None)
@given(bursts(), st.floats(0.0, 0.4))
def test_whom_there_is_time_for_is_in_time(requests: list[Request], shared_s: float) -> None:
    model = Linear(shared_s)
    costs, tasks = tasks_of(requests, model)
    chosen = choose(costs, tasks, 12)
    assert chosen.schedule.late < 0
    controller = Controller(Lookahead(margin=0.0), model, 1)
    Simulation(controller, World(model, 1, noise=False)).run(requests)
    met = [job for job in controller.jobs if job.state == "finished" and job.finish_s <= job.request.deadline + 1e-6]
    assert len(met) >= len(chosen.queue)


@settings(max_examples=examples(20), deadline=None, derandomize=True)
@given(bursts())
def test_at_most_one_is_missed_that_any_schedule_could_finish(requests: list[Request]) -> None:
    costs, tasks = tasks_of(requests, Linear())
    assert len(choose(costs, tasks, 12).queue) >= most_in_time(Linear(), requests, ORDINARY, 12) - 1


@settings(max_examples=examples(33), deadline=None)
@given(bursts(), st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=6, max_size=6))
def test_the_search_finds_the_set_that_is_worth_most(requests: list[Request], worths: list[float]) -> None:
    costs, tasks = tasks_of(requests, Linear())
    tasks = [task._replace(worth=worth) for task, worth in zip(tasks, worths, strict=False)]
    subsets = itertools.chain.from_iterable(itertools.combinations(tasks, n) for n in range(len(tasks) + 1))
    best = max(sum(task.worth for task in subset) for subset in subsets if schedule(costs, subset, 12).late < 0)
    assert sum(task.worth for task in choose(costs, tasks, 12, tries=64).queue) == pytest.approx(best)


@settings(max_examples=examples(20), deadline=None)
@given(bursts(most=12), st.integers(1, 40), st.data())
def test_a_search_that_ends_early_leaves_out_nobody_that_must_run(
    requests: list[Request], tries: int, data: st.DataObject
) -> None:
    costs, tasks = tasks_of(requests, Linear())
    tasks = [task._replace(must=data.draw(st.booleans())) for task in tasks]
    chosen = choose(costs, tasks, 4, tries=tries)
    assert chosen.schedule.late < 0
    assert {task.order for task in tasks if task.must} <= {task.order for task in chosen.queue}
    assert chosen.queue == sorted(chosen.queue)


@settings(max_examples=examples(20), deadline=None)
@given(bursts(), st.integers(1, 6))
def test_a_batch_holds_no_more_images_than_it_may(requests: list[Request], most_images: int) -> None:
    costs, tasks = tasks_of([Request(r.request_id, 0.0, *r.size[:2], r.steps) for r in requests], Linear())
    found = schedule(costs, tasks, most_images)
    assert 1 + len(found.riders) <= most_images
    assert all(0 < count <= min(tasks[0].steps, tasks[position].steps) for position, count in found.riders)


def test_a_schedule_scales_and_shifts() -> None:
    costs, tasks = tasks_of([Request(f"r{i}", 0.0, 64, 64, 10) for i in range(3)], Linear())
    end_s = schedule(costs, tasks, 12).end_s
    assert end_s == pytest.approx(0.15 + 10 * 0.5 + 0.15)
    assert schedule(costs, tasks, 12, now=7.0, scale=1.5).end_s == pytest.approx(7.0 + 1.5 * end_s)


def test_nobody_rides_where_sizes_take_turns_but_with_its_own_size() -> None:
    requests = [Request(f"r{i}", 0.0, side, side, 10) for i, side in enumerate((64, 128, 64, 128))]
    costs, tasks = tasks_of(requests, TakingTurns())
    assert schedule(costs, tasks, 12).riders == [(2, 10)]


def test_early_riders_ride_with_the_first() -> None:
    requests = [Request(f"r{i}", 0.0, 64, 64, steps) for i, steps in enumerate((10, 30, 15))]
    costs, tasks = tasks_of(requests, Linear())
    assert schedule(costs, tasks, 12).riders == [(1, 10)]
    assert schedule(costs, tasks, 12, early=True).riders == [(1, 10), (2, 10)]
    assert schedule(costs, tasks, 12, early=True).end_s == pytest.approx(schedule(costs, tasks, 12).end_s)


def test_of_a_long_queue_those_stay_that_seem_possible() -> None:
    requests = [Request(f"r{i}", 0.0, 64, 64, 10, slo_s=4.0 + 0.1 * i) for i in range(30)]
    costs, tasks = tasks_of(requests, Linear())
    assert 0 < len(seemingly(costs, tasks)) < 30
    everybody = [task._replace(must=True) for task in tasks]
    assert seemingly(costs, everybody) == everybody
