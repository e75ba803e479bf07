"""Broken policies of the other kinds: routing, weights, caching and placement; see `test_broken_scheduling`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.broken import is_said, policy_file, short
from tilecast.scenario import load_scenario
from tilecast.setup import prepare
from tilecast.simulation import run_simulation

CACHING = {
    "def decide(self, signals): 1 / 0  # here": "decide raised ZeroDivisionError",
    "def decide(self, signals): return 1": "array of one True or False",
    "def decide(self, signals): return np.ones(len(signals.unit))": "array of one True or False",
    "def decide(self, signals): return np.ones(1 + len(signals.unit), dtype=bool)": "array of one True or False",
    "def commit(self, signals, computed): sys.exit()  # here": "commit raised SystemExit",
    "def reset(self): raise Odd  # here": "reset raised Odd",
    "def watches(self, block): return 'no'": "watches with 'no'",
    "def forget(self, request_id): {}['a']  # here": "forget raised KeyError",
    "decide = CachingPolicy.decide": "has no decide",
    "def decide(self, signals): return Evil()": "array of one True or False",
    "def decide(self, signals): return np.ones(len(signals.unit)).view(Array)": "array of one True or False",
    "def decide(self, signals): raise Opaque  # here": "decide raised Opaque",
    "def watches(self, block): return Evil()": "watches with a Evil",
}
PLACEMENT = {
    "def assign(self, tiles, devices): 1 / 0  # here": "assign raised ZeroDivisionError",
    "def assign(self, tiles, devices): return None": "assign with None",
    "def assign(self, tiles, devices): return [devices] * len(tiles)": "a device from 0",
    "def assign(self, tiles, devices): return [0.5] * len(tiles)": "a device from 0",
    "def assign(self, tiles, devices): return [-1] * len(tiles)": "a device from 0",
    "def assign(self, tiles, devices): return [0]": "a device from 0",
    "def assign(self, tiles, devices): tiles.clear()  # here": "assign raised AttributeError",
    "assign = PlacementPolicy.assign": "has no assign",
    "def assign(self, tiles, devices): return Evil()": "a device from 0",
    "def assign(self, tiles, devices): return Items()": "a device from 0",
    "def assign(self, tiles, devices): return [Evil()] * len(tiles)": "assign raised ZeroDivisionError",
    "def assign(self, tiles, devices): return [Whole(0)] * len(tiles)": "assign raised ZeroDivisionError",
    "def assign(self, tiles, devices): return np.array([[0]] * len(tiles)).view(Array)": "a device from 0",
    "def assign(self, tiles, devices): return np.array([Evil()] * len(tiles))": "assign raised ZeroDivisionError",
    "def assign(self, tiles, devices): return [99] * len(tiles)": "a device from 0",
    "def assign(self, tiles, devices): raise OpaqueExit  # here": "assign raised OpaqueExit",
}
ROUTING = {
    "def route(self, job, replicas, now): 1 / 0  # here": "route raised ZeroDivisionError",
    "def route(self, job, replicas, now): return 0": "routes to 0",
    "def route(self, job, replicas, now): return job": "routes to Job",
    "def route(self, job, replicas, now): replicas[0].up = False  # here": "route raised AttributeError",
    "def route(self, job, replicas, now): job.state = 'finished'  # here": "route raised AttributeError",
    "def route(self, job, replicas, now): self.cluster.jobs.clear()  # here": "route raised AttributeError",
    "route = RoutingPolicy.route": "has no route",
    "def route(self, job, replicas, now): return Evil()": "routes to a Evil",
    "def route(self, job, replicas, now): return object.__new__(type(replicas[0]))": "routes to",
    "def route(self, job, now): return None": "not called as route",
    "async def route(self, job, replicas, now): return None": "async or generator route",
    "def route(self, job, replicas, now): object.__setattr__(job, 'state', 'running')": "its state is 'running'",
    "def route(self, job, replicas, now): object.__setattr__(job, 'request', 3)": "its request is 3",
    "def ended(self, job, now): object.__setattr__(job, 'finish_s', 0.0)": "written to request '1': its finish_s is",
    "def reset(self, cluster): raise Odd  # here": "reset raised Odd",
    "def ended(self, job, now): {}['a']  # here": "ended raised KeyError",
    "def planned(self, replica, jobs, now): raise Opaque  # here": "planned raised Opaque",
    "def replica_down(self, replica, now): sys.exit()  # here": "replica_down raised SystemExit",
    "binds = 'no'": "answers binds with 'no'",
    "binds = property(lambda self: 1 / 0)": "binds raised ZeroDivisionError",
}
WEIGHTS = {
    "def victim(self, loaded, now): 1 / 0  # here": "victim raised ZeroDivisionError",
    "def victim(self, loaded, now): return None": "evicts None",
    "def victim(self, loaded, now): return 'M9'": "evicts 'M9'",
    "def used(self, checkpoint, gb, load_s, now): raise SystemExit(0)  # here": "(came|used) raised SystemExit",
    "def left(self, checkpoint): raise Odd  # here": "left raised Odd",
    "victim = WeightsPolicy.victim": "has no victim",
    "def victim(self, loaded, now): return Sly('M9')": "evicts 'M9'",
    "def victim(self, loaded, now): return Evil()": "evicts a Evil",
    "def victim(self, loaded, now): raise Opaque  # here": "victim raised Opaque",
}
OTHERS = [
    *(("caching", "CachingPolicy", *row) for row in CACHING.items()),
    *(("placement", "PlacementPolicy", *row) for row in PLACEMENT.items()),
    *(("routing", "RoutingPolicy", *row) for row in ROUTING.items()),
    *(("weights", "LRU", *row) for row in WEIGHTS.items()),
]
TAKEN = [
    ("placement", "PlacementPolicy", "def assign(self, tiles, devices): return Items([0] * len(tiles))"),
    ("placement", "PlacementPolicy", "def assign(self, tiles, devices): return Iterating([0] * len(tiles))"),
    ("placement", "PlacementPolicy", "def assign(self, tiles, devices): return Exits([0] * len(tiles))"),
    ("placement", "PlacementPolicy", "def assign(self, tiles, devices): return [Twice(0) for _ in tiles]"),
    ("placement", "PlacementPolicy", "def assign(self, tiles, devices): return np.zeros(len(tiles), int).view(Array)"),
    ("caching", "CachingPolicy", "def decide(self, signals): return np.ones(len(signals.unit), bool).view(Array)"),
    ("weights", "LRU", "def victim(self, loaded, now): return Sly(loaded[0])"),
]
"""Answers of classes of the user's own."""


@pytest.mark.parametrize(("kind", "base", "body", "says"), OTHERS, ids=[short(row[2]) for row in OTHERS])
def test_a_broken_policy_is_said_in_one_line(policy_folder: Path, kind: str, base: str, body: str, says: str) -> None:
    is_said(policy_folder, kind, base, body, says)


@pytest.mark.parametrize(("kind", "base", "body"), TAKEN, ids=[short(row[2]) for row in TAKEN])
def test_an_answer_of_a_class_of_ones_own_is_taken_for_what_lies_in_it(
    policy_folder: Path, kind: str, base: str, body: str
) -> None:
    mine = {f"policies.{kind}": {"name": policy_file(policy_folder, base, body)}}
    controller = run_simulation(prepare(load_scenario(policy_folder / f"{kind}.toml", mine)))
    assert {job.state for job in controller.jobs} == {"finished"}
