"""Many checkpoints and adapters on few replicas, simulated: what every scheduler and policy must keep."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import SchedulingPolicy
from policies.controller import IN_FLIGHT, Controller
from policies.events import EventRecord, Ledger, check_parity
from policies.faults import Faults, Happening
from policies.record import request_table, step_table
from policies.routing import ROUTINGS
from policies.scheduling import FCFS, SCHEDULERS, LeastSlack, MixedFCFS
from policies.weights import EVICTIONS, ModelSwapping
from predictors.loading import AdapterCosts, LoadTimes, Weights, with_adapters
from sim.check import check_policy
from sim.check_worlds import CheckedWorld, IrregularCosts
from sim.driver import Simulation
from sim.world import World
from tests.examples_tried import examples
from tests.sim.few_requests import fewer_requests
from traces.request import Request
from traces.stages import ordinary
from traces.streams import stream

WEIGHTS = Weights(
    10.0, 4.0, host_gb=12.0, disk_gb_per_s=40.0, host_gb_per_s=110.0, load_s=0.013, of={"c1": 1.5, "c4": 7}
)
COSTS = AdapterCosts(IrregularCosts(), 0.017)
"""Two or three checkpoints fit; a load takes as long as some steps."""


def requests_of(world: CheckedWorld, count: int, seed: int = 0, checkpoints: int = 6) -> list[Request]:
    """Those of a checked world, for checkpoints of Zipf's popularity; every third has adapters."""
    rng = stream(seed, f"residency/{count}")
    weights = 1 / np.arange(1, checkpoints + 1)
    drawn = rng.choice(checkpoints, count, p=weights / weights.sum())
    adapters = rng.choice(["", "", "style", "detail:0.5+ink+style"], count)
    return [
        replace(request, checkpoint=f"c{c}", adapters=str(a))
        for request, c, a in zip(world.requests(seed, count), drawn, adapters, strict=True)
    ]


def controller_of(
    policy: SchedulingPolicy, replicas: int, hook: Any = None, routing: str = "affinity", weights: Weights = WEIGHTS
) -> Controller:
    recipe = lambda request: with_adapters(request, ordinary(request))  # noqa: E731
    return Controller(policy, COSTS, replicas, recipe, hook, weights, routing=ROUTINGS[routing]())


def run(
    policy: ModelSwapping,
    requests: list[Request],
    replicas: int,
    per_step: bool = False,
    happenings: list[Happening] | None = None,
    in_flight: str = "restart",
    routing: str = "affinity",
    weights: Weights = WEIGHTS,
) -> tuple[Controller, list[str]]:
    record = EventRecord()
    controller = controller_of(policy, replicas, record.add, routing, weights)
    world = World(COSTS, replicas, 0, loads=LoadTimes(weights, [()] * replicas))
    Simulation(controller, world, per_step, None, happenings and iter(happenings), in_flight).run(requests)
    return controller, record.lines


def check(controller: Controller, requests: list[Request], weights: Weights) -> None:
    """What holds whatever is decided; the log is walked anew, without the controller's own checks."""
    last = {job.request.request_id: job for job in controller.jobs}
    assert set(last) == {request.request_id for request in requests}
    assert all(job.ended and job.state != "lost" for job in last.values())
    down = defaultdict(list)
    for replica, down_s, _ in controller.outages:
        down[replica].append(down_s)
    loaded: dict[int, dict[str, None]] = defaultdict(dict)
    done: dict[Any, int] = defaultdict(int)
    free_s: dict[int, float] = defaultdict(float)
    adapted = 0
    for launch, outcome, end_s in sorted(controller.launched, key=lambda entry: entry[0].launch_id):
        here = loaded[launch.replica]
        assert launch.start_s >= free_s[launch.replica]
        if any(free_s[launch.replica] <= at_s <= launch.start_s for at_s in down[launch.replica]):
            here.clear()
        free_s[launch.replica] = end_s
        if launch.load is not None:
            for checkpoint in launch.load.evict:
                del here[checkpoint]
            assert launch.load.checkpoint not in here
            if outcome.steps_done:
                here[launch.load.checkpoint] = None
            assert weights.fit([*here, *([] if outcome.steps_done else [launch.load.checkpoint])])
        else:
            assert {job.request.checkpoint for job in launch.jobs} <= set(here)
            assert len({(job.request.checkpoint, job.request.adapters) for job in launch.jobs}) == 1
        for segment in launch.done(outcome.steps_done):
            for job in launch.jobs:
                done[job, segment.stage] += segment.steps
            adapted += segment.steps if segment.stage == "adapt" else 0
    if not controller.outages and all(job.state == "finished" for job in controller.jobs):
        assert adapted == sum([len(request.adapter_set) for request in requests])
    for job in controller.jobs:
        if job.state == "finished":
            assert not job.adapters_left
            assert all(done[job, stage] == steps for stage, steps in job.recipe)
        assert job.reason or job.state == "finished"


def ends(controller: Controller) -> list[tuple[Any, ...]]:
    return [(j.request.request_id, j.state, j.finish_s, j.replica, j.request.steps) for j in controller.jobs]


SOME = ("clockwork", "lookahead", "same-size-dynamic")
"""Schedulers that admit, that learn, and that sleep."""


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_keeps_its_contract_in_a_queue_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_requests(monkeypatch, 15)
    check_policy(ModelSwapping(SCHEDULERS[name]()))


@pytest.mark.parametrize(
    ("name", "routing"),
    [
        (name, routing)
        for at, name in enumerate(SCHEDULERS)
        for routing in ROUTINGS
        if name in SOME or routing == ("affinity", "shared")[at % 2]
    ],
)
def test_every_scheduler_serves_many_checkpoints(name: str, routing: str) -> None:
    """No request is lost, weights fit and are there, a quantum is a kept promise, and the same run is the same."""
    policy = ModelSwapping(SCHEDULERS[name]())
    for world in (CheckedWorld(1, 6.0, False), CheckedWorld(3, 12.0, True)):
        requests = requests_of(world, 15)
        controller, events = run(policy, requests, world.replicas, routing=routing)
        check(controller, requests, WEIGHTS)
        for launch, _, end_s in controller.launched:
            if launch.load is not None:
                assert end_s - launch.start_s == pytest.approx(launch.load.expected_s, abs=1e-8)
        assert run(policy, requests, world.replicas, routing=routing)[1] == events
        assert ends(run(policy, requests, world.replicas, True, routing=routing)[0]) == ends(controller)
        parity = check_parity(
            [json.loads(line) for line in events],
            requests,
            lambda hook, world=world: controller_of(policy, world.replicas, hook, routing),  # type: ignore[misc]
        )
        assert parity.same, parity.difference


@pytest.mark.parametrize(
    ("name", "in_flight", "routing"),
    [
        (name, in_flight, routing)
        for name in SCHEDULERS
        for in_flight, routing in zip(IN_FLIGHT, ("affinity", "shared", "round-robin"), strict=True)
        if name in SOME or in_flight != "fail"
    ],
)
def test_failures_slow_spells_and_clients_that_leave(name: str, in_flight: str, routing: str) -> None:
    world = CheckedWorld(3, 12.0, True)
    requests = requests_of(world, 18)
    faults = Faults(mtbf_s=4.0, repair_s=0.5, cold_start_s=0.25, starts_cold=True, straggler_every_s=3.0,
                    straggler_for_s=1.0, straggler_slowdown=2.5, patience_s=20.0)  # fmt: skip
    policy = ModelSwapping(SCHEDULERS[name]())
    happenings = [h for h, _ in zip(faults.happenings(3, requests, 0), range(400), strict=False)]
    controller, _ = run(policy, requests, 3, False, happenings, in_flight, routing)
    check(controller, requests, WEIGHTS)
    assert controller.outages
    stepped, _ = run(policy, requests, 3, True, happenings, in_flight, routing)
    assert ends(stepped) == ends(controller)


@settings(max_examples=examples(12), deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(sorted(EVICTIONS)),
    st.floats(7.0, 20.0),
    st.floats(0.0, 30.0),
    st.sampled_from([0.0, 1.0, 4.0]),
)
def test_memory_is_never_exceeded(seed: int, evict: str, memory_gb: float, host_gb: float, visit: float) -> None:
    parameters = {"checkpoints": ["c0", "c4"]} if evict == "pin" else {}
    weights = replace(WEIGHTS, memory_gb=memory_gb, host_gb=host_gb)
    policy = ModelSwapping(MixedFCFS(), EVICTIONS[evict](**parameters), visit=visit)
    requests = requests_of(CheckedWorld(2, 20.0, True), 40, seed)
    controller, _ = run(policy, requests, 2, weights=weights)
    check(controller, requests, weights)


def test_affinity_loads_less_and_meets_more_deadlines_than_routing_that_is_blind_to_weights() -> None:
    weights = Weights(12.0, 4.0, host_gb=20.0, disk_gb_per_s=10.0, host_gb_per_s=40.0)
    requests = requests_of(CheckedWorld(4, 6.0, False), 400, checkpoints=20)
    loads, met = {}, {}
    for name in ("affinity", "least-work", "hash", "round-robin"):
        controller, _ = run(ModelSwapping(LeastSlack()), requests, 4, routing=name, weights=weights)
        loads[name] = sum([launch.load is not None for launch, _, _ in controller.launched])
        met[name] = sum([job.state == "finished" and job.finish_s <= job.request.deadline for job in controller.jobs])
    assert loads["affinity"] < 0.6 * min(loads["round-robin"], loads["least-work"])
    assert met["affinity"] > max([count for name, count in met.items() if name != "affinity"])


def test_weighing_size_and_cost_spends_less_time_loading_than_recency_when_sizes_differ() -> None:
    """One checkpoint of half the memory among many small ones that are cheap to bring back for what they free."""
    weights = Weights(8.0, 1.0, disk_gb_per_s=100.0, load_s=0.2, of={"c5": 5.0})
    requests = requests_of(CheckedWorld(1, 1.2, False), 300, checkpoints=8)
    seconds = {}
    for evict in ("cost", "lru"):
        controller, _ = run(ModelSwapping(FCFS(), EVICTIONS[evict]()), requests, 1, weights=weights)
        seconds[evict] = sum([end_s - launch.start_s for launch, _, end_s in controller.launched if launch.load])
    assert seconds["cost"] < 0.9 * seconds["lru"]


def test_the_log_names_what_was_loaded_and_what_adapters_took() -> None:
    requests = requests_of(CheckedWorld(1, 6.0, False), 40)
    controller, _ = run(ModelSwapping(FCFS()), requests, 1)
    steps = step_table(controller, lambda stage, composition: False)
    loads = steps[steps["stage"] == "load"]
    assert set(loads["checkpoint"]) == {request.checkpoint for request in requests}
    assert not loads["requests"].any()
    adapt = steps[steps["stage"] == "adapt"]
    assert adapt["steps"].sum() == sum([len(request.adapter_set) for request in requests])
    assert (adapt["end_s"] - adapt["start_s"]).to_numpy() == pytest.approx(0.017 * adapt["steps"].to_numpy())
    log = request_table(controller, requests, steps, COSTS.standalone_s)
    assert log["standalone_s"].tolist() == [COSTS.standalone_s(request) for request in requests]


def test_a_ledger_has_the_loads_and_adapters_of_a_run_whose_replicas_fail() -> None:
    requests = requests_of(CheckedWorld(3, 12.0, True), 60)
    happenings = [h for h, _ in zip(Faults(mtbf_s=4.0, repair_s=0.5).happenings(3, requests, 0), range(60))]  # noqa: B905
    controller, lines = run(ModelSwapping(LeastSlack()), requests, 3, happenings=happenings)
    ledger = Ledger(requests, 3, [()] * 3)
    for line in lines:
        ledger.tell(json.loads(line))
    mine, theirs = (step_table(each, lambda stage, composition: False) for each in (ledger, controller))
    assert {"load", "adapt"} <= set(mine["stage"])
    assert controller.outages
    pd.testing.assert_frame_equal(mine, theirs)
    told, done = (
        request_table(each, requests, steps, COSTS.standalone_s)
        for each, steps in ((ledger, mine), (controller, theirs))
    )
    pd.testing.assert_frame_equal(told, done)


def test_a_replica_that_fails_loses_its_weights_and_what_its_host_keeps() -> None:
    requests = [Request(f"r{i}", 4.0 * i, 256, 256, 2, checkpoint="c0") for i in range(3)]
    weights = Weights(10.0, 4.0, host_gb=20.0, disk_gb_per_s=4.0, host_gb_per_s=40.0)
    failure = [Happening(6.0, "down", 0), Happening(7.0, "up", 0)]
    controller, _ = run(ModelSwapping(FCFS()), requests, 1, happenings=failure, weights=weights)
    loads = [(launch, end_s) for launch, _, end_s in controller.launched if launch.load]
    assert [launch.start_s for launch, _ in loads] == [0.0, 8.0]
    assert [end_s - launch.start_s for launch, end_s in loads] == pytest.approx([1.0, 1.0])
    assert [launch.load.expected_s for launch, _ in loads if launch.load] == [1.0, 1.0]


def test_weights_that_lie_there_from_the_beginning_are_not_loaded() -> None:
    requests = requests_of(CheckedWorld(1, 6.0, False), 40, checkpoints=2)
    policy, there = ModelSwapping(FCFS()), [["c0", "c1"]]
    controller = Controller(policy, COSTS, 1, weights=WEIGHTS, loaded=there)
    Simulation(controller, World(COSTS, 1, loads=LoadTimes(WEIGHTS, there))).run(requests)
    assert all(launch.load is None for launch, _, _ in controller.launched)


@pytest.mark.parametrize(
    ("name", "replicas"), [("edf", 1), ("least-slack", 2), ("lookahead", 2), ("rounds", 1), ("clockwork", 3)]
)
def test_a_batch_whose_adapters_are_put_on_may_lose_a_request(name: str, replicas: int) -> None:
    policy = ModelSwapping(SCHEDULERS[name]())
    for seed in range(4):
        requests = requests_of(CheckedWorld(replicas, 6.0 + 2.0 * seed, True), 60)
        happenings = list(Faults(patience_s=0.7).happenings(replicas, requests, seed))
        controller, _ = run(policy, requests, replicas, happenings=happenings)
        stepped, _ = run(policy, requests, replicas, True, happenings)
        assert ends(stepped) == ends(controller)
