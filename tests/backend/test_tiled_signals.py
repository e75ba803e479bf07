"""What a tile cache's policy is told, and what reuse hands on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend.tiled.signals import MeasuredTileSignals, as_table, in_whole_numbers, measured  # noqa: E402
from policies.caching import CachingPolicy, FixedInterval, Flags, RegionAware, Signals  # noqa: E402
from policies.tiling.grid import TileGrid  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.tiled_runs import executor_of, refine, upscaled  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)

GRID = TileGrid((24, 36), (12, 12), (18, 10, 8), overlap=3)


def canvases() -> Any:
    """Input now, input then and what is held."""
    return torch.randn(3, 2, 4, 3, 24, 36, generator=torch.Generator().manual_seed(1)) * torch.tensor(3.0)


def test_totals_are_sums_over_windows() -> None:
    now, then, held = canvases()
    tiles = GRID.tiles((5, 30))
    totals = measured(tiles, torch.ones(24, 36, dtype=torch.bool), now, then, held)
    for tile, found in zip(tiles, totals.T.double().numpy() / 2**24, strict=True):
        at = np.ix_(tile.window.rows(24), tile.window.columns(36))
        x, y, z = (tensor.double().numpy()[..., at[0], at[1]] for tensor in (now, then, held))
        expected = [np.abs(x - y).sum(), ((x - y) ** 2).sum(), (y**2).sum(), np.abs(z).sum()]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_totals_do_not_depend_on_who_owns_what() -> None:
    now, then, held = canvases()
    tiles = GRID.tiles((5, 30))
    whole = measured(tiles, torch.ones(24, 36, dtype=torch.bool), now, then, held)
    for ranks in (2, 3, 7):
        owners = torch.randint(ranks, (24, 36), generator=torch.Generator().manual_seed(ranks))
        parts = [measured(tiles, owners == rank, now, then, held) for rank in range(ranks)]
        assert torch.equal(sum(parts), whole)


def test_numbers_that_are_none_count_as_very_many() -> None:
    found = in_whole_numbers(torch.tensor([0.0, 1.0, 2.0**-24, float("nan"), float("inf"), 1e30]))
    assert found.tolist() == [0, 2**24, 1, 2**46, 2**46, 2**46]


def test_signals_are_means_over_the_window() -> None:
    now, then, held = canvases()
    tiles = GRID.tiles((5, 30))
    every = torch.ones(24, 36, dtype=torch.bool)
    signals = MeasuredTileSignals("a", 9, 2 * 4 * 3).of(4, tiles, measured(tiles, every, now, then, held))
    assert signals.unit.tolist() == [tile.index for tile in tiles]
    assert signals.step.tolist() == [4] * len(tiles)
    assert signals.steps.tolist() == [9] * len(tiles)
    for place, tile in enumerate(tiles):
        at = np.ix_(tile.window.rows(24), tile.window.columns(36))
        x, y, z = (tensor.double().numpy()[..., at[0], at[1]] for tensor in (now, then, held))
        expected = [((x - y) ** 2).mean() / (y**2).mean(), np.abs(x - y).mean(), np.abs(z).mean(), 0, 0]
        columns = (signals.input_change, signals.input_shift, signals.output_level, signals.output_gain,
                   signals.input_gain)  # fmt: skip
        np.testing.assert_allclose([c[place] for c in columns if c is not None], expected, rtol=1e-6)


def test_nothing_held_is_an_infinite_change() -> None:
    signals = MeasuredTileSignals("a", 9, 1).of(0, GRID.tiles(), None)
    assert np.isinf(signals.input_change).all()
    assert signals.output_level is not None
    assert not signals.output_level.any()


def test_gains_are_of_computed_tiles_only_and_stay_until_the_next_computation() -> None:
    tiles = TileGrid((2, 4), (2,), (2, 2)).tiles()
    source = MeasuredTileSignals("a", 9, 1)

    def step(at: int, shifts: list[float], computed: list[int], moved: list[float]) -> Signals:
        totals = torch.zeros(4, 2, dtype=torch.int64)
        totals[0] = torch.tensor([int(4 * s * 2**24) for s in shifts])
        signals = source.of(at, tiles, totals if at else None)
        source.computed([tiles[i] for i in computed])
        source.changed(tiles, torch.tensor([int(4 * m * 2**24) for m in moved]))
        return signals

    step(0, [0, 0], [0, 1], [0, 0])  # the first computation has no predecessor
    first = step(1, [0.5, 0.25], [0], [2.0, 0.0])
    second = step(2, [0.125, 1.0], [1], [0.0, 3.0])
    third = step(3, [0.25, 0.25], [], [0.0, 0.0])
    fourth = step(4, [0.5, 0.5], [0, 1], [0.0, 0.0])
    gains = [(s.output_gain.tolist(), s.input_gain.tolist()) for s in (first, second, third, fourth)]  # type: ignore[union-attr]
    assert gains[0] == ([0.0, 0.0], [0.0, 0.0])
    assert gains[1] == ([2.0, 0.0], [0.5, 0.0])
    assert gains[2] == ([2.0, 3.0], [0.5, 1.0])
    assert gains[3] == gains[2]


def test_a_table_of_signals_is_exact() -> None:
    now, then, held = canvases()
    tiles = GRID.tiles((5, 30))
    source = MeasuredTileSignals("a", 9, 24)
    for totals in (None, measured(tiles, torch.ones(24, 36, dtype=torch.bool), now, then, held)):
        signals = source.of(4, tiles, totals)
        for found, expected in zip(source.from_table(4, as_table(signals)), signals, strict=True):
            np.testing.assert_array_equal(found, expected)


class Logged(CachingPolicy):
    """A policy that tells what it was shown and what was computed."""

    def __init__(self, policy: CachingPolicy, log: list[tuple[Signals, Flags]]) -> None:
        self.policy, self.log = policy, log
        self.needs_gain = policy.needs_gain

    def __deepcopy__(self, memo: Any) -> Logged:
        return self

    def reset(self) -> None:
        self.policy.reset()

    def decide(self, signals: Signals) -> Flags:
        return self.policy.decide(signals)

    def commit(self, signals: Signals, computed: Flags) -> None:
        self.log.append((signals, computed.copy()))
        self.policy.commit(signals, computed)

    def forget(self, request_id: str) -> None:
        self.policy.forget(request_id)


Seen = list[tuple[Any, Any]]


def watched_run(policy: CachingPolicy, **tiling: Any) -> tuple[Any, Seen, list[tuple[Signals, Flags]]]:
    """A refinement in float64: its run, each evaluation's input and answer, and the policy's log."""
    log: list[tuple[Signals, Flags]] = []
    pipeline = tiny_pipelines.sdxl().to(torch.float64)
    executor = executor_of(
        pipeline, (16, 16), {"refine": 1.0, "overlap": tiling.pop("overlap", 0)}, caching=Logged(policy, log), **tiling
    )
    request = Request("a", 0.0, 32, 48, 6, seed=3, prompt="a cat", guidance_scale=2.0, images=2)
    upscaled(executor, request)
    run: Any = executor._runs["a"]
    seen: Seen = []
    answer = run.adapter.answer

    def watched(whole: Any, call: Any) -> Any:
        seen.append((run.adapter.sample(call, run.shape.grid.canvas)[-2:].clone(), whole.clone()))
        return answer(whole, call)

    run.adapter.answer = watched
    refine(executor, request)
    return run, seen, log


@pytest.mark.parametrize("overlap", [0, 4])
def test_reused_pixels_are_what_is_held(overlap: int) -> None:
    _, seen, log = watched_run(FixedInterval(2, warmup=1), overlap=overlap)
    assert [bool(flags.any()) for _, flags in log] == [True, False, True, False, True, True]
    for step in (1, 3):
        assert torch.equal(seen[step][1], seen[step - 1][1])
        assert not torch.equal(seen[step + 1][1], seen[step][1])


def test_reused_residuals_follow_the_input() -> None:
    _, seen, _ = watched_run(FixedInterval(2, warmup=1), reuse="residual")
    for step in (1, 3):
        moved = (seen[step][0] - seen[step - 1][0]).repeat(2, 1, 1, 1, 1)  # rows: without text, with text
        torch.testing.assert_close(seen[step][1], seen[step - 1][1] + moved, rtol=0, atol=1e-12)
        assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("overlap", [0, 4])
def test_a_run_tells_its_policy_what_happened_on_the_canvas(overlap: int) -> None:
    run, seen, log = watched_run(RegionAware(0.6, warmup=2, max_reuse=2), overlap=overlap)
    canvas = run.shape.grid.canvas
    then = held = None
    gains: dict[int, tuple[float, float]] = {}
    reused = 0
    for step, ((now, whole), (signals, computed)) in enumerate(zip(seen, log, strict=True)):
        tiles = run.shape.grid.tiles(run.shape.shifts.at(step))
        output = whole[-2:]
        for place, tile in enumerate(tiles):
            at = (..., tile.window.rows(canvas[0])[:, None], tile.window.columns(canvas[1]))
            if then is not None and held is not None:
                shift, level = (now[at] - then[at]).abs().mean(), held[at].abs().mean()
                change = (now[at] - then[at]).square().mean() / then[at].square().mean()
                found = signals.input_shift[place], signals.output_level[place], signals.input_change[place]
                np.testing.assert_allclose(found, [float(shift), float(level), float(change)], rtol=1e-5)
            if not overlap:  # with one, a window's own prediction is not seen here: only the blend is
                known = gains.get(tile.index, (0.0, 0.0))
                np.testing.assert_allclose((signals.output_gain[place], signals.input_gain[place]), known, rtol=1e-5)
        reused += int((~computed).sum())
        before = (then, held)
        then, held = (now.clone(), output.clone()) if then is None else (then.clone(), held.clone())
        for tile, fresh in zip(tiles, computed, strict=True):
            if fresh:
                core = (..., tile.core.rows(canvas[0])[:, None], tile.core.columns(canvas[1]))
                then[core], held[core] = now[core], output[core]
                if before[0] is not None:
                    moved = (output[core] - before[1][core]).abs().mean()
                    gains[tile.index] = float(moved), float((now[core] - before[0][core]).abs().mean())
    assert reused > 3
    assert any(out > 0 for out, _ in gains.values())
