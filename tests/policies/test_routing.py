"""Which replica a request waits for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import Cluster, Decision, Outcome, PolicyError, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.job import Job
from policies.load import load_policy
from policies.routing import ROUTINGS, EarliestCompletion, Hashed, LeastPixels, RoundRobin, RoutingPolicy, Shared
from policies.scheduling import FCFS, SCHEDULERS, Clockwork, MixedFCFS, PatchedServe, Rounds
from tests.policies.costs import FlatCosts
from tests.policies.driving import Driven, names, request
from traces.errors import BadInput

BINDING = [name for name in ROUTINGS if name != "shared"]


def replicas_of(*requests: Any, routing: RoutingPolicy, replicas: int = 3) -> list[tuple[int, list[str]]]:
    """(replica, requests) of what starts first."""
    d = Driven(FCFS(), replicas, routing=routing)
    d.submit(*requests)
    return [(launch.replica, names(launch)) for launch in d.start()]


class First(RoutingPolicy):
    """The first replica of those that work."""

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica | None:
        return replicas[0]


class LongOnes(RoutingPolicy):
    """Long requests to the last replica, others to whichever is free."""

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica | None:
        return replicas[-1] if job.request.steps > 10 else None


def test_pixels_count_until_a_request_has_ended() -> None:
    """The large request is nearly done, and still counts as four small ones."""
    d = Driven(PatchedServe(), replicas=2)
    d.submit(request("large", side=128, steps=20), request("small", steps=20))
    large, small = d.start()
    assert (names(large), names(small)) == (["large"], ["small"])
    d.end(large, 19)
    d.start()
    d.submit(request("next"))
    d.end(small)
    (launch,) = d.start()
    assert (launch.replica, names(launch)) == (1, ["next"])


def test_completion_counts_the_seconds_that_are_left() -> None:
    """After 9.5 s one of 20 steps is left of the large request; the small one began 100 steps when it began its 20."""
    d = Driven(Rounds(round_steps=19), replicas=2)
    d.submit(request("small", steps=100), request("large", side=128, steps=20))
    _, large = d.start()
    d.end(large)
    (last,) = d.start()
    assert (names(last), last.steps) == (["large"], 1)
    d.submit(request("next"))
    d.end(last)
    (launch,) = d.start()
    assert (launch.replica, names(launch)) == (1, ["next"])


@pytest.mark.parametrize("name", ["earliest-completion", "least-work", "least-pixels", "round-robin"])
def test_an_idle_replica_is_taken(name: str) -> None:
    three = [request(f"r{i}", slo_s=50.0) for i in range(3)]
    assert replicas_of(*three, routing=ROUTINGS[name]()) == [(0, ["r0"]), (1, ["r1"]), (2, ["r2"])]


def test_least_work_counts_seconds_and_least_pixels_counts_pixels() -> None:
    """A 128 px request of 4 steps takes 2 s and has four times the pixels of one of 64 px, whose 30 steps take 6 s."""
    requests = [request("large", side=128, steps=4), request("long", steps=30), request("next")]
    for name, waits_at in (("least-work", 0), ("least-pixels", 1)):
        d = Driven(FCFS(), 2, routing=ROUTINGS[name]())
        d.submit(*requests)
        d.start()
        assert [list(replica.queue) for replica in d.controller._replicas][waits_at] == ["next"], name


def test_round_robin_passes_over_replicas_that_are_down() -> None:
    d = Driven(FCFS(), 3, routing=RoundRobin())
    for at, name in enumerate("abcde"):
        if at == 2:
            d.controller.replica_down(2, 0.0)
        if at == 3:
            d.controller.replica_up(2, 0.0)
        d.submit(request(name))
        if at == 2:
            assert [list(replica.queue) for replica in d.controller._replicas] == [["a", "c"], ["b"], []]
    assert [list(replica.queue) for replica in d.controller._replicas] == [["c"], ["a", "d"], ["b", "e"]]


@given(st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=30), st.integers(2, 8), st.data())
def test_when_a_replica_fails_only_its_checkpoints_move(found: set[str], count: int, data: st.DataObject) -> None:
    replicas = Controller(FCFS(), FlatCosts(), count)._replicas
    lost = data.draw(st.sampled_from(replicas))
    left = [replica for replica in replicas if replica is not lost]
    for name in found:
        job = Job(request("r", checkpoint=name), 0)
        before, after = Hashed().route(job, replicas, 0.0), Hashed().route(job, left, 0.0)
        assert after is before or before is lost


def test_requests_without_a_checkpoint_are_spread_by_hashing() -> None:
    started = replicas_of(*[request(f"r{i}") for i in range(20)], routing=Hashed())
    assert {replica for replica, _ in started} == {0, 1, 2}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("routing", [First(), LongOnes(), Shared()])
def test_every_scheduler_runs_what_is_routed_where_it_is_routed(name: str, routing: RoutingPolicy) -> None:
    d = Driven(SCHEDULERS[name](), 2, routing=routing)
    d.submit(*[request(f"r{i}", steps=12 if i % 3 == 0 else 4) for i in range(9)])
    while d.controller.open:
        started = d.start()
        if not started:
            d.now = d.controller.wakeup(d.now) or d.now
            started = d.start()
        assert started
        for launch in started:
            d.end(launch)
    for job in d.controller.jobs:
        assert job.state == "finished"
        if isinstance(routing, First):
            assert job.replica == 0
        if isinstance(routing, LongOnes) and job.request.steps == 12:
            assert job.replica == 1


def test_a_scheduler_sees_its_replica_and_its_queue_alone() -> None:
    class Watching(SchedulingPolicy):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            assert self.cluster.replicas == (replica,)
            assert dict(replica.queue) == dict(self.cluster.waiting)
            assert dict(self.cluster.jobs) == {**replica.queue, **replica.resident}
            jobs = [*replica.resident.values(), *replica.queue.values()]
            return Decision((jobs[0],), 1) if jobs else None

    d = Driven(Watching(), 2, routing=RoundRobin())
    d.submit(*[request(f"r{i}") for i in range(6)])
    while started := d.start():
        for launch in started:
            d.end(launch)
    assert [job.replica for job in d.controller.jobs] == [0, 1] * 3


def test_under_late_binding_all_replicas_have_the_same_queue() -> None:
    d = Driven(FCFS(), 2)
    d.submit(request("a"), request("b"), request("c"))
    d.start()
    assert [list(replica.queue) for replica in d.controller._replicas] == [["c"], ["c"]]


def test_what_waits_for_a_replica_that_fails_is_routed_again_and_what_had_started_too() -> None:
    d = Driven(FCFS(), 2, routing=LeastPixels())
    d.submit(*[request(f"r{i}") for i in range(6)])
    first, second = d.start()
    d.controller.replica_down(0, 0.1, "restart", {first.launch_id: Outcome(0)})
    assert [list(replica.queue) for replica in d.controller._replicas] == [[], ["r3", "r5", "r2", "r4", "r0"]]
    d.end(second)
    while started := d.start():
        assert [launch.replica for launch in started] == [1]
        d.end(started[0])
    assert not d.controller.open


def test_requests_without_any_replica_wait_for_the_first_that_is_repaired() -> None:
    d = Driven(FCFS(), 2, routing=EarliestCompletion())
    for index in range(2):
        d.controller.replica_down(index, 0.0)
    d.submit(request("x"), request("y"))
    d.controller.cancel("y", 0.0)
    assert not d.start()
    d.controller.replica_up(1, 5.0)
    assert [(launch.replica, names(launch)) for launch in d.start()] == [(1, ["x"])]


@pytest.mark.parametrize("name", ["earliest-completion", "least-work", "least-pixels", "affinity"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_what_waits_is_routed_again_when_a_replica_comes(scheduler: str, name: str) -> None:
    """Four requests wait for the only replica; of those not started, the one that comes gets its share."""
    d = Driven(SCHEDULERS[scheduler](), 2, routing=ROUTINGS[name]())
    d.controller.replica_down(1, 0.0)
    d.submit(*[request(f"r{i}", side=64 if i else 128) for i in range(4)])
    d.now = 5.0  # whoever waits for company has waited enough
    (running,) = d.start()
    left = {f"r{i}" for i in range(4)} - set(names(running))
    d.controller.replica_up(1, d.now)
    assert set(names(running)) == {n for n, state in d.states().items() if state == "running"}
    went = set(d.controller._replicas[1].queue)
    assert went <= left
    assert bool(went) == bool(left)
    assert set(d.controller._replicas[0].queue) == left - went
    running_now = [running, *d.start()]
    assert {launch.replica for launch in running_now} == ({0, 1} if left else {0})
    while running_now:
        for launch in running_now:
            d.end(launch)
        running_now = d.start()
    assert d.states() == dict.fromkeys(["r0", "r1", "r2", "r3"], "finished")


def test_what_is_routed_again_has_ended_for_its_scheduler_and_comes_anew() -> None:
    told: list[tuple[str, str]] = []

    class Told(FCFS):
        def arrived(self, job: Job, now: float) -> None:
            told.append(("came", job.request.request_id))
            super().arrived(job, now)

        def ended(self, job: Job, now: float) -> None:
            told.append((job.state, job.request.request_id))

    d = Driven(Told(), 2, routing=LeastPixels())
    d.controller.replica_down(1, 0.0)
    d.submit(*[request(name) for name in "abc"])
    d.start()
    told.clear()
    d.controller.replica_up(1, 1.0)
    assert told == [("rerouted", "b"), ("rerouted", "c"), ("came", "b"), ("came", "c")]
    assert d.states() == {"a": "running", "b": "waiting", "c": "waiting"}
    assert [job.earlier for job in d.controller.jobs] == [None] * 5  # nothing has begun again
    assert d.controller.open == 3


def test_a_scheduler_of_a_replica_that_fails_begins_anew() -> None:
    class Counting(FCFS):
        def reset(self, cluster: Cluster) -> None:
            super().reset(cluster)
            self.seen: list[str] = []

        def arrived(self, job: Job, now: float) -> None:
            self.seen.append(job.request.request_id)
            super().arrived(job, now)

    d = Driven(Counting(), 2, routing=First())
    d.submit(request("a"))
    d.controller.replica_down(0, 0.0)
    d.controller.replica_up(0, 1.0)
    d.submit(request("b"))
    assert [queue.policy.seen for queue in d.controller._router.queues] == [["a", "b"], ["a"]]


def test_a_scheduler_may_not_run_what_waits_elsewhere() -> None:
    every: list[Job] = []

    class Grabs(FCFS):
        def arrived(self, job: Job, now: float) -> None:
            every.append(job)

        def plan(self, replica: Replica, now: float) -> Decision | None:
            return Decision((every[0],), 1)

    d = Driven(Grabs(), 2, routing=RoundRobin())
    d.submit(request("a"), request("b"))
    d.controller.cancel("b", 0.0)
    d.submit(request("c", steps=1), request("d"))
    every[0] = every[-1]
    with pytest.raises(PolicyError, match="wants to run request 'd' on replica 0, which waits elsewhere"):
        d.start()


@pytest.mark.parametrize(
    ("policy", "usual"),
    [
        (FCFS(), "Shared"),
        (MixedFCFS(), "Shared"),
        (PatchedServe(), "LeastPixels"),
        (Clockwork(), "EarliestCompletion"),
        (Rounds(), "EarliestCompletion"),
    ],
)
def test_what_a_scheduler_is_used_with(policy: SchedulingPolicy, usual: str) -> None:
    routing = Controller(policy, FlatCosts(), 2)._router._routing
    assert (usual == "Shared") == (routing is None)
    assert routing is None or type(routing).__name__ == usual


def test_a_policy_of_the_users_own_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from tilecast import RoutingPolicy\n"
        "class Last(RoutingPolicy):\n"
        "    def route(self, job, replicas, now):\n"
        "        return replicas[-1]\n"
    )
    routing = load_policy("routing", "mine.py:Last", {}, tmp_path)
    assert replicas_of(request("x"), routing=routing) == [(2, ["x"])]
    with pytest.raises(BadInput, match="did you mean 'round-robin'"):
        load_policy("routing", "roundrobin")
