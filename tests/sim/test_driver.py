"""The simulator: exact in virtual time, the same by quantum and by step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.caching import FixedInterval, Threshold
from policies.caching.plan import CachePlans
from policies.contract import Decision, Launch, LaunchWork, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.job import Job, advance
from policies.scheduling import EDF, FCFS, SCHEDULERS, SameSizeDynamic
from predictors.costs import Batch, RepeatNoise
from predictors.reuse import ReuseModel
from sim.driver import Simulation
from sim.stalled import Stalled
from sim.world import World
from tests.examples_tried import examples
from tests.policies.costs import FlatCosts
from tests.predictors.recordings import made_up
from traces.request import Request


class Costs(FlatCosts):
    """Flat costs with repeat noise that holds for three steps."""

    def __init__(self, ratios: tuple[float, ...] = (1.0,)) -> None:
        self._repeats = RepeatNoise(ratios, 3)

    def noise(self, stage: str) -> RepeatNoise:
        return self._repeats


def simulate(policy: SchedulingPolicy, requests: list[Request], per_step: bool = False, **world: object) -> Controller:
    replicas = int(world.pop("replicas", 1))  # type: ignore[call-overload]
    costs = Costs(world.pop("ratios", (1.0,)))  # type: ignore[arg-type]
    controller = Controller(policy, costs, replicas)
    Simulation(controller, World(costs, replicas, **world), per_step).run(requests)  # type: ignore[arg-type]
    return controller


def test_durations_add_up_by_hand() -> None:
    requests = [Request("a", 1.0, 64, 64, 4), Request("b", 1.5, 64, 64, 2)]
    c = simulate(FCFS(), requests)
    assert [job.finish_s for job in c.jobs] == [pytest.approx(1.0 + 6 * 0.2), pytest.approx(1.0 + 10 * 0.2)]
    assert [job.first_start_s for job in c.jobs] == [1.0, pytest.approx(2.2)]


def test_a_window_wakes_the_controller() -> None:
    c = simulate(SameSizeDynamic(window_s=0.7), [Request("a", 1.0, 64, 64, 1)])
    assert c.jobs[0].first_start_s == pytest.approx(1.7)


def test_slowdown_stretches_every_step() -> None:
    requests = [Request("a", 0.0, 64, 64, 4)]
    assert simulate(FCFS(), requests, slowdown=1.5).jobs[0].finish_s == pytest.approx(6 * 0.3)


def test_noise_has_the_measured_mean_and_is_held() -> None:
    ratios = (0.8, 1.0, 1.2)
    world = World(Costs(ratios), 1, seed=3)
    clock = world.clocks[0]["denoise"]
    clock.draw(1000)
    clock.next = 400
    clock.draw(3000)  # those that are left come first
    factors = np.diff(clock.sums[:3001]).tolist()
    assert set(factors) == {800, 1000, 1200}
    assert np.mean(factors) == pytest.approx(1000, rel=0.02)
    thirds = np.array(factors[2:2999]).reshape(-1, 3)
    assert (thirds == thirds[:, :1]).all()


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    requests = [Request(f"r{i}", 0.1 * i, 64, 64, 4) for i in range(20)]

    def ends(seed: int) -> list[float | None]:
        return [job.finish_s for job in simulate(FCFS(), requests, seed=seed, ratios=(0.9, 1.1)).jobs]

    assert ends(1) == ends(1) != ends(2)


def test_two_simulations_in_one_process_do_not_touch_each_other() -> None:
    requests = [Request(f"r{i}", 0.1 * i, 64, 64, 4) for i in range(5)]
    policy = SCHEDULERS["least-slack"]()
    alone = [job.finish_s for job in simulate(policy, requests).jobs]
    first, second = (Controller(policy, Costs(), 1) for _ in range(2))
    Simulation(first, World(Costs(), 1)).run(requests)
    Simulation(second, World(Costs(), 1)).run(requests)
    assert [job.finish_s for job in first.jobs] == [job.finish_s for job in second.jobs] == alone


def test_a_policy_that_leaves_requests_waiting_is_named() -> None:
    class Sleeper(SchedulingPolicy):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            return None

    with pytest.raises(Stalled, match="Sleeper stalls: 1 requests have not ended"):
        simulate(Sleeper(), [Request("a", 0.0, 64, 64, 1)])


@pytest.fixture(scope="module")
def reuse() -> ReuseModel:
    return ReuseModel.fit(made_up(3))


def test_with_a_cache_steps_last_as_long_as_what_they_compute(reuse: ReuseModel) -> None:
    requests = [Request("a", 1.0, 64, 64, 8), Request("b", 1.0, 64, 64, 8, guidance_scale=1.0)]
    costs = UnevenCosts()
    controller = Controller(FCFS(), costs, 1)
    Simulation(controller, World(costs, 1, plans=CachePlans(FixedInterval(every=3), reuse))).run(requests)
    first, second = controller.jobs
    # Of the 8 denoising steps of each, 4 are computed (the first two, the fifth, the last), the others to 1 %.
    of_stage = {"encode": 0.2 * 1.0137, "denoise": 0.2 * 1.0291, "decode": 0.2 * 0.9871}
    expected = of_stage["encode"] + of_stage["denoise"] * (4 * 1.0 + 4 * 0.109) + of_stage["decode"]
    assert first.finish_s == pytest.approx(1.0 + expected)
    assert second.finish_s == pytest.approx(1.0 + expected + 0.513 * expected)
    units = [(outcome.computed, outcome.reused) for _, outcome, _ in controller.launched]
    per_step = 4 * reuse.blocks  # 64x64 px has four patches of 32 px, guided ones twice
    assert units == [(1 + 4 * 2 * per_step + 1, 4 * 2 * per_step), (1 + 4 * per_step + 1, 4 * per_step)]


def test_a_recall_ends_a_cached_quantum_at_its_next_boundary(reuse: ReuseModel) -> None:
    costs = UnevenCosts()
    plans = CachePlans(FixedInterval(every=3), reuse)
    slow = Request("slow", 0.0, 64, 64, 8, slo_s=100.0)
    alone = Controller(EDF(), costs, 1)
    Simulation(alone, World(costs, 1, plans=plans)).run([slow])
    step = 0.2 * 1.0291
    ends = 0.2 * 1.0137 + step * np.cumsum([1.0, 1.0, 0.109, 0.109, 1.0, 0.109, 0.109, 1.0])
    urgent = Request("urgent", float(ends[2] + 0.01), 64, 64, 1, slo_s=1.0)  # during the fourth step, a reused one
    both = Controller(EDF(max_batch=1), costs, 1)
    Simulation(both, World(costs, 1, plans=plans)).run([slow, urgent])
    assert both.jobs[1].first_start_s == pytest.approx(ends[3])
    assert both.launched[0][1].steps_done == 5  # encode and four denoising steps
    away = both.jobs[1].finish_s - both.jobs[1].first_start_s  # type: ignore[operator]
    assert both.jobs[0].finish_s == pytest.approx(alone.jobs[0].finish_s + away)  # type: ignore[operator]


def test_requests_of_a_batch_reuse_each_at_its_own_step(reuse: ReuseModel) -> None:
    plans = CachePlans(FixedInterval(every=2, warmup=1), reuse)
    world = World(UnevenCosts(), 1, plans=plans)
    early, late = (Job(Request(name, 0.0, 128, 64, 8), order) for order, name in enumerate("ab"))
    advance(early, 1)
    advance(late, 2)  # its next step is its second, a reused one
    work = LaunchWork(Batch("", (((128, 64, 1), 2),)), (("denoise", 3),))
    launch = Launch(0, 0, (early, late), work, (0.0,), 3, 0.0)
    whole = World(UnevenCosts(), 1).timeline(launch, 0).end / 3
    half = whole * (0.1 + 0.9 * 0.5)
    timeline = world.timeline(launch, 0)
    first = timeline.boundary_after(0)
    second = timeline.boundary_after(first)
    assert np.diff([0, first, second, timeline.end]) == pytest.approx([half] * 3, rel=1e-6)


def request_strategy() -> st.SearchStrategy[Request]:
    return st.builds(
        Request,
        request_id=st.just("r"),
        arrival_s=st.one_of(st.floats(0, 8), st.integers(0, 8).map(float)),
        height=st.sampled_from([64, 128]),
        width=st.sampled_from([64, 96]),
        steps=st.integers(1, 7),
        images=st.sampled_from([1, 1, 2, 9]),
        guidance_scale=st.sampled_from([5.0, 1.0]),
        slo_s=st.sampled_from([None, 1.0, 5.0, 20.0]),
    )


class UnevenCosts(Costs):
    """No two durations are commensurate."""

    def step_s(self, stage: str, batch: Batch) -> float:
        odd = {"encode": 1.0137, "denoise": 1.0291, "decode": 0.9871}[stage]
        computed = 1.0 if batch.computed is None else batch.computed
        return super().step_s(stage, batch) * odd * (0.513 + 0.487 * batch.guided_share) * (0.1 + 0.9 * computed)


@pytest.mark.parametrize("name", SCHEDULERS)
@settings(max_examples=examples(7), deadline=None)
@given(
    drawn=st.lists(request_strategy(), min_size=1, max_size=14),
    replicas=st.integers(1, 3),
    seed=st.integers(0, 9),
    noisy=st.booleans(),
    cached=st.booleans(),
)
def test_a_quantum_and_single_steps_give_identical_completions(
    name: str, drawn: list[Request], replicas: int, seed: int, noisy: bool, cached: bool, reuse: ReuseModel
) -> None:
    ordered = sorted(drawn, key=lambda request: request.arrival_s)
    requests = [dataclasses.replace(request, request_id=f"r{i}") for i, request in enumerate(ordered)]
    costs = UnevenCosts((0.93, 1.0, 1.04) if noisy else (1.0,))

    plans = CachePlans(Threshold(0.2, warmup=1), reuse) if cached else None

    def run(per_step: bool) -> tuple[int, list[object], list[int]]:
        controller = Controller(SCHEDULERS[name](), costs, replicas)
        Simulation(controller, World(costs, replicas, seed, plans=plans), per_step).run(requests)
        fates: list[object] = [(job.state, job.finish_s, job.first_start_s, job.replica) for job in controller.jobs]
        outcomes = [outcome for _, outcome, _ in controller.launched]
        return len(outcomes), fates, [sum(o.computed for o in outcomes), sum(o.reused for o in outcomes)]

    quanta, by_quantum, units = run(per_step=False)
    steps, by_step, units_by_step = run(per_step=True)
    assert by_quantum == by_step
    assert units == units_by_step
    assert quanta <= steps
