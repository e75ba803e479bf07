"""The tile cache: gains of real computations only, thresholds by region, and what other policies make of tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.caching import CACHES, CachingPolicy, RegionAware, Signals, Threshold
from policies.caching.step import decide_block
from policies.contract import PolicyError
from policies.tiling.grid import TileGrid
from policies.tiling.shifts import ShiftSchedule
from tests.examples_tried import examples

STEPS = 20


def signals(
    step: int,
    shift: list[float],
    level: list[float] | None = None,
    gains: tuple[list[float], list[float]] | None = None,
    unit: list[int] | None = None,
    name: str = "r",
    steps: int = STEPS,
) -> Signals:
    """The tiles of one request. By default their levels are 1 and their gains 2."""
    n = len(shift)
    levels = np.ones(n) if level is None else np.array(level, dtype=float)
    output_gain, input_gain = (np.full(n, 2.0), np.ones(n)) if gains is None else map(np.array, gains)
    change = np.where(levels > 0, np.array(shift), np.inf)
    units = np.arange(n) if unit is None else np.array(unit)
    of = np.zeros(n, dtype=np.int64)
    return Signals(
        (name,), of, units, 0, 1, np.full(n, step), np.full(n, steps), change, np.zeros(n),
        np.array(shift), levels, output_gain, input_gain,
    )  # fmt: skip


def begun(policy: CachingPolicy) -> CachingPolicy:
    policy.reset()
    return policy


def decided(policy: CachingPolicy, asked: Signals) -> list[bool]:
    return decide_block(policy, asked).tolist()


class Canvas:
    """One number a tile in place of pixels: the input drifts, the output answers ``gain`` times as strongly.

    What is known between two computations is kept as the real cache keeps it. With ``published`` it is measured at
    every step on what was handed on, reused or not, as in the published code.
    """

    def __init__(self, policy: CachingPolicy, gains: list[float], published: bool = False) -> None:
        self.policy, self.gain, self.published = begun(policy), np.array(gains), published
        n = len(gains)
        self.x = np.full(n, 10.0)
        self.held_x, self.held_y = np.zeros(n), np.zeros(n)  # at the last computation
        self.moved_x, self.moved_y = np.zeros(n), np.zeros(n)  # between the last two
        self.seen_x, self.seen_y = np.zeros(n), np.zeros(n)  # at the last step
        self.checks: list[float] = []
        self.error = 0.0

    def step(self, step: int, drift: float) -> list[bool]:
        self.x = self.x + drift
        level = np.abs(self.held_y)
        asked = signals(step, np.abs(self.x - self.held_x).tolist(), level.tolist(), (self.moved_y, self.moved_x))  # type: ignore[arg-type]
        if step and isinstance(self.policy, RegionAware):
            self.checks += [gain for gain in self.policy.gains(asked).tolist() if not np.isnan(gain)]
        computed = decide_block(self.policy, asked)
        y = np.where(computed, self.gain * self.x, self.x + self.held_y - self.held_x)
        self.error = max(self.error, float(np.abs(y / (self.gain * self.x) - 1).max()))
        if step and self.published:
            self.moved_x, self.moved_y = np.abs(self.x - self.seen_x), np.abs(y - self.seen_y)
        elif step:
            self.moved_x = np.where(computed, np.abs(self.x - self.held_x), self.moved_x)
            self.moved_y = np.where(computed, np.abs(y - self.held_y), self.moved_y)
        self.seen_x, self.seen_y = self.x, y
        self.held_x, self.held_y = np.where(computed, self.x, self.held_x), np.where(computed, y, self.held_y)
        return computed.tolist()


def test_expected_change_by_hand() -> None:
    policy = begun(RegionAware(0.1, warmup=1))
    decided(policy, signals(0, [0, 0, 0], [0, 0, 0], ([0, 0, 0], [0, 0, 0])))
    asked = signals(3, [0.2, 0.2, 0.2], [5.0, 2.0, 8.0], ([3.0, 1.0, 4.0], [2.0, 1.0, 1.0]))
    assert policy.expected_change(asked).tolist() == pytest.approx([1.5 * 0.2 / 5, 0.2 / 2, 4 * 0.2 / 8])  # type: ignore[attr-defined]
    assert decided(policy, asked) == [False, True, True]  # what is at the threshold is computed


def test_the_gain_does_not_collapse_when_tiles_are_reused() -> None:
    strong = Canvas(RegionAware(0.05, warmup=2, max_reuse=9), [4.0, 0.25])
    computed = [strong.step(step, 0.1) for step in range(STEPS)]
    assert not all(map(all, computed))
    assert len(strong.checks) > 30
    assert all(gain == pytest.approx(4.0) or gain == pytest.approx(0.25) for gain in strong.checks)
    assert sum(gain == pytest.approx(1.0) for gain in strong.checks) == 0


def test_measured_on_reused_tiles_the_gain_would_collapse() -> None:
    published = Canvas(RegionAware(0.05, warmup=2, max_reuse=9), [4.0, 0.25], published=True)
    for step in range(STEPS):
        published.step(step, 0.1)
    assert sum(gain == pytest.approx(1.0) for gain in published.checks) > 10


@pytest.mark.parametrize("gains", [([0.0, 0.0], [0.0, 0.0]), ([7.0, 7.0], [0.0, 0.0])])
def test_a_gain_that_was_not_measured_is_the_last_one_that_was(gains: tuple[list[float], list[float]]) -> None:
    policy = begun(RegionAware(0.1, bonus=0, warmup=1))
    assert decided(policy, signals(2, [0.01, 0.01], gains=gains)) == [True, True]  # none was measured yet
    decided(policy, signals(3, [9.0, 9.0], gains=([2.0, 20.0], [1.0, 1.0])))
    assert policy.gains(signals(4, [0.01, 0.01], gains=gains)).tolist() == [2.0, 20.0]  # type: ignore[attr-defined]
    assert decided(policy, signals(4, [0.01, 0.01], gains=gains)) == [False, True]
    policy.forget("r")
    assert np.isnan(policy.gains(signals(4, [0.01, 0.01], gains=gains))).all()  # type: ignore[attr-defined]


def test_warm_up_and_last_step_compute_and_reuse_ends() -> None:
    policy = begun(RegionAware(0.1, warmup=5, max_reuse=3))
    computed = [step for step in range(STEPS) if decided(policy, signals(step, [0.0], [float(step > 0)]))[0]]
    assert computed == [0, 1, 2, 3, 4, 8, 12, 16, 19]


def test_a_tile_that_holds_nothing_is_computed() -> None:
    policy = begun(RegionAware(0.1, warmup=1))
    decided(policy, signals(0, [0, 0], [0, 0]))
    assert decided(policy, signals(3, [0.0, 0.0], [0.0, 1.0])) == [True, False]


def test_the_liveliest_tiles_may_be_off_by_more() -> None:
    policy = begun(RegionAware(0.1, bonus=0.5, refresh=4, warmup=1, max_reuse=99))
    steady, wild, wilder, little = [1.0] * 8, [1, 3, 1, 3, 1, 3, 1, 3], [1, 5, 1, 5, 1, 5, 1, 5], [1, 1.1] * 4
    for step in range(8):
        levels = [float(of[step]) for of in (steady, wild, wilder, little)]
        gains = ([1.0] * 4, [1.0] * 4)
        at = {
            change: policy.decide(signals(step, [change * of for of in levels], levels, gains)).tolist()
            for change in (0.09, 0.11, 0.12, 0.14, 0.16)
        }
        decided(policy, signals(step, [0.0] * 4, levels, gains))
        if 0 < step < 4:
            assert (at[0.09], at[0.11]) == ([False] * 4, [True] * 4)
        if 4 <= step < 7:
            assert (at[0.09], at[0.11]) == ([False] * 4, [True, False, False, True])
            assert (at[0.12], at[0.14], at[0.16]) == (at[0.11], [True, True, False, True], [True] * 4)


@given(st.lists(st.lists(st.floats(0.1, 9), min_size=3, max_size=3), min_size=2, max_size=12))
def test_the_spread_is_that_of_the_levels_over_the_steps(levels: list[list[float]]) -> None:
    policy = RegionAware()
    policy.reset()
    for step, level in enumerate(levels):
        decided(policy, signals(step, [0.0] * 3, level))
    assert policy._of["r"].spread == pytest.approx(np.std(levels, axis=0), abs=1e-9)


def test_tiles_may_come_and_go() -> None:
    """In ``clamp`` mode a border tile is missing where the grid stands at the edge; the others keep their state."""
    policy = begun(RegionAware(0.1, bonus=0, warmup=1, max_reuse=9))
    unknown = ([0.0], [0.0])
    decided(policy, signals(0, [0.0, 0.0], [0.0, 0.0], unit=[1, 2]))
    decided(policy, signals(1, [0.0, 0.0, 0.0], gains=([2.0, 4.0, 8.0], [1.0] * 3), unit=[0, 1, 5]))
    assert [policy.gains(signals(2, [0.1], gains=unknown, unit=[u]))[0] for u in (0, 1, 5)] == [2.0, 4.0, 8.0]  # type: ignore[attr-defined]
    assert np.isnan(policy.gains(signals(2, [0.1], gains=unknown, unit=[4]))).all()  # type: ignore[attr-defined]
    assert np.isnan(policy.gains(signals(2, [0.1], gains=unknown, unit=[9]))).all()  # type: ignore[attr-defined]


def test_requests_of_a_batch_have_states_of_their_own() -> None:
    policy = begun(RegionAware(0.1, warmup=1))
    decided(policy, signals(3, [1.0], gains=([5.0], [1.0]), name="a"))
    decided(policy, signals(3, [1.0], gains=([7.0], [1.0]), name="b"))
    a, b = (signals(4, [0.1], gains=([0.0], [0.0]), name=name) for name in "ab")
    columns = [
        None if x is None else np.concatenate([x, y]) if isinstance(x, np.ndarray) else x
        for x, y in zip(a, b, strict=True)
    ]
    both = Signals(*columns)._replace(request_ids=("a", "b"), request=np.array([0, 1]))  # type: ignore[arg-type]
    assert policy.gains(both).tolist() == [5.0, 7.0]  # type: ignore[attr-defined]


def test_signals_of_blocks_are_refused() -> None:
    policy = begun(RegionAware())
    of_blocks = signals(9, [0.1])._replace(output_gain=None)
    with pytest.raises(PolicyError, match="blocks need another caching policy"):
        policy.decide(of_blocks)


@pytest.mark.parametrize(("name", "value"), [("bonus", -1), ("refresh", 0), ("warmup", 0), ("max_reuse", 0)])
def test_wrong_parameters_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        RegionAware(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("none", {}, list(range(STEPS))),
        ("interval", {"every": 3}, [0, 1, 4, 7, 10, 13, 16, 19]),
        ("threshold", {"threshold": 0.025}, [0, 1, 4, 7, 10, 13, 16, 19]),  # it drifts by 0.01 a step
    ],
)
def test_policies_of_blocks_know_tiles(name: str, parameters: dict[str, float], expected: list[int]) -> None:
    policy = begun(CACHES[name](**parameters))
    last, computed = 0, []
    for step in range(STEPS):
        asked = signals(step, [0.01 * (step - last)], [float(step > 0)])
        without = asked._replace(input_shift=None, output_level=None, output_gain=None, input_gain=None)
        if decided(policy, without)[0]:
            last = step
            computed.append(step)
    assert computed == expected


@settings(max_examples=examples(13), deadline=None)
@given(
    tiles=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    mode=st.sampled_from(["wrap", "clamp"]),
    max_reuse=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_no_pixel_is_held_for_ever(tiles: tuple[int, int], mode: str, max_reuse: int, seed: int) -> None:
    """A moving grid hands pixels on that are older than their new tile's last computation.

    In the time it takes to move by a tile, one border of each axis passes a pixel, or passes it to and fro; each can at
    worst add another ``max_reuse``.
    """
    side = 16
    grid = TileGrid((tiles[0] * side, tiles[1] * side), (side,) * tiles[0], (side,) * tiles[1], mode)
    shifts, policy, rng = ShiftSchedule.of(grid), begun(Threshold(0.5, 1, max_reuse)), np.random.default_rng(seed)
    held = np.zeros(grid.canvas, dtype=int)
    for step in range(60):
        now = grid.tiles(shifts.at(step))
        asked = signals(step, rng.uniform(0, 0.7, len(now)).tolist(), unit=[tile.index for tile in now], steps=60)
        for tile, fresh in zip(now, decided(policy, asked), strict=True):
            if fresh:
                held[np.ix_(tile.core.rows(grid.canvas[0]), tile.core.columns(grid.canvas[1]))] = step
        assert (step - held).max() <= (3 if mode == "wrap" else 5) * (max_reuse + 1)
