"""The simulator: exact in virtual time, the same by quantum and by step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import Decision, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.scheduling import FCFS, SCHEDULERS, SameSizeDynamic
from sim.driver import Simulation, Stalled
from sim.world import World
from tests.policies.costs import FlatCosts
from traces.composition import Composition
from traces.request import Request


class Costs(FlatCosts):
    """Flat costs with repeat noise that holds for three steps."""

    class _Repeats:
        def __init__(self, ratios: tuple[float, ...]) -> None:
            self.ratios, self.steps = ratios, 3

    def __init__(self, ratios: tuple[float, ...] = (1.0,)) -> None:
        self._repeats = self._Repeats(ratios)

    def noise(self, stage: str) -> _Repeats:
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
    factors = []
    for _ in range(3000):
        factors.append(clock.sum_to(1))
        clock.done += 1
    assert set(factors) == {800, 1000, 1200}
    assert np.mean(factors) == pytest.approx(1000, rel=0.02)
    thirds = np.array(factors).reshape(-1, 3)
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


def request_strategy() -> st.SearchStrategy[Request]:
    return st.builds(
        Request,
        request_id=st.just(""),
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

    def seconds(self, stage: str, composition: Composition, guided: bool = True) -> float:
        odd = {"encode": 1.0137, "denoise": 1.0291, "decode": 0.9871}[stage]
        return super().seconds(stage, composition) * odd * (1.0 if guided else 0.513)


@pytest.mark.parametrize("name", SCHEDULERS)
@settings(max_examples=40, deadline=None)
@given(
    drawn=st.lists(request_strategy(), min_size=1, max_size=14),
    replicas=st.integers(1, 3),
    seed=st.integers(0, 9),
    noisy=st.booleans(),
)
def test_a_quantum_and_single_steps_give_identical_completions(
    name: str, drawn: list[Request], replicas: int, seed: int, noisy: bool
) -> None:
    ordered = sorted(drawn, key=lambda request: request.arrival_s)
    requests = [dataclasses.replace(request, request_id=f"r{i}") for i, request in enumerate(ordered)]
    costs = UnevenCosts((0.93, 1.0, 1.04) if noisy else (1.0,))

    def run(per_step: bool) -> tuple[int, list[object]]:
        controller = Controller(SCHEDULERS[name](), costs, replicas)
        Simulation(controller, World(costs, replicas, seed), per_step).run(requests)
        fates: list[object] = [(job.state, job.finish_s, job.first_start_s, job.replica) for job in controller.jobs]
        return len(controller.launched), fates

    quanta, by_quantum = run(per_step=False)
    steps, by_step = run(per_step=True)
    assert by_quantum == by_step
    assert quanta <= steps
