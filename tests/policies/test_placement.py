"""Placement policies: valid, the same on every rank, and as good as brute force where that can be tried."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import PolicyError
from policies.load import load_policy
from policies.placement import (
    PLACEMENTS,
    CacheGuided,
    Contiguous,
    LongestFirst,
    PlacementPolicy,
    Planned,
    RoundRobinTiles,
    TileWork,
)
from policies.placement.balance import loads, longest_first, shortest
from predictors.link import Link
from sim.check import check_policy
from tests.examples_tried import examples
from traces.errors import BadInput


@st.composite
def steps(draw: st.DrawFn, most_tiles: int = 6, most_devices: int = 3) -> tuple[list[TileWork], int]:
    """A few tiles, some of them reused, of a few costs, and who holds their pixels."""
    devices = draw(st.integers(1, most_devices))
    costs = st.sampled_from([0.0, 1.0, 1.0, 1.5, 2.0, 2.7])
    tiles = []
    for i in range(draw(st.integers(1, most_tiles))):
        held = tuple(draw(st.lists(st.integers(0, 100), min_size=devices, max_size=devices)))
        tiles.append(TileWork(i, draw(costs), held.index(max(held)), held))
    return tiles, devices


def makespan(tiles: Sequence[TileWork], assignment: Sequence[int], devices: int) -> float:
    return max(loads([tile.seconds for tile in tiles], list(assignment), devices))


def moved(tiles: Sequence[TileWork], assignment: Sequence[int]) -> int:
    return sum(tile.missing(d) for tile, d in zip(tiles, assignment, strict=True) if tile.seconds)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_every_policy_keeps_the_contract(name: str) -> None:
    check_policy(load_policy("placement", name))


def test_a_policy_that_remembers_is_found_out() -> None:
    class Counting(PlacementPolicy):
        asked = 0

        def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
            self.asked += 1
            return [0] * len(tiles)

    with pytest.raises(PolicyError, match="remembers what it was asked"):
        check_policy(Counting())


@given(step=steps())
@settings(max_examples=examples(50), deadline=None)
def test_the_shortest_makespan_is_that_of_brute_force(step: tuple[list[TileWork], int]) -> None:
    tiles, devices = step
    seconds = [tile.seconds for tile in tiles]
    best = min(makespan(tiles, a, devices) for a in itertools.product(range(devices), repeat=len(tiles)))
    found = makespan(tiles, shortest(seconds, devices), devices)
    assert found == pytest.approx(best)
    assert makespan(tiles, longest_first(seconds, devices), devices) <= best * 4 / 3 + 1e-9


@given(step=steps())
@settings(max_examples=examples(50), deadline=None)
def test_cache_guided_moves_the_least_of_the_shortest(step: tuple[list[TileWork], int]) -> None:
    tiles, devices = step
    answer = CacheGuided(tolerance=0.0).assign(tiles, devices)
    everything = list(itertools.product(range(devices), repeat=len(tiles)))
    best = min(makespan(tiles, a, devices) for a in everything)
    fewest = min(moved(tiles, a) for a in everything if makespan(tiles, a, devices) <= best + 1e-9)
    assert makespan(tiles, answer, devices) == pytest.approx(best)
    assert moved(tiles, answer) == fewest
    assert all(device == tile.owner for tile, device in zip(tiles, answer, strict=True) if not tile.seconds)


def test_cache_guided_finds_what_exchanges_alone_would_miss() -> None:
    rng = np.random.default_rng(0)
    everything = list(itertools.product(range(3), repeat=6))
    for _ in range(30):
        holdings = [tuple(rng.multinomial(1000, rng.dirichlet(np.full(3, 0.3))).tolist()) for _ in range(6)]
        costs = rng.choice([1.0, 1.3, 2.0], 6).tolist()
        tiles = [
            TileWork(i, c, held.index(max(held)), held) for i, (c, held) in enumerate(zip(costs, holdings, strict=True))
        ]
        best = min(makespan(tiles, a, 3) for a in everything)
        fewest = min(moved(tiles, a) for a in everything if makespan(tiles, a, 3) <= best + 1e-9)
        assert moved(tiles, CacheGuided(tolerance=0.0).assign(tiles, 3)) == fewest


@given(step=steps(25, 8))
@settings(max_examples=examples(12), deadline=None)
def test_many_tiles_are_balanced_better_than_by_the_rules_it_starts_from(step: tuple[list[TileWork], int]) -> None:
    tiles, devices = step
    guided = CacheGuided(tolerance=0.0).assign(tiles, devices)
    assert makespan(tiles, guided, devices) <= makespan(tiles, LongestFirst().assign(tiles, devices), devices) + 1e-9
    known_s = makespan(tiles, shortest([tile.seconds for tile in tiles], devices), devices)  # of so many, not the least
    assert makespan(tiles, guided, devices) <= known_s + 1e-9
    looser = CacheGuided(tolerance=0.3).assign(tiles, devices)
    assert makespan(tiles, looser, devices) <= 1.3 * known_s + 1e-9


def test_tiles_that_cost_the_same_stay_with_their_owners_where_balance_allows() -> None:
    tiles = [TileWork(i, 1.0, i // 3, tuple(90 if d == i // 3 else 5 for d in range(3))) for i in range(9)]
    assert CacheGuided().assign(tiles, 3) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    half = [tile if tile.tile in (0, 1, 2, 8) else tile._replace(seconds=0.0) for tile in tiles]
    answer = CacheGuided().assign(half, 3)
    assert sorted(answer[i] for i in (0, 1, 2, 8)) in ([0, 0, 1, 2], [0, 1, 1, 2])
    assert answer[3:8] == [1, 1, 1, 2, 2]
    assert answer[8] == 2


@given(step=steps())
@settings(max_examples=examples(33), deadline=None)
def test_planned_is_predicted_no_longer_than_the_balanced_and_the_resting_assignment(
    step: tuple[list[TileWork], int],
) -> None:
    tiles, devices = step
    busy = [tile for tile in tiles if tile.seconds]
    policy = Planned(latency_s=0.01, bytes_per_s=100.0, pixel_bytes=1, worth=0.0)
    predicted = [
        predicted_seconds(policy, tiles, answer, devices)
        for answer in (policy.assign(tiles, devices), CacheGuided(0.0).assign(tiles, devices), [t.owner for t in tiles])
    ]
    assert predicted[0] <= min(predicted[1:]) + 1e-9
    free = Planned(0.0, 1e30).assign(tiles, devices)
    assert not busy or makespan(tiles, free, devices) == pytest.approx(
        makespan(tiles, CacheGuided(0.0).assign(tiles, devices), devices)
    )


def predicted_seconds(policy: Planned, tiles: Sequence[TileWork], answer: Sequence[int], devices: int) -> float:
    """The longest exchange and the longest work, counted the slow way."""
    exchange = []
    for device in range(devices):
        pairs = [
            (tile.held[source], source, target)
            for tile, target in zip(tiles, answer, strict=True)
            for source in range(devices)
            if tile.seconds and tile.held[source] and source != target and device in (source, target)
        ]
        byte_count = policy.pixel_bytes * sum(pixels for pixels, *_ in pairs)
        exchange.append(policy.link.seconds(byte_count, len({tuple(ends) for _, *ends in pairs})))
    return max(exchange) + makespan(tiles, answer, devices)


def test_planned_stays_where_moving_takes_longer_than_waiting() -> None:
    tiles = [TileWork(i, 1.0, 0, (1000, 0)) for i in range(2)]
    assert Planned(0.0, bytes_per_s=10_000.0, pixel_bytes=1).assign(tiles, 2) in ([0, 1], [1, 0])
    assert Planned(0.0, bytes_per_s=100.0, pixel_bytes=1).assign(tiles, 2) == [0, 0]
    assert sorted(CacheGuided().assign(tiles, 2)) == [0, 1]


def test_planned_keeps_a_longer_makespan_that_saves_more_traffic() -> None:
    tiles = [TileWork(i, c, d, (100, 0) if d == 0 else (0, 100)) for i, (c, d) in enumerate(
        [(3.0, 0), (2.0, 0), (3.0, 1), (2.0, 1), (2.0, 1)])]  # fmt: skip
    assert makespan(tiles, CacheGuided().assign(tiles, 2), 2) == 6
    assert Planned(0.0, bytes_per_s=133.0, pixel_bytes=1).assign(tiles, 2) == [0, 0, 1, 1, 1]


def test_planned_counts_the_messages_that_come_and_those_that_go() -> None:
    tiles = [TileWork(i, 1.0, 0, (50, 50, 0)) for i in range(3)]
    answer = Planned(latency_s=1.2, bytes_per_s=1e12, pixel_bytes=1).assign(tiles, 3)
    assert answer in ([0, 0, 0], [1, 1, 1])  # 3 + 1.2 s; 2 + 2.4 s on two devices, 1 + 3.6 s on three


@given(step=steps())
@settings(max_examples=examples(16), deadline=None)
def test_planned_moves_the_fewest_pixels_where_the_link_hardly_matters(step: tuple[list[TileWork], int]) -> None:
    tiles, devices = step
    assert Planned(latency_s=1e-6, bytes_per_s=1e9).assign(tiles, devices) == CacheGuided(0.0).assign(tiles, devices)


def test_the_blind_rules() -> None:
    tiles = [TileWork(i, seconds, 0) for i, seconds in enumerate([0.0, 3.0, 2.0, 0.0, 2.0])]
    assert Contiguous().assign(tiles, 2) == [0, 0, 0, 1, 1]
    assert RoundRobinTiles().assign(tiles, 2) == [0, 1, 0, 1, 0]
    assert LongestFirst().assign(tiles, 2) == [0, 0, 1, 0, 1]


def test_parameters_that_make_no_sense() -> None:
    with pytest.raises(BadInput, match="tolerance is -1"):
        CacheGuided(-1)
    with pytest.raises(BadInput, match="bandwidth is 0"):
        Planned(bytes_per_s=0)
    with pytest.raises(BadInput, match="worth is 1"):
        Planned(worth=1.0)
    with pytest.raises(BadInput, match="pixel_bytes is 0"):
        Planned(pixel_bytes=0)


def test_a_link_costs_latency_by_messages_and_bandwidth_by_bytes() -> None:
    link = Link(1e-3, 1e6)
    assert link.seconds(0, 0) == 0
    assert link.seconds(5e5, 2) == pytest.approx(0.502)
    for wrong in ((-1e-3, 1e6), (float("nan"), 1e6), (0.0, 0.0), (0.0, float("nan")), (float("inf"), 1.0)):
        with pytest.raises(BadInput):
            Link(*wrong)
