"""The planner of grids: what it may take, and that it takes the fastest of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.placement import Contiguous, LongestFirst
from policies.tiling.grid import MODES
from policies.tiling.planner import GridPlanner
from policies.tiling.recipe import TilingRule
from policies.tiling.timing import TileDevices
from predictors.link import Link
from tests.examples_tried import examples
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.request import Size

SMALL = ModelGeometry("small", 8, 4, 16, (144, 256), frame_factor=4, patch=2)
"""Native latents of 18 x 32: like 720p in a fifth of each side."""
FOUR_K: Size = (432, 768, 5)


def seconds(size: Size) -> float:
    """Half of a native tile's second grows with the area, half with its square."""
    area = size[0] * size[1] / (144 * 256)
    return 0.5 * area + 0.5 * area**2


def planner(devices: int, mode: str = "wrap", **options: float) -> GridPlanner:
    return GridPlanner(TilingRule(SMALL, mode=mode), TileDevices(devices, LongestFirst()), seconds, **options)


@given(sides=st.tuples(st.integers(1, 80), st.integers(1, 80)), least=st.sampled_from([0.3, 0.5, 0.75, 1.0]))
@settings(max_examples=examples(33), deadline=None)
def test_candidates_fit_the_native_size_and_keep_its_share(sides: tuple[int, int], least: float) -> None:
    size = (sides[0] * 16, sides[1] * 16, 5)
    native = (144, 256) if size[0] <= size[1] else (256, 144)
    found = list(planner(1, least_share=least).candidates(size))
    assert len(set(found)) == len(found)
    assert math.prod(found[0]) == min(math.prod(tiles) for tiles in found)
    for down, across in found:
        assert -(-sides[0] // down) * 16 <= native[0]
        assert -(-sides[1] // across) * 16 <= native[1]
    for down, across in found[1:]:
        assert size[0] * size[1] / (down * across) >= least * native[0] * native[1]


def test_a_step_on_the_papers_grid_is_counted_by_hand() -> None:
    for devices, rounds in ((1, 9), (2, 5), (4, 3), (8, 2)):
        plan = planner(devices).of(FOUR_K, (3, 3))
        assert plan.step_s == pytest.approx(rounds, rel=0.01)
        assert plan.busy == pytest.approx(9 / rounds / devices, rel=0.01)
        assert max(plan.assignment.count(device) for device in range(devices)) == rounds


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("devices", [1, 4])
def test_it_takes_the_fastest_or_fewer_tiles_that_are_as_fast(mode: str, devices: int) -> None:
    tried = planner(devices, mode, worth=0.05, least_share=0.6)
    plan = tried.plan(FOUR_K)
    others = [tried.of(FOUR_K, tiles) for tiles in tried.candidates(FOUR_K)]
    fastest = min(other.step_s for other in others)
    assert plan.step_s * 0.95 <= fastest
    assert not [o for o in others if math.prod(o.tiles) < math.prod(plan.tiles) and o.step_s * 0.95 <= fastest]


def test_smaller_tiles_beat_nine_on_four_devices() -> None:
    tried = planner(4)
    plan = tried.plan(FOUR_K)
    assert math.prod(plan.tiles) % 4 == 0
    assert tried.of(FOUR_K, (3, 3)).step_s / plan.step_s > 1.5
    assert plan.busy > 0.95


def test_clamped_cells_count() -> None:
    wrapped, clamped = (planner(1, mode).of(FOUR_K, (3, 3)) for mode in MODES)
    assert len(clamped.assignment) == len(wrapped.assignment) == 9
    assert clamped.grid.most == 16
    assert clamped.step_s > wrapped.step_s


def test_a_slow_link_is_counted() -> None:
    slow = TileDevices(4, Contiguous(), Link(0.1, 1e9))
    tried = GridPlanner(TilingRule(SMALL), slow, seconds)
    assert tried.of(FOUR_K, (3, 3)).step_s > 3.3


def test_the_rule_with_planned_grids_cuts_by_them() -> None:
    tried = planner(4, least_share=0.7)
    rule = tried.planned((FOUR_K,))
    plan, grid = tried.plan(FOUR_K), rule.shape(FOUR_K, 20).grid
    assert (len(grid.rows), len(grid.columns)) == plan.tiles == (3, 4)
    assert grid == plan.grid
    assert len(rule.shape((432, 512, 5), 20).grid.rows) == 3


@pytest.mark.parametrize(
    ("options", "complaint"), [({"least_share": 0.0}, "least_share is 0.0"), ({"worth": 1.0}, "worth is 1.0")]
)
def test_values_that_make_no_sense(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        planner(1, **options)


def test_a_size_that_the_model_cannot_make() -> None:
    with pytest.raises(BadInput, match="multiples of 16 px"):
        planner(1).plan((430, 768, 5))
