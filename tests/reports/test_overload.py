"""A run log tells an overload from a stable queue and from a burst."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from policies.run_arrays import PoolShape, RequestArrays, RunArrays, StepArrays
from reports.overload import Backlog, backlogs
from reports.overload import backlog as backlog_of


def queue(load: float, requests: int, seed: int, servers: int = 1, cv: float = 1.0) -> RequestArrays:
    """Requests of 1 s each, served in order of arrival; gaps between arrivals have a coefficient of variation."""
    gaps = np.random.default_rng(seed).gamma(1 / cv**2, cv**2, requests) / (load * servers)
    return served(np.cumsum(gaps), servers)


def served(arrival_s: np.ndarray, servers: int = 1) -> RequestArrays:
    free, end_s = np.zeros(servers), np.empty(len(arrival_s))
    for at, arrived in enumerate(arrival_s):
        first = int(free.argmin())
        free[first] = end_s[at] = max(arrived, free[first]) + 1.0
    count = len(arrival_s)
    zero, one, never = np.zeros(count, dtype=int), np.ones(count), np.full(count, np.nan)
    return RequestArrays(
        arrival_s=arrival_s,
        deadline_s=never,
        standalone_s=one,
        first_start_s=end_s - 1.0,
        finish_s=end_s,
        status=zero,
        images=one.astype(int),
        attempts=one.astype(int),
        replica=zero,
        way=zero,
        extrapolated=zero.astype(bool),
        size=zero,
        checkpoint=zero,
        model=zero,
        tenant=zero,
        sizes=((64, 64, 1),),
        checkpoints=("",),
        models=("",),
        tenants=("",),
        ways=((0,),),
    )


def backlog(requests: RequestArrays, servers: int = 1) -> Backlog:
    return backlog_of(run_of(requests, servers))


def run_of(requests: RequestArrays, servers: int = 1) -> RunArrays:
    """A run in which each request that was served had a launch of its own."""
    ran = requests.where(requests.finished)
    count = len(ran)
    zero, nothing = np.zeros(count, dtype=int), np.zeros(count, dtype=bool)
    steps = StepArrays(
        launch=np.arange(count),
        replica=zero,
        stage=zero,
        start_s=ran.first_start_s,
        end_s=ran.finish_s,
        steps=zero + 1,
        requests=zero + 1,
        mixed=nothing,
        predicted_s=np.full(count, np.nan),
        computed=zero,
        reused=zero,
        extrapolated=nothing,
        device_s=ran.finish_s - ran.first_start_s,
        moved_bytes=zero,
        checkpoint=zero,
        stages=("denoise",),
        checkpoints=("",),
    )
    return RunArrays.whole(requests, steps, [PoolShape("", servers)])


def dropping(load: float, requests: int, seed: int, patience_s: float, due_s: float = 10.0) -> RequestArrays:
    """Requests of 1 s each on one server, in order; one that would wait longer than its patience is dropped at once."""
    arrival_s = np.cumsum(np.random.default_rng(seed).exponential(1 / load, requests))
    free, end_s, dropped = 0.0, np.empty(requests), np.zeros(requests, dtype=bool)
    for at, arrived in enumerate(arrival_s):
        dropped[at] = max(arrived, free) - arrived > patience_s
        end_s[at] = arrived if dropped[at] else max(arrived, free) + 1.0
        free = free if dropped[at] else end_s[at]
    return replace(
        served(arrival_s),
        deadline_s=arrival_s + due_s,
        first_start_s=np.where(dropped, np.nan, end_s - 1.0),
        finish_s=end_s,
        status=dropped.astype(int),
    )


def flagged(load: float, requests: int, seeds: range, **more: float) -> float:
    return float(np.mean([backlog(queue(load, requests, seed, **more)).grows for seed in seeds]))


SEEDS = range(5000, 5100)
"""None of those that the limits were chosen on."""


@pytest.mark.parametrize("requests", [100, 400])
def test_a_stable_queue_is_no_overload(requests: int) -> None:
    assert flagged(0.5, requests, SEEDS) == 0
    assert flagged(0.7, requests, SEEDS) <= 0.01
    assert flagged(0.7, requests, SEEDS, servers=4, cv=2.0) <= 0.02
    assert flagged(0.9, requests, SEEDS) <= 0.05


def test_an_overload_is_one() -> None:
    assert flagged(1.1, 3000, SEEDS[:20]) == 1
    assert flagged(1.5, 300, SEEDS) >= 0.99
    assert flagged(3.0, 100, SEEDS) == 1
    assert flagged(3.0, 300, SEEDS[:30], servers=4, cv=2.0) == 1


@pytest.mark.parametrize("load", [1.5, 2.8])
def test_the_load_is_measured(load: float) -> None:
    measured = [backlog(queue(load, 600, seed)).load for seed in SEEDS[:20]]
    assert np.mean(measured) == pytest.approx(load, rel=0.05)


def test_bursts_and_peaks_are_no_overload() -> None:
    rng = np.random.default_rng(0)
    quiet = np.cumsum(rng.exponential(2.0, 300))
    at_the_end = np.concatenate([quiet, quiet[-1] + rng.uniform(0, 20, 60)])
    in_between = np.sort(np.concatenate([quiet, 300 + rng.uniform(0, 20, 60)]))
    assert not backlog(served(np.sort(at_the_end))).grows
    assert backlog(served(np.sort(at_the_end))).late > 30
    assert not backlog(served(in_between)).grows
    assert not backlog(served(np.zeros(50))).grows  # all at once


def test_what_is_merely_in_hand_is_no_backlog() -> None:
    """A trace shorter than a request ends with all of them in the system, each on a replica of its own."""
    assert backlog(served(np.linspace(0.0, 0.9, 50), servers=50)).late == 0


def test_what_is_dropped_was_asked_for() -> None:
    left = [backlog(dropping(2.0, 600, seed, patience_s=3.0)) for seed in SEEDS[:20]]
    assert all(each.grows and each.late < 5 and each.dropped > 200 for each in left)
    assert np.mean([each.load for each in left]) == pytest.approx(2.0, rel=0.1)


def test_drops_beside_idle_devices_are_no_overload() -> None:
    """A third of the requests are dropped because they may not wait at all, while devices are idle."""
    left = [backlog(dropping(0.5, 600, seed, patience_s=0.0)) for seed in SEEDS[:20]]
    assert all(each.dropped > 100 and not each.grows for each in left)


def test_what_is_late_even_alone_is_no_overload() -> None:
    hopeless = [backlog(dropping(2.0, 600, seed, patience_s=3.0, due_s=0.5)) for seed in SEEDS[:5]]
    assert all(each.dropped == 0 and not each.grows for each in hopeless)


def test_a_run_without_requests() -> None:
    assert not backlog(served(np.zeros(0))).grows


def beside(one: RequestArrays, other: RequestArrays) -> RunArrays:
    """Requests of model "a" on pool "first", of a hundred servers, and those of "b" on pool "second", of one."""
    first, second = run_of(one), run_of(other)
    joined = {
        field.name: np.concatenate([getattr(one, field.name), getattr(other, field.name)])
        for field in fields(one)
        if isinstance(getattr(one, field.name), np.ndarray)
    }
    of_other = np.repeat([0, 1], [len(one), len(other)])
    ran_on = 100 * of_other
    requests = replace(
        one, **{**joined, "model": of_other, "replica": ran_on, "way": of_other}, models=("a", "b"), ways=((0,), (100,))
    )
    launches = {
        field.name: np.concatenate([getattr(first.steps, field.name), getattr(second.steps, field.name)])
        for field in fields(first.steps)
        if isinstance(getattr(first.steps, field.name), np.ndarray)
    }
    replica = np.repeat([0, 100], [len(first.steps.launch), len(second.steps.launch)])
    steps = replace(first.steps, **{**launches, "replica": replica})
    return RunArrays.whole(requests, steps, [PoolShape("first", 100), PoolShape("second", 1)])


@pytest.mark.parametrize(
    "few", [queue(2.0, 300, 1), dropping(2.0, 300, 1, patience_s=3.0)], ids=["waiting", "dropping"]
)
def test_too_much_for_one_pool_is_too_much_though_another_has_time(few: RequestArrays) -> None:
    """The overload is of so few of the requests that it is none of all together."""
    run = beside(queue(0.4, 6_000, 2, servers=100), few)
    assert not backlog_of(run).grows
    apart = backlogs(run, {"first": ["a"], "second": ["b"]})
    assert not apart[("a",)].grows
    assert apart[("b",)].load == pytest.approx(backlog(few).load, rel=0.02)
    assert apart[("b",)].grows


def test_pools_that_share_a_model_are_asked_together() -> None:
    run = beside(queue(0.4, 6_000, 2, servers=100), queue(2.0, 300, 1))
    whole = {(): backlog_of(run)}
    assert backlogs(run, {"first": ["a", "b"], "second": ["b"]}) == whole
    assert backlogs(run, {"first": ["a", "c"], "second": ["b", "c"]}) == whole
    assert backlogs(run, {}) == whole
    assert len(backlogs(run, {"first": ["a"], "second": ["b"], "third": ["c", "a"]})) == 2
