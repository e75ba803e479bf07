"""Which replica a request goes to, which weights make room, and whose turn it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import Decision, Launch, Outcome, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.job import Job
from policies.load import load_policy
from policies.residency import KEEPS, Affinity, Hashed, LeastLoaded, ManyCheckpoints, RoundRobinDispatch
from policies.scheduling import FCFS, MixedFCFS
from predictors.loading import Weights
from sim.check_worlds import IrregularCosts
from traces.errors import BadInput
from traces.request import Request

SECONDS = Weights(2.0, 1.0, disk_gb_per_s=0.5)
"""Two checkpoints fit, a load takes two seconds."""


class Second(IrregularCosts):
    """Every denoising step takes a second."""

    def seconds(self, stage: str, composition: object, guided: float = 1.0, computed: float | None = None) -> float:
        return float(stage == "denoise")


@dataclass
class Lane:
    index: int
    backlog: float = 0.0
    load: float = 0.0
    room: float = 0.0

    def backlog_s(self, now: float) -> float:
        return self.backlog

    def load_s(self, checkpoint: str) -> float:
        return self.load

    def room_gb(self) -> float:
        return self.room


def request(name: str, checkpoint: str = "a", at: float = 0.0, steps: int = 3, **more: object) -> Request:
    return Request(name, at, 64, 64, steps, checkpoint=checkpoint, **more)  # type: ignore[arg-type]


def job(checkpoint: str) -> Job:
    return Job(request("r", checkpoint), 0)


def controller(policy: ManyCheckpoints, replicas: int = 1, loaded: tuple[tuple[str, ...], ...] = ()) -> Controller:
    return Controller(policy, Second(), replicas, loading=True, loaded=loaded)


def spelled(launches: list[Launch]) -> list[tuple[int, str]]:
    """(replica, what): ``+a-b`` loads a and gives up b, else the requests that run."""
    told = []
    for launch in launches:
        if launch.load is None:
            told.append((launch.replica, " ".join([job.request.request_id for job in launch.jobs])))
        else:
            told.append((launch.replica, "+" + "-".join([launch.load.checkpoint, *launch.load.evict])))
    return told


class Run:
    """A controller driven by hand: every launch ends after its predicted seconds."""

    def __init__(self, held: Controller) -> None:
        self.controller = held
        self.now = 0.0
        self.log: list[tuple[int, str]] = []

    def submit(self, *requests: Request) -> None:
        for item in requests:
            self.controller.submit(item, self.now)

    def step(self) -> list[Launch]:
        """Start what is to start, and end the whole of it."""
        started = self.controller.launches(self.now)
        self.log += spelled(started)
        self.controller.recalls(self.now)
        self.now += max([sum([s.steps * s.predicted_step_s for s in launch.segments]) for launch in started], default=0)
        for launch in started:
            self.controller.complete(launch, Outcome(launch.steps), self.now)
        return started

    def finish(self) -> list[tuple[int, str]]:
        while self.controller.open:
            assert self.step()
        return self.log


def test_affinity_goes_where_the_weights_are_until_the_queue_costs_more_than_another_copy() -> None:
    affinity = Affinity(load_weight=2.0)
    here, elsewhere = Lane(0, backlog=3.9, load=0.0), Lane(1, backlog=0.0, load=2.0)
    assert affinity.choose(job("a"), [here, elsewhere], 0.0) is here
    here.backlog = 4.1
    assert affinity.choose(job("a"), [here, elsewhere], 0.0) is elsewhere


def test_among_equals_affinity_takes_the_replica_with_room() -> None:
    full, empty = Lane(0, load=2.0, room=0.0), Lane(1, load=2.0, room=9.0)
    assert Affinity().choose(job("a"), [full, empty], 0.0) is empty
    assert LeastLoaded().choose(job("a"), [full, empty], 0.0) is full


def test_round_robin_passes_over_replicas_that_are_down() -> None:
    policy, lanes = RoundRobinDispatch(), [Lane(0), Lane(1), Lane(2)]
    policy.reset()
    chosen = [policy.choose(job("a"), up, 0.0).index for up in (lanes, lanes, [lanes[0], lanes[1]], lanes, lanes)]
    assert chosen == [0, 1, 0, 1, 2]


@given(st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=30), st.integers(2, 8), st.data())
def test_when_a_replica_fails_only_its_checkpoints_move(names: set[str], count: int, data: st.DataObject) -> None:
    lanes = [Lane(index) for index in range(count)]
    lost = data.draw(st.sampled_from(lanes))
    left = [lane for lane in lanes if lane is not lost]
    for name in names:
        before = Hashed().choose(job(name), lanes, 0.0)
        after = Hashed().choose(job(name), left, 0.0)
        assert after is before or before is lost


def test_lru_gives_up_what_started_longest_ago_and_lfu_what_started_least() -> None:
    lru, lfu = KEEPS["lru"](), KEEPS["lfu"](half_life_s=10.0)
    for policy in (lru, lfu):
        policy.reset()
        for at, name in enumerate("aaabc"):
            policy.used(name, 1.0, 1.0, float(at))
    assert lru.victim("abc", 5.0) == "a"
    assert lfu.victim("abc", 5.0) == "b"
    for at in (80.0, 81.0):
        lfu.used("b", 1.0, 1.0, at)
    assert lfu.victim("ab", 82.0) == "a"  # its three starts are long ago
    lru.left("a")
    assert lru.victim("bc", 5.0) == "b"


def test_cost_gives_up_what_is_cheap_to_bring_back_for_its_size_and_forgets_old_worth() -> None:
    cost = KEEPS["cost"]()
    cost.reset()
    cost.used("large", 10.0, 5.0, 0.0)
    cost.used("small", 1.0, 1.0, 1.0)
    assert cost.victim(["large", "small"], 2.0) == "large"
    for at in range(3):
        cost.used("large", 10.0, 5.0, 2.0 + at)
    assert cost.victim(["large", "small"], 6.0) == "small"
    for name in "bcdef":  # others come and go, and large is not used any more
        cost.used(name, 1.0, 1.0, 7.0)
        victim = cost.victim(["large", name], 7.0)
        cost.left(victim)
        if victim == "large":
            break
    assert victim == "large"


def test_pinned_weights_stay_while_anything_else_can_go() -> None:
    pin = load_policy("keep", "pin", {"checkpoints": ["a"]})
    pin.reset()
    for at, name in enumerate("abc"):
        pin.used(name, 1.0, 1.0, float(at))
    assert pin.victim("abc", 3.0) == "b"
    assert pin.victim("a", 3.0) == "a"
    with pytest.raises(BadInput, match="checkpoints is 'a', expected a valid list"):
        load_policy("keep", "pin", {"checkpoints": "a"})


def test_a_policy_of_the_users_own_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from policies.residency import DispatchPolicy\n"
        "class Last(DispatchPolicy):\n"
        "    def choose(self, job, lanes, now):\n"
        "        return lanes[-1]\n"
    )
    dispatch = load_policy("dispatch", "mine.py:Last", {}, tmp_path)
    run = Run(controller(ManyCheckpoints(FCFS(), dispatch), 3, (("a",),) * 3))
    run.submit(request("x"))
    assert run.finish() == [(2, "x")]
    with pytest.raises(BadInput, match="did you mean 'affinity'"):
        load_policy("dispatch", "afinity")


def test_weights_are_loaded_once_for_all_who_wait_and_the_least_used_makes_room() -> None:
    run = Run(controller(ManyCheckpoints(FCFS(), keep=KEEPS["lru"](), weights=SECONDS)))
    run.submit(request("a1", "a"), request("b1", "b"), request("a2", "a"))
    run.finish()
    run.submit(request("c1", "c"))
    assert run.finish() == [(0, "+a"), (0, "a1"), (0, "a2"), (0, "+b"), (0, "b1"), (0, "+c-a"), (0, "c1")]


def test_weights_that_nobody_waits_for_go_first() -> None:
    policy = ManyCheckpoints(FCFS(), keep=KEEPS["lru"](), weights=SECONDS)
    run = Run(controller(policy, loaded=(("a", "b"),)))
    run.submit(request("a1", "a"), request("b1", "b"))
    run.finish()
    run.submit(request("a2", "a", at=6.0), request("c1", "c", at=6.0, slo_s=6.0))  # c is pressing
    assert run.finish()[2:] == [(0, "+c-b"), (0, "c1"), (0, "a2")]


def test_a_load_waits_until_it_is_pressing_and_then_does_not_wait_for_the_queue_to_run_dry() -> None:
    run = Run(controller(ManyCheckpoints(FCFS(), weights=SECONDS, visit=4.0), loaded=(("a",),)))
    run.submit(*[request(f"a{i}", "a", slo_s=100.0) for i in range(12)], request("b1", "b", slo_s=25.0))
    log = run.finish()
    at = log.index((0, "+b"))
    assert log[at + 1] == (0, "b1")
    assert at == 5  # it must come by 25 - 3 - 2 = 20 s and is pressing 4 times 2 s before: when the fifth ends, at 15 s
    assert len(log) == 14


def test_weights_that_came_stay_until_they_have_paid() -> None:
    """Room for one, two checkpoints that are always late: a load of 2 s is followed by at least 8 s of use."""
    policy = ManyCheckpoints(FCFS(), weights=replace(SECONDS, memory_gb=1.0), visit=4.0)
    run = Run(controller(policy))
    run.submit(*[request(f"{name}{i}", name, slo_s=1.0) for i in range(20) for name in "ab"])
    log = run.finish()
    loads = [at for at, (_, what) in enumerate(log) if what.startswith("+")]
    assert all(later - sooner > 3 for sooner, later in pairwise(loads))


def test_requests_of_two_checkpoints_never_share_a_launch_and_of_one_do() -> None:
    run = Run(controller(ManyCheckpoints(MixedFCFS(), weights=SECONDS), loaded=(("a", "b"),)))
    run.submit(request("a1", "a"), request("b1", "b"), request("a2", "a"), request("b2", "b"))
    assert run.finish() == [(0, "a1 a2"), (0, "b1 b2")]


def test_adapters_go_on_one_request_after_another_before_the_batch_runs() -> None:
    policy = ManyCheckpoints(MixedFCFS(), weights=SECONDS)
    recipe = lambda r: (*((("adapt", r.adapters),) if r.adapters else ()), ("denoise", r.steps))  # noqa: E731
    run = Run(Controller(policy, Second(), 1, recipe, loading=True, loaded=(("a",),)))
    run.submit(request("x", adapters=2), request("y"), request("z", adapters=1))
    started = [run.step()[0] for _ in range(3)]
    assert [(launch.stage, launch.steps) for launch in started] == [("adapt", 2), ("adapt", 1), ("denoise", 3)]
    assert run.log == [(0, "x"), (0, "z"), (0, "x y z")]
    assert not run.controller.open


def test_what_waits_for_a_replica_that_fails_goes_elsewhere() -> None:
    held = controller(ManyCheckpoints(FCFS(), LeastLoaded(), weights=SECONDS), 2, (("a",), ("a",)))
    run = Run(held)
    run.submit(*[request(f"r{i}") for i in range(6)])
    first = held.launches(0.0)
    assert spelled(first) == [(0, "r0"), (1, "r1")]
    held.replica_down(0, 1.0, "restart", Outcome(1))
    run.now = 3.0
    held.complete(first[1], Outcome(first[1].steps), 3.0)
    log = run.finish()
    assert {replica for replica, _ in log} == {1}
    assert sorted(what for _, what in log) == ["r0", "r2", "r3", "r4", "r5"]


def test_requests_without_any_replica_wait_for_the_first_that_is_repaired() -> None:
    held = controller(ManyCheckpoints(FCFS(), weights=SECONDS), 2)
    for index in range(2):
        held.replica_down(index, 0.0)
    run = Run(held)
    run.submit(request("x"), request("y"))
    held.cancel("y", 0.0)
    assert not held.launches(0.0)
    held.replica_up(1, 5.0)
    assert run.finish() == [(1, "+a"), (1, "x")]


def test_a_copy_of_the_policy_sees_one_replica_and_its_own_checkpoint_alone() -> None:
    class Watching(SchedulingPolicy):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            jobs = [*replica.resident.values(), *self.cluster.waiting.values()]
            assert set(self.cluster.jobs.values()) == set(jobs)
            assert [r.index for r in self.cluster.replicas] == [0]
            assert replica is self.cluster.replicas[0]
            assert len({job.request.checkpoint for job in jobs}) <= 1
            assert all(job.replica == 0 for job in replica.resident.values())
            return Decision((jobs[0],), 1) if jobs else None

    run = Run(controller(ManyCheckpoints(Watching(), RoundRobinDispatch(), weights=SECONDS), 2, (("a", "b"),) * 2))
    run.submit(*[request(f"{name}{i}", name) for i in range(4) for name in "ab"])
    assert len(run.finish()) == 8 * 5
    assert {job.replica for job in run.controller.jobs} == {0, 1}


def test_a_load_is_no_use() -> None:
    for name in ("lfu", "cost"):
        keep = load_policy("keep", name)
        keep.reset()
        for checkpoint, uses in (("often", 2), ("once", 1), ("never", 0)):
            keep.came(checkpoint, 1.0, 1.0, 0.0)
            for _ in range(uses):
                keep.used(checkpoint, 1.0, 1.0, 0.0)
        assert keep.victim(["often", "once", "never"], 1.0) == "never"
        assert keep.victim(["often", "once"], 1.0) == "once"
