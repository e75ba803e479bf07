"""Which weights make room, whose turn it is, and where requests go for their weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from policies.contract import Decision, Launch, Load, Outcome, PolicyError, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.load import load_policy
from policies.routing import Affinity, LeastWork, RoundRobin, RoutingPolicy, Shared
from policies.scheduling import FCFS, MixedFCFS
from policies.weights import EVICTIONS, ModelSwapping
from predictors.costs import Batch
from predictors.loading import Weights, with_adapters
from sim.check_worlds import IrregularCosts
from traces.errors import BadInput
from traces.request import Request

SECONDS = Weights(2.0, 1.0, disk_gb_per_s=0.5)
"""Two checkpoints fit, a load takes two seconds."""


class Second(IrregularCosts):
    """Every denoising step takes a second."""

    def step_s(self, stage: str, batch: Batch) -> float:
        return float(stage == "denoise")


def request(name: str, checkpoint: str = "a", at: float = 0.0, steps: int = 3, **more: object) -> Request:
    return Request(name, at, 64, 64, steps, checkpoint=checkpoint, **more)  # type: ignore[arg-type]


def controller(
    policy: ModelSwapping,
    replicas: int = 1,
    loaded: tuple[tuple[str, ...], ...] = (),
    weights: Weights = SECONDS,
    routing: RoutingPolicy | None = None,
) -> Controller:
    return Controller(policy, Second(), replicas, weights=weights, loaded=loaded, routing=routing)


def queues(held: Controller) -> list[list[str]]:
    return [list(replica.queue) for replica in held._replicas]


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

    def start(self) -> list[Launch]:
        started = self.controller.launches(self.now)
        self.log += spelled(started)
        self.controller.recalls(self.now)
        return started

    def step(self) -> list[Launch]:
        """Start what is to start, and end the whole of it."""
        started = self.start()
        self.now += max([sum([s.steps * s.predicted_step_s for s in launch.segments]) for launch in started], default=0)
        for launch in started:
            self.controller.complete(launch, Outcome(launch.steps), self.now)
        return started

    def finish(self) -> list[tuple[int, str]]:
        while self.controller.open:
            assert self.step()
        return self.log


def test_affinity_goes_where_the_weights_are_until_the_queue_costs_more_than_another_copy() -> None:
    """A load takes 2 s and is weighed twice; a request of 4 steps takes 4 s, and of one 2 steps are still to do."""
    held = controller(ModelSwapping(FCFS()), 2, (("a",), ()), routing=Affinity(load_weight=2.0))
    run = Run(held)
    run.submit(request("a0", "a", steps=4))
    run.start()
    run.now = 0.1
    run.submit(request("a1", "a"))  # 3.9 s of backlog there, 2 * 2 s of loading elsewhere
    assert queues(held) == [["a1"], []]
    run.submit(request("a2", "a"))
    assert queues(held) == [["a1"], ["a2"]]
    run.submit(request("a3", "a"))  # the load comes for a2: no other is weighed
    assert queues(held) == [["a1"], ["a2", "a3"]]


def test_among_equals_affinity_takes_the_replica_with_room() -> None:
    for routing, replica in ((Affinity(), 1), (LeastWork(), 0)):
        held = controller(ModelSwapping(FCFS()), 2, (("a", "b"), ()), routing=routing)
        Run(held).submit(request("c1", "c"))
        assert [len(queue) for queue in queues(held)][replica] == 1


def test_the_backlog_of_a_replica_holds_its_load() -> None:
    held = controller(ModelSwapping(FCFS()), 2, (("b",), ("a",)), routing=LeastWork())
    run = Run(held)
    run.submit(request("a1", "a", steps=4), request("b1", "b", steps=6))
    run.start()  # on the first replica a load of 2 s begins, before 4 s; the other loads, too, before 6 s
    run.now = 1.0
    run.submit(request("x", "a", steps=1), request("y", "a", steps=1))
    assert queues(held) == [["a1", "x", "y"], ["b1"]]


def test_lru_gives_up_what_started_longest_ago_and_lfu_what_started_least() -> None:
    lru, lfu = EVICTIONS["lru"](), EVICTIONS["lfu"](half_life_s=10.0)
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
    cost = EVICTIONS["cost"]()
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
    pin = load_policy("weights", "pin", {"checkpoints": ["a"]})
    pin.reset()
    for at, name in enumerate("abc"):
        pin.used(name, 1.0, 1.0, float(at))
    assert pin.victim("abc", 3.0) == "b"
    assert pin.victim("a", 3.0) == "a"
    with pytest.raises(BadInput, match="checkpoints is 'a', expected a valid list"):
        load_policy("weights", "pin", {"checkpoints": "a"})


def test_a_policy_of_the_users_own_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from tilecast import WeightsPolicy\n"
        "class Last(WeightsPolicy):\n"
        "    def victim(self, loaded, now):\n"
        "        return loaded[-1]\n"
    )
    run = Run(controller(ModelSwapping(FCFS(), load_policy("weights", "mine.py:Last", {}, tmp_path)), 1, (("a", "b"),)))
    run.submit(request("c1", "c"))
    assert run.finish() == [(0, "+c-b"), (0, "c1")]
    with pytest.raises(BadInput, match="did you mean 'cost'"):
        load_policy("weights", "costs")


def test_weights_are_loaded_once_for_all_who_wait_and_the_least_used_makes_room() -> None:
    run = Run(controller(ModelSwapping(FCFS(), EVICTIONS["lru"]())))
    run.submit(request("a1", "a"), request("b1", "b"), request("a2", "a"))
    run.finish()
    run.submit(request("c1", "c"))
    assert run.finish() == [(0, "+a"), (0, "a1"), (0, "a2"), (0, "+b"), (0, "b1"), (0, "+c-a"), (0, "c1")]


def test_weights_that_nobody_waits_for_go_first() -> None:
    policy = ModelSwapping(FCFS(), EVICTIONS["lru"]())
    run = Run(controller(policy, loaded=(("a", "b"),)))
    run.submit(request("a1", "a"), request("b1", "b"))
    run.finish()
    run.submit(request("a2", "a", at=6.0), request("c1", "c", at=6.0, slo_s=6.0))  # c is pressing
    assert run.finish()[2:] == [(0, "+c-b"), (0, "c1"), (0, "a2")]


def test_a_load_waits_until_it_is_pressing_and_then_does_not_wait_for_the_queue_to_run_dry() -> None:
    run = Run(controller(ModelSwapping(FCFS(), visit=4.0), loaded=(("a",),)))
    run.submit(*[request(f"a{i}", "a", slo_s=100.0) for i in range(12)], request("b1", "b", slo_s=25.0))
    log = run.finish()
    at = log.index((0, "+b"))
    assert log[at + 1] == (0, "b1")
    assert at == 5  # it must come by 25 - 3 - 2 = 20 s and is pressing 4 times 2 s before: when the fifth ends, at 15 s
    assert len(log) == 14


def test_weights_that_came_stay_until_they_have_paid() -> None:
    """Room for one, two checkpoints that are always late: a load of 2 s is followed by at least 8 s of use."""
    run = Run(controller(ModelSwapping(FCFS(), visit=4.0), weights=replace(SECONDS, memory_gb=1.0)))
    run.submit(*[request(f"{name}{i}", name, slo_s=1.0) for i in range(20) for name in "ab"])
    log = run.finish()
    loads = [at for at, (_, what) in enumerate(log) if what.startswith("+")]
    assert all(later - sooner > 3 for sooner, later in pairwise(loads))


def test_requests_of_two_checkpoints_never_share_a_launch_and_of_one_do() -> None:
    run = Run(controller(ModelSwapping(MixedFCFS()), loaded=(("a", "b"),)))
    run.submit(request("a1", "a"), request("b1", "b"), request("a2", "a"), request("b2", "b"))
    assert run.finish() == [(0, "a1 a2"), (0, "b1 b2")]


def test_requests_with_other_adapters_never_share_a_launch_though_all_weights_are_there() -> None:
    asked = [("a1", ""), ("b1", "style:0.5"), ("a2", ""), ("b2", "style:0.50"), ("c1", "style"), ("d1", "x+style:0.5")]
    run = Run(Controller(ModelSwapping(MixedFCFS()), Second(), 1))
    run.submit(*[request(name, name, adapters=adapters) for name, adapters in asked])
    assert [what for _, what in run.finish()] == ["a1 a2", "b1 b2", "c1", "d1"]


def test_a_policy_that_mixes_adapters_is_told_so() -> None:
    run = Run(Controller(MixedFCFS(), Second(), 1))
    run.submit(request("x", adapters="style"), request("y"))
    with pytest.raises(PolicyError, match="mixes adapters in one launch: 'x' wants style, 'y' none"):
        run.start()


def adapted(*requests: Request) -> Run:
    """On one replica, with each adapter a step of the stage ``adapt``."""
    recipe = lambda r: with_adapters(r, (("denoise", r.steps),))  # noqa: E731
    run = Run(Controller(ModelSwapping(MixedFCFS()), Second(), 1, recipe, weights=SECONDS, loaded=(("a",),)))
    run.submit(*requests)
    return run


def test_adapters_go_on_before_the_batch_runs_in_the_same_launch() -> None:
    run = adapted(request("x", adapters="a+b"), request("y", adapters="b:1.0 + a"))
    (launch,) = run.step()
    assert [(segment.stage, segment.steps) for segment in launch.segments] == [("adapt", 4), ("denoise", 3)]
    assert launch.steps == 7
    assert run.log == [(0, "x y")]
    assert not run.controller.open


def test_adapters_that_are_on_stay_on_when_a_launch_is_cut_short() -> None:
    run = adapted(request("x", adapters="a+b"), request("z", adapters="a+b"))
    (launch,) = run.start()
    run.controller.complete(launch, Outcome(3), 3.0)
    assert [(job.adapters_left, job.steps_left) for job in run.controller.jobs] == [(0, 3), (1, 3)]
    (rest,) = run.start()
    assert [(segment.stage, segment.steps) for segment in rest.segments] == [("adapt", 1), ("denoise", 3)]
    run.controller.complete(rest, Outcome(2), 4.0)
    assert [(job.adapters_left, job.steps_left) for job in run.controller.jobs] == [(0, 2), (0, 2)]


def test_what_waits_for_a_replica_that_fails_goes_elsewhere() -> None:
    held = controller(ModelSwapping(FCFS()), 2, (("a",), ("a",)), routing=LeastWork())
    run = Run(held)
    run.submit(*[request(f"r{i}") for i in range(6)])
    first = held.launches(0.0)
    assert spelled(first) == [(0, "r0"), (1, "r1")]
    held.replica_down(0, 1.0, "restart", {first[0].launch_id: Outcome(1)})
    run.now = 3.0
    held.complete(first[1], Outcome(first[1].steps), 3.0)
    log = run.finish()
    assert {replica for replica, _ in log} == {1}
    assert sorted(what for _, what in log) == ["r0", "r2", "r3", "r4", "r5"]


def test_requests_without_any_replica_wait_for_the_first_that_is_repaired() -> None:
    held = controller(ModelSwapping(FCFS()), 2)
    for index in range(2):
        held.replica_down(index, 0.0)
    run = Run(held)
    run.submit(request("x"), request("y"))
    held.cancel("y", 0.0)
    assert not held.launches(0.0)
    held.replica_up(1, 5.0)
    assert run.finish() == [(1, "+a"), (1, "x")]


def test_a_copy_of_the_policy_sees_its_own_checkpoint_alone() -> None:
    class Watching(SchedulingPolicy):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            jobs = [*replica.resident.values(), *self.cluster.waiting.values()]
            assert set(jobs) <= set(self.cluster.jobs.values())
            assert len(self.cluster.jobs) == len(list(self.cluster.jobs))
            assert replica in self.cluster.replicas
            assert list(replica.queue) == list(self.cluster.waiting)
            assert len({job.request.checkpoint for job in self.cluster.jobs.values()}) == 1
            assert all(self.cluster.jobs[job.request.request_id] is job for job in jobs)
            assert all(job.request.request_id not in replica.queue for job in replica.resident.values())
            assert replica.up
            return Decision((jobs[0],), 1) if jobs else None

    for routing in (RoundRobin(), Shared()):
        run = Run(controller(ModelSwapping(Watching()), 2, (("a", "b"),) * 2, routing=routing))
        run.submit(*[request(f"{name}{i}", name) for i in range(4) for name in "ab"])
        assert len(run.finish()) == 8 * 5
        assert {job.replica for job in run.controller.jobs} == {0, 1}


def test_under_late_binding_a_load_binds_nobody_and_another_copy_has_to_pay() -> None:
    """One replica has a; what waits for it is loaded on the other as soon as it is more than 4 loads of 2 s."""
    for waiting, loads in ((2, 0), (3, 1)):
        run = Run(controller(ModelSwapping(FCFS(), visit=4.0), 2, (("a",), ("b",)), routing=Shared()))
        run.submit(request("a0", "a"))
        run.start()
        run.submit(*[request(f"a{i + 1}", "a") for i in range(waiting)])
        assert [what for _, what in spelled(run.start())] == ["+a"] * loads


def test_a_load_must_fit() -> None:
    class Stuffs(SchedulingPolicy):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            return Decision(load=Load("c"))

    held = Controller(Stuffs(), Second(), 1, weights=SECONDS, loaded=(("a", "b"),))
    held.submit(request("c1", "c"), 0.0)
    with pytest.raises(PolicyError, match="loads 'c' onto replica 0, which does not fit beside a, b in 2 GB"):
        held.launches(0.0)


def test_a_load_is_no_use() -> None:
    for name in ("lfu", "cost"):
        evict = load_policy("weights", name)
        evict.reset()
        for checkpoint, uses in (("often", 2), ("once", 1), ("never", 0)):
            evict.came(checkpoint, 1.0, 1.0, 0.0)
            for _ in range(uses):
                evict.used(checkpoint, 1.0, 1.0, 0.0)
        assert evict.victim(["often", "once", "never"], 1.0) == "never"
        assert evict.victim(["often", "once"], 1.0) == "once"
