"""Floors under every group's attainment: who counts more, and what a floor does to the sizes."""

from __future__ import annotations

import pytest

from policies.controller import Controller
from policies.job import Job
from policies.scheduling import Lookahead
from policies.scheduling.lookahead_fair import Floors
from sim.check import check_policy
from sim.driver import Simulation
from sim.world import World
from tests.policies.test_lookahead import LARGE, SMALL, Costs
from tests.sim.few_requests import fewer_requests
from traces.request import Request
from traces.streams import stream


def ended(size: tuple[int, int], tenant: str = "", met: bool = True) -> Job:
    """A job that has been finished, in time or not."""
    request = Request("x", 0.0, *size, 10, slo_s=100.0 if met else 1.0, tenant=tenant)
    controller = Controller(Lookahead(drop_late=False), Costs())
    Simulation(controller, World(Costs(), 1)).run([request])
    return controller.jobs[0]


@pytest.mark.parametrize("tenant", ["", "a"])
def test_a_group_that_misses_too_often_counts_more_until_its_debt_is_paid(tenant: str) -> None:
    floors, met, missed = Floors(0.8), ended(LARGE, tenant), ended(LARGE, tenant, met=False)
    for _ in range(10):
        floors.ended(missed)
    in_debt = floors.worth(met)
    assert in_debt > 2.0
    assert floors.worth(ended(SMALL)) == 1.0
    assert (floors.worth(ended(SMALL, tenant)) == in_debt) == bool(tenant)  # a tenant owes whatever the size
    for _ in range(60):
        floors.ended(met)
    assert floors.worth(met) == 1.0


def test_misses_that_a_floor_permits_make_no_debt() -> None:
    floors, met, missed = Floors(0.75), ended(LARGE), ended(LARGE, met=False)
    for _ in range(40):
        for job in (met, met, met, met, missed):
            floors.ended(job)
    assert floors.worth(met) < 1.2


def shares(fair: float) -> tuple[float, float]:
    """Attainment of large and of small ones at a rate that is too high."""
    rng, costs, at, requests = stream(3, "fair"), Costs(), 0.0, []
    for i in range(400):
        at += float(rng.exponential(2.4))
        size = (SMALL, LARGE)[int(rng.integers(2))]
        alone_s = costs.standalone_s(Request("alone", 0.0, *size, 10))
        requests.append(Request(f"r{i}", at, *size, 10, slo_s=4 * alone_s))
    controller = Controller(Lookahead(fair=fair), costs, 1)
    Simulation(controller, World(costs, 1)).run(requests)
    of = {size: [job for job in controller.jobs if job.request.size[:2] == size] for size in (LARGE, SMALL)}
    met = {
        size: sum(job.state == "finished" and job.finish_s <= job.request.deadline for job in jobs) / len(jobs)
        for size, jobs in of.items()
    }
    return met[LARGE], met[SMALL]


def test_a_floor_brings_the_worst_size_up_at_the_cost_of_the_other() -> None:
    large, small = shares(0.0)
    large_fair, small_fair = shares(0.9)
    assert large < small
    assert large_fair > large + 0.03
    assert small_fair < small


def test_a_floor_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_requests(monkeypatch, 25)
    check_policy(Lookahead(fair=0.9))
