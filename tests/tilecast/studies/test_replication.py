"""What a run says: against the run log's figures, against brute force, and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.queues import CONSTANT, Queue, run
from policies.contract import SchedulingPolicy
from policies.controller import Controller
from policies.faults import Happening
from policies.pool import Pool
from policies.record import request_table, run_arrays, step_table
from policies.run_arrays import RunArrays
from policies.runlog import Run
from policies.scheduling import SCHEDULERS
from predictors.costs import CostModel
from reports.breakdown import by_size
from reports.checks import checked
from sim.driver import Simulation
from sim.world import World
from tests.examples_tried import examples
from tests.sim.test_driver import Costs
from tilecast.studies.replication import Replication, area, observe
from traces.composition import Composition
from traces.request import Request, Size
from traces.streams import stream

END_S = 60.0


def asked(count: int = 60, seed: int = 0) -> list[Request]:
    rng = stream(seed, "asked")
    arrivals = np.sort(rng.uniform(0, END_S, count))
    return [
        Request(f"r{i}", float(at_s), int(side), 64, int(steps), images=int(images), slo_s=float(slo_s))
        for i, (at_s, side, steps, images, slo_s) in enumerate(
            zip(
                arrivals,
                rng.choice([64, 128], count),
                rng.integers(1, 6, count),
                rng.integers(1, 3, count),
                rng.choice([2.0, 6.0, 30.0], count),
                strict=True,
            )
        )
    ]


def simulate(
    requests: list[Request], policy: SchedulingPolicy, replicas: int = 2, **more: Any
) -> tuple[Controller, Costs]:
    costs = Costs((0.9, 1.1))
    controller = Controller(policy, costs, replicas)
    Simulation(controller, World(costs, replicas, 1), **more).run(requests)
    return controller, costs


class _Measured(CostModel):
    """A request takes a second alone; compositions that begin with a size above the largest were not measured."""

    def __init__(self, largest: Size) -> None:
        self.largest = largest

    def standalone_s(self, request: Request) -> float:
        return 1.0

    def extrapolation(self, stage: str, composition: Composition) -> float:
        return 2.0 if composition[0][0] > self.largest else 1.0


def arrays(controller: Controller, replicas: int, largest: Size = (9999, 9999, 9)) -> RunArrays:
    trace = [job.request for job in controller.jobs if job.earlier is None]
    return run_arrays(controller, trace, [Pool(_Measured(largest), replicas)])


def seen_of(controller: Controller, end_s: float, replicas: int, **more: Any) -> Replication:
    return observe(controller, arrays(controller, replicas), end_s, **more)


def test_the_figures_are_those_of_the_run_log() -> None:
    requests = asked()
    controller, costs = simulate(requests, SCHEDULERS["edf"](drop_late=True))
    seen = seen_of(controller, END_S, 2)
    steps = step_table(controller, lambda stage, composition: False)
    table = request_table(controller, requests, steps, costs.standalone_s)
    measured = table[table["arrival_s"] >= seen.warm_up_s]
    finished = measured[measured["status"] == "finished"]
    assert 0 < seen.dropped < 1
    assert seen.warm_up_s == pytest.approx(0.1 * END_S)
    assert (seen.submitted, seen.requests, seen.finished) == (60, len(measured), len(finished))
    met = finished["finish_s"] <= finished["deadline_s"] + 1e-9
    assert seen.attainment == met.sum() / len(measured)
    assert seen.dropped == (measured["status"] == "dropped").mean()
    latency = (finished["finish_s"] - finished["arrival_s"]).to_numpy()
    never = np.full(len(measured) - len(finished), 1e9)
    expected = [latency.mean(), *np.percentile(np.concatenate([latency, never]), [50, 95, 99])]
    expected = [math.inf if value > 1e6 else value for value in expected]
    assert [seen.latency_mean_s, seen.latency_p50_s, seen.latency_p95_s, seen.latency_p99_s] == pytest.approx(expected)
    in_span = table[(table["status"] == "finished") & table["finish_s"].between(seen.warm_up_s, END_S)]
    assert seen.goodput_rps * seen.span_s == pytest.approx((in_span["finish_s"] <= in_span["deadline_s"] + 1e-9).sum())
    assert seen.throughput_rps * seen.span_s == pytest.approx(len(in_span))
    assert seen.images_per_s * seen.span_s == pytest.approx(in_span["images"].sum())
    start, end = (steps[name].clip(seen.warm_up_s, END_S) for name in ("start_s", "end_s"))
    within = steps.assign(seconds=end - start)
    assert seen.utilisation * seen.span_s * 2 == pytest.approx(within["seconds"].sum())
    assert sum(seen.replica_utilisation) / 2 == pytest.approx(seen.utilisation)
    assert seen.stage_s == pytest.approx(within.groupby("stage")["seconds"].sum().to_dict())
    denoising = within[within["stage"] == "denoise"]
    by_time = np.average(denoising["requests"], weights=denoising["seconds"])
    assert seen.batch == pytest.approx(by_time)
    largest = denoising[denoising["seconds"] > 0]["requests"].max()
    assert seen.batch_cap == largest
    at_cap = denoising[denoising["requests"] == largest]["seconds"].sum() / denoising["seconds"].sum()
    assert seen.at_cap == pytest.approx(at_cap)
    assert math.isnan(seen.imbalance)


def test_sizes_are_those_of_the_run_log() -> None:
    requests = asked()
    controller, costs = simulate(requests, SCHEDULERS["fcfs"]())
    seen = seen_of(controller, END_S, 2)
    steps = step_table(controller, lambda stage, composition: False)
    table = request_table(controller, requests, steps, costs.standalone_s)
    log = Run(Path(), table[table["arrival_s"] >= seen.warm_up_s], steps.head(0), {"replicas": 2})
    sizes = by_size(checked(log))
    assert {of_size.size for of_size in seen.sizes} == set(sizes.index)
    for of_size in seen.sizes:
        row = sizes.loc[of_size.size]
        assert (of_size.requests, of_size.attainment) == (row["requests"], row["slo_attainment"])
        assert (of_size.latency_s[2], of_size.latency_s[4]) == (row["latency_p50_s"], row["latency_p95_s"])


@pytest.mark.parametrize("name", ["fcfs", "edf", "same-size-dynamic"])
def test_windows_hold_every_request_and_second(name: str) -> None:
    controller, _ = simulate(asked(), SCHEDULERS[name]())
    windows = seen_of(controller, END_S, 2).windows
    last_s = max(job.finish_s for job in controller.jobs if job.finish_s is not None)
    assert (windows[0].start_s, windows[-1].end_s) == (0.0, max(END_S, last_s))
    assert sum([window.arrived for window in windows]) == 60
    width_s = windows[0].end_s
    waited = sum([job.first_start_s - job.request.arrival_s for job in controller.jobs])  # type: ignore[operator]
    stayed = sum([job.finish_s - job.request.arrival_s for job in controller.jobs])  # type: ignore[operator]
    assert sum([window.waiting for window in windows]) * width_s == pytest.approx(waited)
    assert sum([window.waiting + window.running for window in windows]) * width_s == pytest.approx(stayed)  # Little
    busy_s = sum([sum(outcome.device_s) for _, outcome, _ in controller.launched])
    assert sum([window.utilisation for window in windows]) * width_s * 2 == pytest.approx(busy_s)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(-3, 3)), max_size=8),
    st.lists(st.floats(0, 12), min_size=1, max_size=4),
)
def test_an_area_is_the_integral_of_the_level(steps: list[tuple[float, float]], at: list[float]) -> None:
    found = area(np.array([t for t, _ in steps]), np.array(at), np.array([w for _, w in steps]))
    assert found == pytest.approx([sum([w * max(0.0, a - t) for t, w in steps]) for a in at], abs=1e-9)


def test_an_overload_shows_as_its_excess_work() -> None:
    """Every second comes 1.25 s of work for each of two replicas."""
    requests = [Request(f"r{i}", 0.4 * i, 64, 64, 1) for i in range(1000)]
    queue = Queue(CONSTANT)
    controller = Controller(SCHEDULERS["fcfs"](), queue, 2, ("denoise",))
    Simulation(controller, World(queue, 2)).run(requests)
    seen = seen_of(controller, 400.0, 2)
    assert seen.growth == pytest.approx(0.25, abs=0.01)
    assert seen.growth_least == pytest.approx(0.25, abs=0.02)
    assert seen.utilisation == pytest.approx(1.0)
    assert seen.images_per_s == pytest.approx(2.0, rel=0.01)  # what is done, not what is asked
    assert seen.drain_s == pytest.approx(100.0, abs=1)
    assert not seen.settled
    apart_s = 0.9 * 400.0 * 2 / 3  # from the middle of the first third to that of the last
    assert seen.backlog[1] - seen.backlog[0] == pytest.approx(0.5 * apart_s, rel=0.02)


def test_whole_periods_are_measured_and_compared() -> None:
    daily = [Request(f"r{day}.{i}", 100.0 * day + 20.0 + 0.5 * i, 64, 64, 1) for day in range(4) for i in range(50)]
    queue = Queue(CONSTANT)
    controller = Controller(SCHEDULERS["fcfs"](), queue, 1, ("denoise",))
    Simulation(controller, World(queue, 1)).run(daily)
    four = seen_of(controller, 400.0, 1, period_s=100.0)
    assert (four.warm_up_s, four.requests) == (0.0, 200)
    assert (four.growth, four.growth_least) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert four.backlog[0] == pytest.approx(four.backlog[1])
    late = seen_of(controller, 400.0, 1, demand_start_s=-30.0, period_s=100.0)
    assert (late.warm_up_s, late.span_s) == (30.0, 400.0)
    one = seen_of(controller, 400.0, 1, period_s=400.0)
    assert math.isnan(one.growth)


def test_a_request_whose_replica_failed_counts_once() -> None:
    requests = [Request(f"r{i}", float(i), 64, 64, 4, slo_s=30.0) for i in range(20)]
    happenings = [Happening(5.1, "down", 0), Happening(9.0, "up", 0), Happening(12.05, "cancel", request_id="r12")]
    controller, _ = simulate(requests, SCHEDULERS["fcfs"](), 1, happenings=happenings)
    assert len(controller.jobs) == 21
    seen = seen_of(controller, 20.0, 1)
    assert (seen.submitted, seen.requests, seen.finished) == (20, 18, 17)
    assert (seen.cancelled, seen.failed, seen.attainment) == (1 / 18, 0.0, 17 / 18)
    assert sum([of_size.requests for of_size in seen.sizes]) == 18


def test_what_was_outside_the_measured_range_is_a_share_of_time() -> None:
    controller, _ = simulate([Request("a", 0.0, 64, 64, 8), Request("b", 9.0, 128, 64, 8)], SCHEDULERS["fcfs"](), 1)
    large = 0.3 / (0.2 + 0.3)  # seconds of a step, both have as many
    run = arrays(controller, 1, largest=(64, 64, 1))
    seen = observe(controller, run, 20.0, warm_up=0.0)
    assert seen.extrapolated == pytest.approx(large, abs=0.05)
    assert seen_of(controller, 10.0, 1).extrapolated == 0.0


def test_all_at_once_has_no_span_but_a_time_to_drain() -> None:
    requests = [Request(f"r{i}", 0.0, 64, 64, 1) for i in range(10)]
    queue = Queue(CONSTANT)
    controller = Controller(SCHEDULERS["fcfs"](), queue, 1, ("denoise",))
    Simulation(controller, World(queue, 1)).run(requests)
    seen = seen_of(controller, 0.0, 1)
    assert seen.drain_s == 10.0
    assert seen.requests == 10
    assert math.isnan(seen.utilisation)
    assert math.isnan(seen.growth)


@settings(max_examples=examples(5), deadline=None)
@given(st.integers(0, 9))
def test_a_file_gives_back_what_was_kept(seed: int) -> None:
    seen = run(Queue(), 0.9, 50, seed, slo_s=3.0)
    back = Replication.from_dict(json.loads(json.dumps(seen.to_dict())))
    assert repr(back) == repr(seen)
