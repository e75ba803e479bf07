"""How many replicas scaling policies want."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cluster import ClusterState
from policies.job import Job, start
from policies.load import load_policy
from policies.pool import Pool
from policies.scaling import DaySchedule, Fixed, PoolView, QueueLength, ScalingPolicy, Slo, Steady, Utilisation
from tests.policies.costs import FlatCosts
from tests.policies.driving import request
from traces.errors import BadInput

REPLICA = ClusterState([Pool(FlatCosts())]).view.replicas[0]


def pool(waiting: int | list[Job] = 0, running: int | list[Job] = 0, ready: int = 1, **more: Any) -> PoolView:
    """A pool; a request takes 1 s alone, an encode, 3 steps and a decode of 0.2 s each."""
    waits = [Job(request(f"w{i}", steps=3), i) for i in range(waiting)] if isinstance(waiting, int) else waiting
    runs = [Job(request(f"r{i}", steps=3), i) for i in range(running)] if isinstance(running, int) else running
    counts = {"least": 0, "most": 10, "ready": ready, "starting": 0, "draining": 0, "failed": 0, "busy": len(runs)}
    queued = {job.request.request_id: job for job in waits}
    started = {job.request.request_id: job for job in runs}
    return PoolView(
        **{**counts, **more},
        name="",
        waiting=queued,
        jobs=queued | started,
        start_s=30.0,
        costs=REPLICA.costs,
        batch_costs=REPLICA.batch_costs,
    )


def begun(policy: ScalingPolicy) -> Any:
    policy.reset()
    return policy


class Follows(Steady):
    """Demands as many as run."""

    def demand(self, pool: PoolView, now: float) -> float:
        return pool.running


def test_a_replica_is_kept_alive_for_a_while() -> None:
    policy = begun(Follows(keep_alive_s=10.0))
    wanted = [(now, policy.wanted(pool(running=running), now)) for now, running in ((0, 1), (1, 4), (5, 2), (6, 0))]
    assert wanted == [(0, 1), (1, 4), (5, 4), (6, 4)]
    assert policy.wakeup(6.0) == 15.0
    assert (policy.wanted(pool(), 14.9), policy.wanted(pool(), 15.0)) == (4, 2)
    assert policy.wakeup(15.0) == 16.0
    assert policy.wanted(pool(), 16.0) == 0
    assert policy.wakeup(16.0) is None


def test_a_replica_starts_when_it_has_been_wanted_for_a_while() -> None:
    policy = begun(Follows(delay_s=2.0, keep_alive_s=0.0))
    told = ((0.0, 1), (1.0, 3), (2.0, 5), (2.5, 2), (3.0, 4), (4.4, 4), (4.5, 4), (5.0, 4))
    assert [policy.wanted(pool(running=running), now) for now, running in told] == [1, 1, 1, 1, 2, 2, 2, 4]


def test_after_a_change_the_number_stays_for_the_cooldown() -> None:
    policy = begun(Follows(cooldown_s=5.0, keep_alive_s=0.0))
    told = ((0.0, 1), (1.0, 3), (2.0, 5))
    assert [policy.wanted(pool(running=running), now) for now, running in told] == [1, 3, 3]
    assert policy.wakeup(2.0) == 6.0
    assert policy.wanted(pool(running=5), 6.0) == 5


def test_the_buffer_is_there_beyond_the_demand_and_the_limits_hold() -> None:
    policy = begun(Follows(buffer=2))
    assert [policy.wanted(pool(running=running, least=3), float(running)) for running in (0, 2, 9)] == [3, 4, 10]
    assert begun(Follows(keep_alive_s=0.0)).wanted(pool(waiting=1, ready=0), 0.0) == 0 + 1


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 9)), min_size=1, max_size=30),
    st.floats(0, 15),
    st.floats(0, 15),
)
def test_the_answer_is_that_of_the_windows(gaps: list[tuple[float, int]], keep_alive_s: float, delay_s: float) -> None:
    """Never below what was demanded within the one window when it falls, nor above within the other when it rises."""
    policy, now, before = begun(Follows(keep_alive_s, delay_s)), 0.0, 1
    held: list[tuple[float, float, int]] = [(-math.inf, 0.0, 1)]
    for gap_s, running in gaps:
        now += gap_s
        since, _, value = held.pop()
        held.append((since, now, value))
        held.append((now, math.inf, running))
        answer = policy.wanted(pool(running=running), now)
        kept = [v for s, e, v in held if e + keep_alive_s > now or e == math.inf]
        delayed = [v for s, e, v in held if e + delay_s > now or e == math.inf]
        assert answer == (min(delayed) if min(delayed) > before else max(kept) if max(kept) < before else before)
        before = answer


def test_fixed() -> None:
    assert [Fixed().wanted(pool(waiting=3), 0.0), Fixed(2).wanted(pool(), 0.0)] == [10, 2]


def test_the_schedule_goes_by_the_hour() -> None:
    policy = begun(DaySchedule("08:00=4 20:00=1", begins="07:00"))
    assert [policy.wanted(pool(), 3600.0 * hour) for hour in (0, 1, 12.9, 13, 24, 25)] == [1, 4, 4, 1, 1, 4]
    assert [policy.wakeup(3600.0 * hour) for hour in (0, 1, 13)] == [3600.0, 13 * 3600.0, 25 * 3600.0]
    ahead = begun(DaySchedule("08:00=4 20:00=1", ahead_s=60.0))
    assert [ahead.wanted(pool(), 3600.0 * 8 - s) for s in (61, 60, 0)] == [1, 4, 4]
    assert ahead.wanted(pool(), 3600.0 * 20 - 30) == 4
    assert ahead.wakeup(0.0) == 3600.0 * 8 - 60


@pytest.mark.parametrize("hours", ["", "8=4", "24:00=1", "08:00=1 08:00=2", "08:00=x"])
def test_a_schedule_that_is_none_is_refused(hours: str) -> None:
    with pytest.raises(BadInput, match=r"scaling policy 'schedule': .*expected"):
        load_policy("scaling", "schedule", {"hours": hours})


def test_utilisation_is_that_of_its_window() -> None:
    """Two of four are busy for 5 s, then four for 5 s: three on average, of which each is to be busy half its time."""
    policy = begun(Utilisation(target=0.5, window_s=10.0, keep_alive_s=0.0))
    policy.wanted(pool(running=2, ready=4), 0.0)
    policy.wanted(pool(running=4, ready=4), 5.0)
    assert policy.wanted(pool(running=4, ready=4), 10.0) == 6
    assert policy.wakeup(10.0) == 11.25
    assert policy.wanted(pool(running=4, ready=4), 15.0) == 8
    assert policy.wakeup(15.0) is None


def test_the_queue_starts_a_replica_for_every_few_that_wait() -> None:
    policy = begun(QueueLength(waiting=2.0, keep_alive_s=0.0))
    assert [policy.wanted(pool(waiting=waiting, running=2), float(waiting)) for waiting in (0, 1, 4, 5)] == [2, 3, 4, 5]


def waits(count: int, slo_s: float | None) -> list[Job]:
    return [Job(request(f"w{i}", steps=3, slo_s=slo_s), i) for i in range(count)]


def test_as_many_replicas_as_keep_the_deadlines_of_what_waits() -> None:
    """The last of ten may start after 3 s, when nine others of 1 s each must have been taken: three replicas."""
    alone = begun(Slo(keep_alive_s=0.0, attainment=1.0))
    assert alone.wanted(pool(waits(10, slo_s=4.0)), 0.0) == 3
    assert begun(Slo(keep_alive_s=0.0)).wanted(pool(waits(10, slo_s=100.0)), 0.0) == 1
    assert begun(Slo(keep_alive_s=0.0)).wanted(pool(waits(10, slo_s=1.0)), 0.0) == 10


def test_what_cannot_be_in_time_any_more_asks_for_nothing() -> None:
    assert begun(Slo(keep_alive_s=0.0)).wanted(pool(waits(10, slo_s=0.5)), 0.0) == 1


def test_what_has_started_counts_for_what_is_left_of_it() -> None:
    """Six that began 0.5 s ago leave 3 s before one that may start after 1.5 s."""
    running = [Job(request(f"r{i}", steps=3), i) for i in range(6)]
    for job in running:
        start(job, 0, 10.0)
    asking = [Job(request("w", 10.5, steps=3, slo_s=2.5), 9)]
    assert begun(Slo(keep_alive_s=0.0)).wanted(pool(asking, running, busy=1), 10.5) == 2


def test_it_keeps_what_the_load_of_late_needs() -> None:
    """Four were busy for the last seconds, each for half its time at most, though nothing waits."""
    policy = begun(Slo(keep_alive_s=0.0, target=0.5, window_s=10.0))
    policy.wanted(pool(running=4), 0.0)
    assert policy.wanted(pool(running=4), 5.0) == 8


def test_it_looks_once_in_a_while() -> None:
    policy = begun(Slo(keep_alive_s=0.0, every_s=2.0, attainment=1.0))
    assert policy.wanted(pool(waits(10, 4.0)), 0.0) == 3
    assert policy.wanted(pool(waits(1, 4.0)), 1.0) == 3
    assert policy.wakeup(1.0) == 2.0
    assert policy.wanted(pool(waits(1, 4.0)), 2.0) == 1
