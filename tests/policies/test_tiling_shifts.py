"""Shift schedules: everywhere a border within one cycle, which closes without a jump."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.tiling.grid import MODES, TileGrid
from policies.tiling.shifts import ShiftSchedule
from tests.examples_tried import examples
from tests.policies.test_tiling_grid import grids


def borders(grid: TileGrid, shift: tuple[int, int], axis: int) -> frozenset[int]:
    """Where one tile ends and the next begins along an axis."""
    starts = frozenset(tile.core[axis] for tile in grid.tiles(shift))
    return starts if grid.mode == "wrap" else starts - {0}


PAPER = TileGrid((270, 480), (90, 90, 90), (160, 160, 160), multiple=2)


@given(grid=grids(), share=st.sampled_from([1 / 16, 0.01, 0.25, 0.5, 1.0]))
@example(grid=PAPER, share=1 / 16)
@settings(max_examples=examples(40), deadline=None)
def test_everything_is_a_border_within_one_cycle(grid: TileGrid, share: float) -> None:
    schedule = ShiftSchedule.of(grid, share)
    for axis, lengths in enumerate((grid.rows, grid.columns)):
        cycle = schedule.cycles[axis]
        seen = Counter[int]()
        for step in range(cycle):
            seen.update(borders(grid, schedule.at(step), axis))
        if len(lengths) == 1:
            assert cycle == 1
            continue
        extent = grid.canvas[axis]
        assert set(seen) == set(range(grid.mode == "clamp", extent))
        if grid.mode == "wrap":
            assert len(set(seen.values())) == 1, "no place is a border more often than another"


@given(grid=grids(), share=st.sampled_from([1 / 16, 0.25, 1.0]), start=st.integers(0, 50))
@example(grid=PAPER, share=1 / 16, start=0)
@settings(max_examples=examples(40), deadline=None)
def test_a_cycle_closes_without_a_jump(grid: TileGrid, share: float, start: int) -> None:
    schedule = ShiftSchedule.of(grid, share)
    for axis in (0, 1):
        cycle, period, stride = schedule.cycles[axis], schedule.periods[axis], schedule.strides[axis]
        at, later = schedule.at(start), schedule.at(start + cycle)
        assert borders(grid, at, axis) == borders(grid, later, axis)
        assert schedule.at(start)[axis] == schedule.at(start + period)[axis]
        distance = abs(schedule.at(start + 1)[axis] - at[axis])
        if grid.mode == "wrap":
            assert min(distance, grid.canvas[axis] - distance) == min(stride, grid.canvas[axis] - stride)
        else:
            assert distance <= stride


@given(grid=grids(), share=st.floats(0, 1))
@settings(max_examples=examples(33), deadline=None)
def test_strides_are_near_the_share_that_was_asked_for(grid: TileGrid, share: float) -> None:
    schedule = ShiftSchedule.of(grid, share)
    for lengths, stride, cycle in zip((grid.rows, grid.columns), schedule.strides, schedule.cycles, strict=True):
        if len(lengths) == 1 or share == 0:
            assert (stride, cycle) == (0, 1)
        else:
            assert abs(stride - share * max(lengths)) <= max(4, 0.5 * max(lengths))
            assert stride >= 1


def test_the_papers_grid_moves_by_about_a_sixteenth_and_skips_no_row() -> None:
    schedule = ShiftSchedule.of(PAPER)
    assert schedule.cycles == (90, 160)
    assert abs(schedule.strides[0] - 90 / 16) < 2
    assert abs(schedule.strides[1] - 160 / 16) < 2


@pytest.mark.parametrize("mode", MODES)
def test_a_grid_can_stand_still(mode: str) -> None:
    grid = TileGrid((8, 8), (4, 4), (4, 4), mode)
    schedule = ShiftSchedule.of(grid, 0.0)
    assert {schedule.at(step) for step in range(20)} == {(0, 0)}
    assert schedule.cycles == (1, 1)


def test_a_share_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        ShiftSchedule.of(PAPER, 1.5)


@given(grid=grids(), share=st.sampled_from([0.0, 1 / 16, 0.25, 1.0]), stand=st.integers(1, 5), step=st.integers(0, 200))
@settings(max_examples=examples(40), deadline=None)
def test_a_grid_that_stands_moves_as_one_that_does_not(grid: TileGrid, share: float, stand: int, step: int) -> None:
    moving, standing = ShiftSchedule.of(grid, share), ShiftSchedule.of(grid, share, stand)
    assert standing.at(step) == moving.at(step // stand)
    for axis in (0, 1):
        assert standing.cycles[axis] == stand * moving.cycles[axis]
        assert standing.at(step + standing.periods[axis])[axis] == standing.at(step)[axis]
    moved = step > 0 and standing.at(step) != standing.at(step - 1)
    assert standing.renews(step) == (moved and stand > 1)


def test_a_grid_stands_for_at_least_a_step() -> None:
    with pytest.raises(ValueError, match="stands for 0 steps"):
        ShiftSchedule.of(PAPER, stand=0)
