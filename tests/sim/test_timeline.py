"""When the steps of a launch end: against every step end written out one by one."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from policies.contract import Launch, LaunchWork
from policies.job import Job, advance
from predictors.costs import Batch
from sim.timeline import PICOSECONDS, Part, Timeline
from sim.world import World
from tests.sim.test_driver import Costs
from traces.request import Request

LAUNCH = Launch(0, 0, (), LaunchWork(Batch("", ()), ()), (), 1, 0.0)


@st.composite
def timelines(draw: st.DrawFn) -> tuple[Timeline, list[list[int]]]:
    """A timeline, and the step ends of each of its stages."""
    start = draw(st.integers(0, 50))
    began, parts, ends = start, [], []
    for number, factors in enumerate(draw(st.lists(st.lists(st.integers(1, 9), min_size=1), min_size=1, max_size=4))):
        unit, before = draw(st.integers(1, 7)), draw(st.lists(st.integers(1, 9)))
        sums = [0, *accumulate([*before, *factors, *draw(st.lists(st.integers(1, 9)))])]
        ends.append([began + unit * total for total in accumulate(factors)])
        part: Part = (f"stage {number}", len(factors), ends[-1][-1], unit, sums, len(before))
        parts.append(part)
        began = ends[-1][-1]
    return Timeline(LAUNCH, start, parts, sum(map(len, ends)), 3), ends


def times(timeline: Timeline) -> st.SearchStrategy[int]:
    return st.integers(timeline.start, timeline.end)


@given(timelines(), st.data())
def test_steps_by_and_the_boundary_after_any_time(drawn: tuple[Timeline, list[list[int]]], data: st.DataObject) -> None:
    timeline, stages = drawn
    ends = [end for of_stage in stages for end in of_stage]
    assert (timeline.end, timeline.steps) == (ends[-1], len(ends))
    time = data.draw(times(timeline))
    assert timeline.steps_by(time) == sum(end <= time for end in ends)
    assert timeline.boundary_after(time) == min([end for end in ends if end > time], default=timeline.end)


@given(timelines())
def test_every_boundary_is_met_one_after_another(drawn: tuple[Timeline, list[list[int]]]) -> None:
    timeline, stages = drawn
    reached, time = [], timeline.start
    while time < timeline.end:
        time = timeline.boundary_after(time)
        reached.append(time)
    assert reached == [end for of_stage in stages for end in of_stage]


@given(timelines(), st.data())
def test_what_is_done_and_what_is_left_is_all_there_is(
    drawn: tuple[Timeline, list[list[int]]], data: st.DataObject
) -> None:
    timeline, stages = drawn
    time = data.draw(times(timeline))
    total = {f"stage {number}": 0 for number in range(len(stages))}
    for stage, steps, _ in timeline.stages_by(time):
        total[stage] += steps
    for stage, steps in timeline.left(time):
        total[stage] += steps
    assert list(total.values()) == [len(of_stage) for of_stage in stages]
    assert sum(spent for _, _, spent in timeline.stages_by(time)) == time - timeline.start


@given(timelines(), st.data())
def test_the_outcome_at_any_time(drawn: tuple[Timeline, list[list[int]]], data: st.DataObject) -> None:
    timeline, stages = drawn
    time = data.draw(times(timeline))
    outcome = timeline.outcome(time)
    assert outcome.steps_done == timeline.steps_by(time)
    assert (outcome.computed, outcome.reused, outcome.failed) == (3 * outcome.steps_done, 0, None)
    assert outcome.device_s == ((time - timeline.start) / PICOSECONDS,)
    assert outcome.stage_ends_s == tuple(of_stage[-1] / PICOSECONDS for of_stage in stages if of_stage[-1] < time)


@given(timelines(), st.data())
def test_one_that_is_ended_early_is_the_same_until_then(
    drawn: tuple[Timeline, list[list[int]]], data: st.DataObject
) -> None:
    timeline, _ = drawn
    recalled_at = data.draw(times(timeline))
    earlier = timeline.ended_after(recalled_at)
    assert earlier.end == timeline.boundary_after(recalled_at)
    assert (earlier is timeline) == (earlier.end == timeline.end)
    assert (earlier.start, earlier.steps) == (timeline.start, timeline.steps_by(earlier.end))
    time = data.draw(times(earlier))
    assert earlier.outcome(time) == timeline.outcome(time)
    assert earlier.outcome(earlier.end) == timeline.outcome(earlier.end)
    if time < earlier.end:
        assert earlier.boundary_after(time) == timeline.boundary_after(time)


def launch_of(job: Job, steps: int) -> Launch:
    work = LaunchWork(job.kind.batch, job.segments(steps))
    return Launch(0, 0, (job,), work, (0.0,) * len(work.stages), steps, 0.0)


@given(
    steps=st.integers(1, 9),
    slowdown=st.sampled_from([1000, 1, 1700]),
    cuts=st.lists(st.integers(0, 10**12), max_size=6),
    seed=st.integers(0, 5),
)
def test_a_launch_that_is_ended_early_and_taken_up_again_ends_as_it_would_have(
    steps: int, slowdown: int, cuts: list[int], seed: int
) -> None:
    """The noise of the steps that it did not run is that of the steps which come next."""
    costs, job = Costs((0.91, 1.0, 1.13)), Job(Request("r", 0.0, 64, 64, steps), 0)
    whole = World(costs, 1, seed).timeline(launch_of(job, steps + 2), 7, slowdown)
    world, now = World(costs, 1, seed), 7
    for cut in cuts:
        timeline = world.timeline(launch_of(job, job.steps_left), now, slowdown)
        earlier = timeline.ended_after(min(now + cut, timeline.end - 1))
        if earlier is timeline:
            assert timeline.end == whole.end
            return
        world.put_back(timeline, earlier.end)
        advance(job, earlier.steps)
        now = earlier.end
    assert world.timeline(launch_of(job, job.steps_left), now, slowdown).end == whole.end


@given(steps=st.integers(1, 30), seed=st.integers(0, 5))
def test_the_first_steps_of_a_launch_alone_end_where_they_do_in_it(steps: int, seed: int) -> None:
    costs, job = Costs((0.91, 1.0, 1.13)), Job(Request("r", 0.0, 64, 64, steps), 0)
    launch = launch_of(job, steps + 2)
    one, whole = World(costs, 1, seed).timeline(launch, 0, 1000, 1), World(costs, 1, seed).timeline(launch, 0)
    assert (one.steps, one.end) == (1, whole.boundary_after(0))
