"""A refinement step, decided: who computes what, and whether everybody holds what they need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.caching.contract import CachingPolicy, Flags, Signals
from policies.contract import PolicyError
from policies.load import load_policy
from policies.placement import PLACEMENTS, Contiguous, PlacementPolicy, TileWork
from policies.tiling.grid import TileGrid
from policies.tiling.shifts import ShiftSchedule
from policies.tiling.step import REUSED, Owners, StepPlan, first_owners, owners_after, plan_step
from tests.examples_tried import examples
from tests.policies.test_tiling_grid import grids


class Given(CachingPolicy):
    """Computes what it was told to."""

    def __init__(self, computed: Flags) -> None:
        self.computed = computed

    def decide(self, signals: Signals) -> Flags:
        return self.computed


def signals(tiles: int, held: bool = True) -> Signals:
    change = np.zeros(tiles) if held else np.full(tiles, np.inf)
    of, steps = np.zeros(tiles, dtype=np.int64), np.full(tiles, 20)
    return Signals(("r",), of, np.arange(tiles), 0, 1, steps - 10, steps, change, np.zeros(tiles))


def area(height: int, width: int) -> float:
    return height * width / 1000


def check_holdings(plan: StepPlan, owners: Owners, devices: int) -> None:
    """Carries out the moves: what each device holds then, and that it fetched nothing for nothing."""
    holds = [owners == device for device in range(devices)]
    wanted = [np.zeros_like(holds[0]) for _ in range(devices)]
    for tile, device in zip(plan.tiles, plan.devices, strict=True):
        if device != REUSED:
            rows, columns = tile.window.rows(owners.shape[0]), tile.window.columns(owners.shape[1])
            wanted[device][np.ix_(rows, columns)] = True
    assert len({move[:2] for move in plan.moves}) == len(plan.moves)
    for source, target, pixels in plan.moves:
        fetched = wanted[target] & (owners == source)
        assert source != target
        assert pixels == fetched.sum() > 0
        holds[target] |= fetched
    for device in range(devices):
        assert (holds[device] | ~wanted[device]).all()


@given(
    grid=grids(),
    devices=st.integers(1, 5),
    name=st.sampled_from(sorted(PLACEMENTS)),
    start=st.integers(0, 40),
    data=st.data(),
)
@settings(max_examples=examples(26), deadline=None)
def test_after_the_moves_each_device_holds_what_it_computes(
    grid: TileGrid, devices: int, name: str, start: int, data: st.DataObject
) -> None:
    schedule, placement = ShiftSchedule.of(grid, 0.2), load_policy("placement", name)
    owners = first_owners(grid.canvas)
    for step in range(start, start + 3):
        tiles = grid.tiles(schedule.at(step))
        flags = st.lists(st.booleans(), min_size=len(tiles), max_size=len(tiles))
        computed = np.array(data.draw(flags)) if step > start else np.ones(len(tiles), dtype=np.bool_)
        before = owners.copy()
        plan = plan_step(tiles, owners, devices, placement, area, Given(computed), signals(len(tiles)))
        assert (owners == before).all()
        assert (plan.computed == computed).all()
        assert all(device == REUSED or 0 <= device < devices for device in plan.devices)
        check_holdings(plan, owners, devices)
        work = sum(area(*tile.window[2:]) for tile, fresh in zip(tiles, computed, strict=True) if fresh)
        assert sum(plan.seconds) == pytest.approx(work)
        owners = owners_after(owners, plan)
        check_owners(plan, before, owners)


def check_owners(plan: StepPlan, before: Owners, after: Owners) -> None:
    """The cores of computed tiles belong to their devices, everything else to whom it did."""
    left = np.ones(before.shape, dtype=np.bool_)
    for tile, device in zip(plan.tiles, plan.devices, strict=True):
        core = np.ix_(tile.core.rows(before.shape[0]), tile.core.columns(before.shape[1]))
        if device != REUSED:
            assert (after[core] == device).all()
            left[core] = False
    assert (after[left] == before[left]).all()


def test_one_device_moves_nothing() -> None:
    grid = TileGrid((8, 8), (4, 4), (4, 4))
    plan = plan_step(grid.tiles((1, 1)), first_owners((8, 8)), 1, Contiguous(), area)
    assert plan.moves == ()
    assert plan.seconds == pytest.approx((0.064,))


def test_a_grid_that_stands_still_moves_its_pixels_once() -> None:
    grid = TileGrid((8, 8), (4, 4), (4, 4))
    owners = first_owners((8, 8))
    first = plan_step(grid.tiles(), owners, 2, Contiguous(), area)
    assert [tuple(move) for move in first.moves] == [(0, 1, 32)]
    owners = owners_after(owners, first)
    assert plan_step(grid.tiles(), owners, 2, Contiguous(), area).moves == ()


def test_a_shift_moves_the_rows_that_change_hands() -> None:
    grid = TileGrid((8, 8), (4, 4), (8,))
    owners = owners_after(np.zeros((8, 8), dtype=np.int16), plan_step(grid.tiles(), first_owners((8, 8)), 2,
                                                                       Contiguous(), area))  # fmt: skip
    moves = plan_step(grid.tiles((1, 0)), owners, 2, Contiguous(), area).moves
    assert [tuple(move) for move in moves] == [(1, 0, 8), (0, 1, 8)]


def test_a_tile_with_nothing_held_is_computed_whatever_the_policy_says() -> None:
    tiles = TileGrid((8, 8), (4, 4), (4, 4)).tiles()
    nothing = Given(np.zeros(4, dtype=np.bool_))
    owners = first_owners((8, 8))
    assert plan_step(tiles, owners, 2, Contiguous(), area, nothing, signals(4, held=False)).computed.all()
    reused = plan_step(tiles, owners, 2, Contiguous(), area, nothing, signals(4))
    assert reused.devices == (REUSED,) * 4
    assert reused.moves == ()
    assert reused.seconds == (0.0, 0.0)


@pytest.mark.parametrize("answer", [[0, 1, 0], [0, 1, 2, 0], [0, 1, -1, 0]])
def test_an_impossible_placement_is_refused(answer: list[int]) -> None:
    class Wrong(PlacementPolicy):
        def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
            return answer

    tiles = TileGrid((8, 8), (4, 4), (4, 4)).tiles()
    with pytest.raises(PolicyError, match="expected a device from 0 to 1 for each of 4 tiles"):
        plan_step(tiles, first_owners((8, 8)), 2, Wrong(), area)


def test_policies_are_shown_who_holds_the_window_and_what_it_costs() -> None:
    shown: list[TileWork] = []

    class Looking(PlacementPolicy):
        def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
            shown.extend(tiles)
            return [0] * len(tiles)

    owners = first_owners((8, 8))
    owners[:, 6:] = 2
    tiles = TileGrid((8, 8), (8,), (4, 4)).tiles((0, 1))
    plan_step(tiles, owners, 3, Looking(), area, Given(np.array([True, False])), signals(2))
    assert shown == [TileWork(0, 0.032, 0, (32, 0, 0)), TileWork(1, 0.0, 0, (16, 0, 16))]
