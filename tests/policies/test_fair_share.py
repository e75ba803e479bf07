"""Tenants get their shares of the devices, whatever schedules what is let through."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import Decision, PolicyError, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.fair_share import FairShare
from policies.job import Job
from policies.scheduling import FCFS, SRPT, Lookahead, MixedFCFS, PatchedServeJoins
from sim.check import check_policy
from sim.check_worlds import IrregularCosts
from sim.driver import Simulation
from sim.world import World
from tests.policies.driving import Driven, names, request
from tests.sim.few_requests import fewer_requests
from traces.request import Request

COSTS = IrregularCosts()


def ran(policy: SchedulingPolicy, requests: list[Request], replicas: int = 1) -> list[Job]:
    """Their jobs, when all have ended."""
    controller = Controller(policy, COSTS, replicas)
    Simulation(controller, World(COSTS, replicas, 0, noise=False)).run(requests)
    return controller.jobs


def asked(tenant: str, count: int, side: int = 256, steps: int = 4, at_s: float = 0.0) -> list[Request]:
    return [Request(f"{tenant}{n}", at_s, side, side, steps, tenant=tenant) for n in range(count)]


@pytest.mark.parametrize(
    "policy",
    [FairShare(FCFS(), {"a": 2.0}, 1), FairShare(PatchedServeJoins(), {"b": 3.0}, 4), FairShare(Lookahead(), None, 3)],
    ids=["fcfs", "patchedserve-joins", "lookahead"],
)
def test_it_keeps_the_contract(policy: FairShare, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_requests(monkeypatch, 25)
    check_policy(policy)


@settings(deadline=None, max_examples=25)
@given(
    scheduler=st.sampled_from([FCFS(), SRPT(), MixedFCFS(4)]),
    shares=st.dictionaries(st.sampled_from("abc"), st.floats(0.25, 4.0), min_size=1),
    kinds=st.lists(st.tuples(st.sampled_from([128, 256, 512]), st.integers(1, 8)), min_size=3, max_size=3),
    depth=st.integers(1, 6),
    replicas=st.integers(1, 3),
)
def test_backlogged_tenants_have_device_seconds_by_their_shares_but_for_what_is_under_way(
    scheduler: SchedulingPolicy,
    shares: dict[str, float],
    kinds: list[tuple[int, int]],
    depth: int,
    replicas: int,
) -> None:
    tenants = [asked(name, 40, side, steps) for name, (side, steps) in zip("abc", kinds, strict=True)]
    alone_s = {requests[0].tenant: COSTS.standalone_s(requests[0]) for requests in tenants}
    share = {name: shares.get(name, 1.0) for name in alone_s}
    jobs = ran(FairShare(scheduler, shares, depth), [one for requests in tenants for one in requests], replicas)
    assert {job.state for job in jobs} == {"finished"}
    served: dict[str, float] = defaultdict(float)
    left = dict.fromkeys(alone_s, 40)
    for job in sorted(jobs, key=lambda job: (job.finish_s, job.order)):
        name = job.request.tenant
        served[name] += alone_s[name] / share[name]
        left[name] -= 1
        if min(left.values()) <= depth * replicas:  # one of them may have no more to let through
            break
        for one, other in (("a", "b"), ("b", "c"), ("a", "c")):
            most_s = (depth * replicas + 1) * (alone_s[one] / share[one] + alone_s[other] / share[other])
            assert abs(served[one] - served[other]) <= most_s + 1e-9


@settings(deadline=None, max_examples=15)
@given(
    arrivals=st.lists(st.floats(0, 3), min_size=1, max_size=30),
    scheduler=st.sampled_from([FCFS(), MixedFCFS(4)]),
    replicas=st.integers(1, 2),
)
def test_a_tenant_alone_is_not_slowed(arrivals: list[float], scheduler: SchedulingPolicy, replicas: int) -> None:
    requests = [Request(f"r{n}", at_s, 256, 256, 1 + n % 5, tenant="a") for n, at_s in enumerate(sorted(arrivals))]
    shared = ran(FairShare(scheduler, {"a": 0.5, "b": 4.0}, 8), requests, replicas)
    assert [job.finish_s for job in shared] == [job.finish_s for job in ran(scheduler, requests, replicas)]


@settings(deadline=None, max_examples=15)
@given(
    arrivals=st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abc"), st.integers(1, 5)), min_size=1, max_size=30),
    depth=st.integers(1, 3),
)
def test_no_replica_is_left_idle_while_anything_is_to_do(arrivals: list[tuple[float, str, int]], depth: int) -> None:
    requests = [
        Request(f"r{n}", at_s, 256, 256, steps, tenant=name) for n, (at_s, name, steps) in enumerate(sorted(arrivals))
    ]
    ends = [
        max(job.finish_s or 0.0 for job in ran(policy, requests)) for policy in (FairShare(FCFS(), None, depth), FCFS())
    ]
    assert ends[0] == pytest.approx(ends[1])


def order(run: Driven) -> list[str]:
    """What starts, launch by launch, until all is done."""
    told: list[str] = []
    while run.controller.open:
        for launch in run.start():
            told += names(launch)
            run.end(launch)
    return told


def test_who_was_idle_has_saved_nothing_up_and_waits_for_no_backlog() -> None:
    run = Driven(FairShare(FCFS(), None, 1))
    run.submit(*[request(f"a{n}", tenant="a") for n in range(20)])
    for _ in range(10):
        [launch] = run.start()
        run.end(launch)
    run.submit(*[request(f"b{n}", tenant="b") for n in range(4)])
    assert order(run) == ["b0", "a10", "b1", "a11", "b2", "a12", "b3", *[f"a{n}" for n in range(13, 20)]]


def test_shares_are_of_seconds_not_of_requests() -> None:
    run = Driven(FairShare(FCFS(), {"a": 2.0}, 1))
    run.submit(
        *[request(f"a{n}", steps=2, tenant="a") for n in range(8)], *[request(f"b{n}", tenant="b") for n in range(2)]
    )
    assert order(run) == ["a0", "b0", "a1", "a2", "a3", "a4", "b1", "a5", "a6", "a7"]


def test_of_one_tenant_the_highest_priority_goes_first() -> None:
    run = Driven(FairShare(FCFS(), None, 1))
    run.submit(
        *[request(f"a{n}", priority=n % 3, tenant="a") for n in range(6)], request("b0", tenant="b", priority=-5)
    )
    assert order(run) == ["a2", "b0", "a5", "a1", "a4", "a0", "a3"]


class DropsTenant(FCFS):
    """Drops the requests of tenant a."""

    def plan(self, replica: Replica, now: float) -> Decision | None:
        dropped = tuple([(job, "not wanted") for job in self.cluster.waiting.values() if job.request.tenant == "a"])
        return Decision(drop=dropped) if dropped else super().plan(replica, now)


def test_what_was_dropped_or_cancelled_is_not_counted_as_served() -> None:
    run = Driven(FairShare(DropsTenant(), None, 2))
    run.submit(*[request(f"a{n}", tenant="a") for n in range(9)], *[request(f"b{n}", tenant="b") for n in range(3)])
    for _ in range(3):
        [launch] = run.start()
        run.end(launch)
    assert set(run.states().values()) == {"dropped", "finished"}
    policy = run.controller.policy
    assert isinstance(policy, FairShare)
    assert policy._tenants["a"].start_s == 0.0

    held = Driven(FairShare(FCFS(), None, 1))
    held.submit(*[request(f"{name}{n}", tenant=name) for n in range(3) for name in "ab"])
    [launch] = held.start()
    held.controller.cancel("b0", held.now)  # it was held
    held.end(launch)
    assert order(held) == ["b1", "a1", "b2", "a2"]


class RunsWhatItKnew(FCFS):
    """Asks for a request that has ended."""

    def arrived(self, job: Job, now: float) -> None:
        super().arrived(job, now)
        self.first = getattr(self, "first", job)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        return Decision((self.first,), 1)


def test_a_broken_rule_is_put_down_to_the_policy_that_broke_it() -> None:
    run = Driven(FairShare(RunsWhatItKnew()))
    run.submit(request("a0", steps=1), request("a1"))
    [launch] = run.start()
    run.end(launch)
    with pytest.raises(
        PolicyError, match=r"policy RunsWhatItKnew names Job\('a0', finished.*which is no job that it was"
    ):
        run.start()
