"""Tile grids: each pixel once, whatever the canvas, the grid, the mode and the shift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.tiling.grid import MODES, Box, TileGrid, cut, split
from policies.tiling.recipe import TilingRule, sketch_size
from policies.tiling.shifts import ShiftSchedule
from tests.examples_tried import examples
from traces.errors import BadInput
from traces.geometry import GEOMETRIES, ModelGeometry


@st.composite
def axes(draw: st.DrawFn, multiple: int) -> tuple[int, ...]:
    """1 to 9 tiles along an axis: as even as can be, with a short one at the end, or of any lengths."""
    tiles, units = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    kind = draw(st.sampled_from(["even", "remainder", "any"]))
    if kind == "even":
        return cut((tiles * units + draw(st.integers(0, tiles))) * multiple, tiles, multiple)
    if kind == "remainder":
        return (*[units * multiple] * (tiles - 1), draw(st.integers(1, units)) * multiple)
    return tuple(n * multiple for n in draw(st.lists(st.integers(1, 9), min_size=tiles, max_size=tiles)))


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    multiple = draw(st.sampled_from([1, 1, 2, 4]))
    rows, columns = draw(axes(multiple)), draw(axes(multiple))
    return TileGrid(
        (sum(rows), sum(columns)), rows, columns, draw(st.sampled_from(MODES)), draw(st.integers(0, 9)), multiple
    )


def pixels(box: Box, canvas: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.ix_(box.rows(canvas[0]), box.columns(canvas[1]))


def check_step(grid: TileGrid, shift: tuple[int, int]) -> None:
    """What is true of every step."""
    covered, weight = np.zeros(grid.canvas, dtype=int), np.zeros(grid.canvas)
    tiles = grid.tiles(shift)
    assert [tile.index for tile in tiles] == sorted({tile.index for tile in tiles})
    assert tiles[-1].index < grid.most
    for tile in tiles:
        core, window = tile.core, tile.window
        assert min(core.height, core.width) >= 1
        assert window.height % grid.multiple == 0
        assert window.width % grid.multiple == 0
        assert window.height <= grid.canvas[0]
        assert window.width <= grid.canvas[1]
        if grid.mode == "clamp":
            assert min(window.top, window.left) >= 0
            assert window.top + window.height <= grid.canvas[0]
            assert window.left + window.width <= grid.canvas[1]
        seen = np.zeros(grid.canvas, dtype=int)
        np.add.at(seen, pixels(window, grid.canvas), 1)
        assert seen.max() == 1
        assert seen[pixels(core, grid.canvas)].all()
        np.add.at(covered, pixels(core, grid.canvas), 1)
        weights = grid.weights(shift, tile)
        assert weights.shape == (window.height, window.width)
        assert weights.min() >= 0
        np.add.at(weight, pixels(window, grid.canvas), weights)
    assert (covered == 1).all()
    np.testing.assert_allclose(weight, 1.0, atol=1e-12)


@given(grid=grids(), data=st.data())
@settings(max_examples=examples(83), deadline=None)
def test_each_pixel_is_given_once_and_its_weights_sum_to_one(grid: TileGrid, data: st.DataObject) -> None:
    schedule = ShiftSchedule.of(grid, data.draw(st.sampled_from([0.0, 1 / 16, 0.3, 1.0])))
    for step in data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=3)):
        check_step(grid, schedule.at(step))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tiles", [(1, 1), (1, 9), (2, 2), (3, 3), (9, 9)])
@pytest.mark.parametrize("remainder", [0, 1])
def test_every_step_of_a_cycle(mode: str, tiles: tuple[int, int], remainder: int) -> None:
    rows, columns = (cut(3 * n + remainder * (n > 1), n) for n in tiles)
    grid = TileGrid((sum(rows), sum(columns)), rows, columns, mode, overlap=1)
    schedule = ShiftSchedule.of(grid)
    for step in range(min(max(schedule.cycles), 30)):
        check_step(grid, schedule.at(step))


def test_without_overlap_only_the_core_counts() -> None:
    grid = TileGrid((8, 12), (4, 4), (6, 6), "clamp")
    for tile in grid.tiles((1, 2)):
        inside = grid.weights((1, 2), tile)
        assert set(np.unique(inside)) <= {0.0, 1.0}
        assert inside.sum() == tile.core.height * tile.core.width


def test_with_overlap_the_weight_rises_across_a_border() -> None:
    grid = TileGrid((16, 8), (8, 8), (8,), "clamp", overlap=2)
    first, second = (grid.weights((0, 0), tile)[:, 0] for tile in grid.tiles())
    np.testing.assert_allclose(first, [1, 1, 1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125])
    np.testing.assert_allclose(second, first[::-1])


def test_a_wrapped_tile_sees_the_opposite_edge_and_a_clamped_one_does_not() -> None:
    wrap = TileGrid((8, 8), (4, 4), (8,), "wrap").tiles((6, 0))
    assert [tile.window.rows(8).tolist() for tile in wrap] == [[6, 7, 0, 1], [2, 3, 4, 5]]
    clamp = TileGrid((8, 8), (4, 4), (8,), "clamp").tiles((1, 0))
    assert [tile.core.rows(8).tolist() for tile in clamp] == [[0], [1, 2, 3, 4], [5, 6, 7]]
    assert [tile.window.rows(8).tolist() for tile in clamp] == [[0, 1], [1, 2, 3, 4], [5, 6, 7]]
    assert [tile.index for tile in clamp] == [0, 1, 2]
    assert [tile.index for tile in TileGrid((8, 8), (4, 4), (8,), "clamp").tiles((4, 0))] == [0, 1]


@given(length=st.integers(1, 300), tile=st.integers(1, 40), multiple=st.integers(1, 4))
def test_split_takes_the_fewest_tiles_as_even_as_can_be(length: int, tile: int, multiple: int) -> None:
    length *= multiple
    if tile < multiple:
        with pytest.raises(ValueError, match="cannot cut"):
            split(length, tile, multiple)
        return
    lengths = split(length, tile, multiple)
    assert sum(lengths) == length
    assert max(lengths) <= tile
    assert max(lengths) - min(lengths) in (0, multiple)
    assert all(n % multiple == 0 for n in lengths)
    assert len(lengths) == 1 or (len(lengths) - 1) * (tile // multiple * multiple) < length


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mode": "mirror"}, "mode is 'mirror', expected one of wrap, clamp"),
        ({"overlap": -1}, "overlap is -1"),
        ({"multiple": 0}, "multiple 0"),
        ({"rows": (4, 3)}, r"rows are \(4, 3\), expected lengths of at least 1 that sum to 8"),
        ({"columns": ()}, "columns are"),
        ({"columns": (8, 0)}, "columns are"),
        ({"multiple": 3}, "expected multiples of 3"),
    ],
)
def test_an_impossible_grid_is_refused(change: dict[str, object], complaint: str) -> None:
    fields: dict[str, object] = {"canvas": (8, 8), "rows": (4, 4), "columns": (4, 4)}
    with pytest.raises(ValueError, match=complaint):
        TileGrid(**(fields | change))  # type: ignore[arg-type]


@given(
    model=st.sampled_from(sorted(GEOMETRIES)),
    sides=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    mode=st.sampled_from(MODES),
    overlap=st.integers(0, 4),
    step=st.integers(0, 99),
)
@settings(max_examples=examples(33), deadline=None)
def test_a_rule_cuts_requests_of_any_size(
    model: str, sides: tuple[int, int], mode: str, overlap: int, step: int
) -> None:
    geometry = GEOMETRIES[model]
    factor, multiple = geometry.latent_factor, geometry.size_multiple
    native = min(geometry.native_size) // multiple
    height, width = (max(1, side * native // 100) * multiple for side in sides)  # up to 7 times the native height
    rule = TilingRule(geometry, mode=mode, overlap=overlap * factor)
    shape = rule.shape((height, width, 5), 20)
    assert shape.grid.canvas == (height // factor, width // factor)
    short, long = sorted(geometry.native_size)
    tall, wide = (long, short) if height > width else (short, long)
    assert max(shape.grid.rows) * factor <= tall
    assert max(shape.grid.columns) * factor <= wide
    check_step(shape.grid, shape.shifts.at(step))


@given(sides=st.tuples(st.integers(1, 300), st.integers(1, 300)), model=st.sampled_from(sorted(GEOMETRIES)))
def test_a_sketch_has_at_most_the_native_area_and_about_the_shape(sides: tuple[int, int], model: str) -> None:
    geometry = GEOMETRIES[model]
    height, width = (side * geometry.size_multiple for side in sides)
    sketch = sketch_size(geometry, (height, width, 9))
    native = geometry.native_size[0] * geometry.native_size[1]
    assert sketch[2] == 9
    assert all(side % geometry.size_multiple == 0 and side > 0 for side in sketch[:2])
    assert sketch[0] * sketch[1] <= native or min(sketch[:2]) == geometry.size_multiple
    if max(height / width, width / height) < 4 and native >= (32 * geometry.size_multiple) ** 2:
        assert abs(np.log(sketch[0] / sketch[1] * width / height)) < 0.2 or height * width < native


def test_which_requests_are_tiled_and_what_becomes_of_them() -> None:
    geometry = ModelGeometry("video", 8, 16, 16, (720, 1280), frame_factor=4, patch=2)
    rule = TilingRule(geometry, grids={(2160, 3840): (3, 4)})
    assert not rule.applies((720, 1280, 41))
    assert rule.applies((720, 1296, 41))
    shape = rule.shape((2160, 3840, 41), 50)
    assert (shape.grid.rows, shape.grid.columns) == ((90, 90, 90), (120, 120, 120, 120))
    assert (shape.sketch, shape.sketch_steps, shape.refine_steps, shape.first_step) == ((720, 1280, 41), 50, 45, 5)
    upright = rule.shape((2560, 1440, 41), 50)
    assert (upright.grid.rows, upright.grid.columns) == ((160, 160), (90, 90))


@pytest.mark.parametrize(
    "change", [{"above": 0.0}, {"refine": 0.0}, {"refine": 1.1}, {"mode": "x"}, {"overlap": 3}, {"stride": 2.0},
               {"tile": (8, 64)}],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=f"tiling.{next(iter(change))} is"):
        TilingRule(GEOMETRIES["sd3"], **change)  # type: ignore[arg-type]
