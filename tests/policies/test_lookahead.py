"""Lookahead: what it runs together, what it runs first, what it gives up, and that nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.controller import Controller
from policies.scheduling import EDF, Lookahead
from policies.scheduling.lookahead_errors import Errors
from predictors.costs import Batch, CostModel
from sim.check import check_policy
from sim.driver import Simulation
from sim.world import World
from tests.examples_tried import examples
from tests.sim.few_requests import fewer_requests
from traces.request import Request
from traces.streams import stream

SMALL, LARGE = (64, 64), (128, 128)


class Costs(CostModel):
    """A step costs ``shared`` s, ``kind`` s more for every size in it and 0.1 s for every 64x64 px of it.

    Encode and decode cost 0.01 s for every image.
    """

    def __init__(self, shared: float = 0.1, kind: float = 0.0, factor: float = 1.0) -> None:
        self.shared, self.kind, self.factor = shared, kind, factor

    def step_s(self, stage: str, batch: Batch) -> float:
        composition = batch.composition
        if stage != "denoise":
            return 0.01 * self.factor * sum(n for _, n in composition)
        pixels = sum(h * w * f * n for (h, w, f), n in composition)
        return self.factor * (self.shared + self.kind * len(composition) + 0.1 * pixels / 4096)


def simulate(
    requests: list[Request],
    policy: Lookahead | EDF | None = None,
    costs: Costs | None = None,
    predictor: Costs | None = None,
    replicas: int = 1,
) -> Controller:
    costs = costs or Costs()
    controller = Controller(policy or Lookahead(margin=0.0), predictor or costs, replicas)
    Simulation(controller, World(costs, replicas)).run(requests)
    return controller


def request(name: str, size: tuple[int, int], at: float = 0.0, steps: int = 10, slo: float | None = None) -> Request:
    return Request(name, at, *size, steps, slo_s=slo)


def in_time(controller: Controller) -> set[str]:
    return {
        job.request.request_id
        for job in controller.jobs
        if job.state == "finished" and job.finish_s is not None and job.finish_s <= job.request.deadline
    }


def denoised_together(controller: Controller) -> list[frozenset[str]]:
    """Who shared a denoising launch, in order, without repetitions."""
    batches: list[frozenset[str]] = []
    for launch, _, _ in controller.launched:
        names = frozenset(job.request.request_id for job in launch.jobs)
        if any(s.stage == "denoise" for s in launch.segments) and (not batches or batches[-1] != names):
            batches.append(names)
    return batches


def test_two_deadlines_are_worth_more_than_one() -> None:
    # Alone the large one takes 5 s and a small one 2 s; together all of them would be late.
    requests = [request("large", LARGE, slo=5.3), request("a", SMALL, slo=3.6), request("b", SMALL, slo=3.6)]
    assert in_time(simulate(requests)) == {"a", "b"}


def test_a_batch_is_as_wide_as_the_deadlines_allow() -> None:
    relaxed = [request(f"r{i}", SMALL, slo=30.0) for i in range(4)]
    assert denoised_together(simulate(relaxed)) == [frozenset({"r0", "r1", "r2", "r3"})]
    tight = [request(f"r{i}", SMALL, slo=slo) for i, slo in enumerate((3.2, 3.3, 6.4, 6.5))]
    controller = simulate(tight)
    assert max(len(names) for names in denoised_together(controller)) < 4
    assert len(in_time(controller)) == 4


def test_one_rides_along_for_the_steps_that_the_other_has_time_for() -> None:
    # Alone each takes 2.02 s, in one batch both 3.04 s: only if b rides for some steps of a are both in time.
    controller = simulate([request("a", SMALL, slo=2.6), request("b", SMALL, slo=3.7)])
    assert len(in_time(controller)) == 2
    assert denoised_together(controller) == [frozenset({"a", "b"}), frozenset({"a"}), frozenset({"b"})]


def test_nothing_is_mixed_where_one_request_saturates_the_device() -> None:
    requests = [request(f"r{i}", size, slo=60.0) for i, size in enumerate((LARGE, SMALL, LARGE, SMALL))]
    assert all(len(names) == 1 for names in denoised_together(simulate(requests, costs=Costs(shared=0.0))))


def test_sizes_that_share_nothing_run_in_groups_of_their_own() -> None:
    # Whole images of different sizes take turns: a step pays 0.1 s for every size in it.
    requests = [request(f"{'ls'[i % 2]}{i}", (LARGE, SMALL)[i % 2], slo=100.0) for i in range(6)]
    controller = simulate(requests, costs=Costs(shared=0.0, kind=0.1))
    assert len(in_time(controller)) == 6
    assert any(len(names) > 1 for names in denoised_together(controller))


def test_a_started_request_pauses_for_an_urgent_one_and_resumes() -> None:
    controller = simulate([request("large", LARGE, slo=9.0), request("small", SMALL, at=1.0, slo=2.4)])
    assert in_time(controller) == {"large", "small"}
    assert denoised_together(controller)[:2] == [frozenset({"large"}), frozenset({"small"})]


def test_small_and_large_groups_take_turns_when_deadlines_ask_for_it() -> None:
    large = [request(f"l{i}", LARGE, slo=30.0) for i in range(2)]
    small = [request(f"s{at}{i}", SMALL, at=float(at), slo=4.0) for at in (2, 8, 14) for i in range(2)]
    controller = simulate(sorted(large + small, key=lambda r: r.arrival_s))
    assert len(in_time(controller)) == 8
    groups = [{name[0] for name in names} for names in denoised_together(controller)]
    turns = [group for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    assert turns[:3] == [{"l"}, {"s"}, {"l"}]


def test_what_is_dropped_is_hopeless_and_says_by_how_much() -> None:
    controller = simulate([request("a", SMALL, slo=1.5), request("b", SMALL, slo=2.1)])
    a, b = controller.jobs
    assert (a.state, a.reason) == ("dropped", "would miss its deadline by 0.52 s even alone")
    assert b.state == "finished"


def test_without_drops_the_late_are_served_after_those_in_time() -> None:
    controller = simulate(
        [request("late", LARGE, slo=4.0), request("b", SMALL, slo=2.2), request("c", SMALL, at=0.5, slo=4.2)],
        Lookahead(margin=0.0, drop_late=False),
    )
    assert in_time(controller) == {"b", "c"}
    assert controller.jobs[0].state == "finished"


@settings(max_examples=examples(10), deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 3))
def test_nobody_starves(seed: int, drop_late: bool, replicas: int) -> None:
    """Under twice the load that can be carried, a request without a deadline is served long before the stream ends."""
    rng = stream(seed, "starve")
    patient = request("patient", LARGE, at=0.5, steps=5)
    urgent = [
        request(f"r{i}", (SMALL, LARGE)[int(rng.integers(2))], at=0.8 * i / replicas, slo=float(rng.uniform(2.5, 9.0)))
        for i in range(150)
    ]
    requests = sorted([patient, *urgent], key=lambda r: r.arrival_s)
    policy = Lookahead(drop_late=drop_late, soft_slo_scale=4.0)
    controller = simulate(requests, policy, replicas=replicas)
    job = next(job for job in controller.jobs if job.request is patient)
    assert job.state == "finished"
    assert job.finish_s is not None
    due_s = patient.arrival_s + 4.0 * Costs().standalone_s(patient)
    assert job.finish_s < due_s + 12 * Costs().standalone_s(patient)
    assert all(job.state == "finished" or (drop_late and job.state == "dropped") for job in controller.jobs)


def test_without_deadlines_everything_is_served_in_wide_batches() -> None:
    requests = [request(f"r{i}", (SMALL, LARGE)[i % 2], at=0.1 * i) for i in range(40)]
    controller = simulate(requests, Lookahead(max_batch=8))
    assert all(job.state == "finished" for job in controller.jobs)
    assert max(len(launch.jobs) for launch, _, _ in controller.launched) == 8
    busy_s = max(job.finish_s or 0.0 for job in controller.jobs)
    assert busy_s < 0.8 * sum(Costs().standalone_s(r) for r in requests)


def test_idle_replicas_share_what_comes_at_once() -> None:
    controller = simulate([request(f"r{i}", SMALL, slo=9.0) for i in range(3)], replicas=3)
    assert {job.replica for job in controller.jobs} == {0, 1, 2}


def overload(seed: int) -> list[Request]:
    """150 requests at a rate where a tenth misses, deadlines at five times the standalone latency."""
    rng, costs, at, requests = stream(seed, "overload"), Costs(), 0.0, []
    for i in range(150):
        at += float(rng.exponential(2.9))
        one = request(f"r{i}", (SMALL, LARGE)[int(rng.integers(2))], at)
        requests.append(request(f"r{i}", one.size[:2], at, slo=5 * costs.standalone_s(one)))
    return requests


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_predictions_that_are_a_fifth_off_cost_little(factor: float) -> None:
    requests = overload(3)
    exact = len(in_time(simulate(requests, Lookahead())))
    off = len(in_time(simulate(requests, Lookahead(), predictor=Costs(factor=factor))))
    rival = len(in_time(simulate(requests, EDF(max_batch=12, drop_late=True))))
    assert off >= exact - 4
    assert off > rival


@pytest.mark.parametrize("policy", [Lookahead(drop_late=False), Lookahead(max_batch=2), Lookahead(margin=0.5)])
def test_variants_keep_the_contract(policy: Lookahead, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_requests(monkeypatch, 25)
    check_policy(policy)


def test_the_ratio_follows_what_was_measured_and_the_margin_how_much_it_differs() -> None:
    steady, noisy = Errors(), Errors()
    for i in range(200):
        steady.learn(1.0, 1.25, 10)
        noisy.learn(1.0, 1.25 + (-1) ** i * 0.1, 10)
    assert steady.ratio == pytest.approx(1.25, rel=0.01)
    assert steady.margin < 0.01
    assert noisy.margin == pytest.approx(0.005 + 2 * 0.1, rel=0.1)
