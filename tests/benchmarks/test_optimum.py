"""The optimum of small bursts, against every schedule of whole steps, and against all schedulers."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.optimum import in_time, most_in_time
from policies.scheduling import SCHEDULERS
from predictors.costs import Batch, CostModel
from tests.examples_tried import examples
from traces.request import Request

STAGES = ("denoise",)


class Steps(CostModel):
    """A step takes 1 s, and 0.5 s more for every 64x64 px in it."""

    def step_s(self, stage: str, batch: Batch) -> float:
        if stage != "denoise":
            return 0.0
        return 1.0 + 0.5 * sum(h * w * n for (h, w, _), n in batch.composition) / 4096


@st.composite
def requests(draw: st.DrawFn, most: int, most_steps: int) -> list[Request]:
    made = []
    for i in range(draw(st.integers(1, most))):
        side, steps = draw(st.sampled_from([64, 128])), draw(st.integers(1, most_steps))
        arrival_s, slo_s = draw(st.sampled_from([0.0, 2.0])), draw(st.integers(2, 24)) / 2
        made.append(Request(f"r{i}", arrival_s, side, side, steps, slo_s=slo_s))
    return sorted(made, key=lambda r: r.arrival_s)


def by_every_schedule(costs: CostModel, of: list[Request], late_s: float = 0.0) -> int:
    """The most that whole steps of any sets finish in time, or later by ``late_s``."""
    best = 0
    seen = set()
    ahead = [(0.0, tuple(r.steps for r in of), 0)]
    while ahead:
        state = now, left, met = ahead.pop()
        if state in seen:
            continue
        seen.add(state)
        best = max(best, met)
        there = [i for i, r in enumerate(of) if left[i] and r.arrival_s <= now and r.deadline + late_s > now]
        for r in of:
            if r.arrival_s > now:
                ahead.append((r.arrival_s, left, met))
        for count in range(1, len(there) + 1):
            for chosen in itertools.combinations(there, count):
                sizes = [of[i].size for i in chosen]
                composition = tuple((size, sizes.count(size)) for size in sorted(set(sizes)))
                end_s = now + costs.step_s("denoise", Batch("sd3", composition))
                after = tuple(steps - (i in chosen) for i, steps in enumerate(left))
                done = sum(not after[i] and end_s <= of[i].deadline + late_s for i in chosen)
                ahead.append((end_s, after, met + done))
    return best


@settings(max_examples=examples(20), deadline=None)
@given(requests(most=3, most_steps=3))
def test_the_optimum_bounds_every_schedule_by_less_than_its_rounding(of: list[Request]) -> None:
    bound = most_in_time(Steps(), of, STAGES, max_batch=8)
    assert by_every_schedule(Steps(), of) <= bound
    assert bound <= by_every_schedule(
        Steps(), of, late_s=len(of) * Steps().step_s("denoise", Batch("", (((192, 192, 1), 1),)))
    )


@settings(max_examples=examples(10), deadline=None)
@given(requests(most=6, most_steps=10))
def test_no_scheduler_does_better_than_the_optimum(of: list[Request]) -> None:
    bound = most_in_time(Steps(), of, STAGES, max_batch=12)
    for name in SCHEDULERS:
        assert in_time(Steps(), of, STAGES, name) <= bound, name


def test_a_set_that_runs_in_part_counts() -> None:
    """One rides along for a part of the other's steps, as much as that one has time for."""
    first, second = (Request(name, 0.0, 64, 64, 10, slo_s=slo) for name, slo in (("a", 17.0), ("b", 28.0)))
    assert most_in_time(Steps(), [first, second], STAGES, 12) == 2
    assert most_in_time(Steps(), [first, Request("b", 0.0, 64, 64, 10, slo_s=25.0)], STAGES, 12) == 1
