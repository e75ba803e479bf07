"""Modelled signals of tiles, against an independent account of the same canvas."""

from __future__ import annotations

import numpy as np
import pytest

from policies.caching import CACHES, CachingPolicy, FixedInterval, RegionAware
from policies.caching.step import decide_block
from policies.tiling.shifts import ShiftSchedule
from policies.tiling.signals import TileSignals
from predictors.tile_reuse import TileReuse
from tests.predictors.tile_recordings import STEPS, grid_of, made_up_tiles
from traces.request import Request

SIZE = (256, 384)


@pytest.fixture(scope="module", params=["wrap", "clamp"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source(mode: str) -> TileSignals:
    return TileSignals(TileReuse.fit(made_up_tiles(mode=mode)))


def one(name: str = "q") -> Request:
    return Request(name, 0.0, *SIZE, STEPS)


def shares(source: TileSignals, policy: CachingPolicy, mode: str, draw: int, steps: int = STEPS) -> list[float]:
    """The computed share of each step."""
    grid = grid_of(*SIZE, mode)
    shifts, tiles_of = ShiftSchedule.of(grid), source.of(one(), steps, draw)
    policy.reset()
    computed = []
    for step in range(steps):
        tiles = grid.tiles(shifts.at(step))
        flags = decide_block(policy, tiles_of.signals(step, tiles))
        tiles_of.done(step, tiles, flags)
        computed.append(float(flags.mean()))
    return computed


def test_at_first_nothing_is_held(source: TileSignals, mode: str) -> None:
    signals = source.of(one(), STEPS).signals(0, grid_of(*SIZE, mode).tiles())
    assert np.isinf(signals.input_change).all()
    assert np.isinf(signals.input_shift).all()  # type: ignore[arg-type]
    for column in (signals.output_level, signals.output_gain, signals.input_gain):
        assert column is not None
        assert not column.any()
    assert (signals.request_ids, signals.blocks) == (("q",), 1)


def test_magnitudes_are_means_over_the_ages_of_the_window(source: TileSignals, mode: str) -> None:
    """What moves in proportion to its age moves by the mean age of a window's pixels."""
    grid = grid_of(*SIZE, mode)
    shifts, tiles_of = ShiftSchedule.of(grid), source.of(one(), STEPS, draw=0)
    held = np.zeros(grid.canvas)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        tiles = grid.tiles(shifts.at(step))
        signals = tiles_of.signals(step, tiles)
        computed = rng.random(len(tiles)) < 0.5 if step else np.ones(len(tiles), dtype=bool)
        if step:
            assert signals.input_shift is not None
            for place, tile in enumerate(tiles):
                window = np.ix_(tile.window.rows(grid.canvas[0]), tile.window.columns(grid.canvas[1]))
                down = (tile.window.top + tile.window.height / 2) / grid.canvas[0] % 1
                expected = (0.01 + 0.04 * down) * (step - held[window]).mean()
                assert signals.input_shift[place] == pytest.approx(expected, rel=1e-5)
                assert signals.input_change[place] == pytest.approx(expected, rel=1e-5)
        tiles_of.done(step, tiles, computed)
        for place in np.flatnonzero(computed):
            core = tiles[place].core
            held[np.ix_(core.rows(grid.canvas[0]), core.columns(grid.canvas[1]))] = step


def test_gains_are_of_the_last_computation(source: TileSignals, mode: str) -> None:
    grid = grid_of(*SIZE, mode)
    tiles_of = source.of(one(), STEPS, draw=0)
    tiles = grid.tiles((3, 3))
    every, none = np.ones(len(tiles), dtype=bool), np.zeros(len(tiles), dtype=bool)
    seen = []
    for step, computed in enumerate((every, none, every, none, none)):
        seen.append(tiles_of.signals(step, tiles))
        tiles_of.done(step, tiles, computed)
    assert not seen[2].input_gain.any()  # type: ignore[union-attr]
    assert np.array_equal(seen[3].input_gain, seen[2].input_shift)  # type: ignore[arg-type]
    assert np.array_equal(seen[4].input_gain, seen[3].input_gain)  # type: ignore[arg-type]
    np.testing.assert_allclose(seen[4].output_gain, 1.5 * seen[4].input_gain)  # type: ignore[operator,arg-type]


def test_every_policy_of_tiles_runs_on_them(source: TileSignals, mode: str) -> None:
    for name in ("none", "interval", "threshold", "region-aware"):
        computed = shares(source, CACHES[name](), mode, draw=0)
        assert computed[0] == computed[-1] == 1.0, name
        assert (min(computed) < 1) == (name != "none"), name
    assert shares(source, FixedInterval(every=3), mode, 0)[2:8] == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]


def test_livelier_requests_and_tiles_are_computed_more(source: TileSignals, mode: str) -> None:
    policy = RegionAware(0.03, bonus=0, warmup=2, max_reuse=9)
    by_draw = [np.mean(shares(source, policy, mode, draw)) for draw in range(3)]
    assert by_draw[0] < by_draw[2]
    assert shares(source, policy, mode, 1) == shares(source, policy, mode, 1)


def test_longer_runs_reuse_more(source: TileSignals, mode: str) -> None:
    policy = RegionAware(0.03, warmup=2, max_reuse=99)
    assert np.mean(shares(source, policy, mode, 1, 4 * STEPS)) < np.mean(shares(source, policy, mode, 1))
