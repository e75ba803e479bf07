"""The comparison with SuperGen's figures: the model behind it by hand, its goals, and that its command runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import supergen
from benchmarks.refinement import reuse, simulate
from benchmarks.refinement.costs import NATIVE, TRANSFORMERS
from benchmarks.refinement.published import CACHED_S, GRIDS, MODELS, STEPS, TILE_COUNT_S, UNCACHED_S
from benchmarks.refinement.simulate import drawn, refine
from policies.placement import CacheGuided, Contiguous, PlacementPolicy, RoundRobinTiles
from policies.tiling import timing
from policies.tiling.grid import TileGrid
from policies.tiling.recipe import TiledShape
from policies.tiling.shifts import ShiftSchedule
from predictors.link import Link

SMALL = TileGrid((24, 24), (8, 8, 8), (8, 8, 8))


def area(height: int, width: int) -> float:
    return height * width / 64


def test_the_fourteen_times_without_a_cache_are_met() -> None:
    rows = supergen.uncached()
    sizes = np.abs(supergen.errors(rows))
    assert len(rows) == sum(map(len, UNCACHED_S.values())) == 14
    assert sizes.mean() < 0.04
    assert sizes.max() < 0.18
    assert {(row["canvas"], row["gpus"]) for row, size in zip(rows, sizes, strict=True) if size > 0.02} == {
        ("4K", 1), ("4K", 8),
    }  # fmt: skip


@pytest.mark.parametrize(("devices", "rounds"), [(1, 9), (2, 5), (4, 3), (8, 2)])
def test_without_a_cache_and_with_a_free_link_rounds_alone_count(devices: int, rounds: int) -> None:
    run = refine(SMALL, devices, Contiguous(), area)
    assert run.seconds(Link(0.0, 1e30), 1) == pytest.approx(rounds * STEPS)
    assert run.received.sum() == run.sent.sum()
    assert (run.received.sum() == 0) == (devices == 1)


@pytest.mark.parametrize("placement", [Contiguous(), RoundRobinTiles(), CacheGuided()])
def test_it_is_the_refinement_that_the_simulator_predicts(placement: PlacementPolicy) -> None:
    link = Link(1e-3, 1e5)
    shape = TiledShape((192, 192, 1), (64, 64, 1), SMALL, ShiftSchedule.of(SMALL), 50, STEPS)
    devices = timing.TileDevices(4, placement, link, number_bytes=2)
    expected = timing.refine(shape, STEPS, devices, area, 16)
    run = refine(SMALL, 4, placement, area)
    np.testing.assert_allclose(run.busy_s, expected.device_s)
    assert (32 * run.received.sum(1)).tolist() == list(expected.moved)
    exchange = run.messages * link.latency_s + (run.received + run.sent) * 32 / link.bytes_per_s
    steps_s = exchange.max(1) + run.busy_s.max(1)
    np.testing.assert_allclose(steps_s[:-1], expected.step_s[:-1])  # in the last of theirs the canvas is gathered
    assert run.seconds(link, 32) == pytest.approx(steps_s.sum())


def test_what_is_drawn() -> None:
    some, more = (drawn(reuse, 0.3, (3, 3), 7, warm_up=5) for reuse in (0.3, 0.6))
    assert some.shape == (STEPS, 9)
    assert some[:5].all()
    assert some[-1].all()
    assert not (more & ~some).any()
    assert (drawn(0.3, 0.3, (3, 3), 7, warm_up=5) == some).all()
    many = np.concatenate([drawn(0.3, 0.5, (3, 3), seed)[1:-1] for seed in range(60)])
    assert many.mean() == pytest.approx(0.7, abs=0.02)
    rows = np.concatenate([drawn(0.4, 1.0, (3, 3), seed).reshape(-1, 3) for seed in range(3)])
    assert (rows.all(1) | ~rows.any(1)).all()
    assert len({tuple(row) for row in drawn(0.5, 1.0, (3, 3), 0)}) > 2


def test_rounds_of_the_fit_are_those_of_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "SEEDS", 2)
    for devices, whole in ((2, 5), (4, 3), (8, 2)):
        runs = [refine(SMALL, devices, Contiguous(), area, drawn(0.4, 0.5, (3, 3), seed, 5)) for seed in range(2)]
        seconds = np.mean([run.busy_s.max(1).sum() for run in runs])
        assert reuse.rounds(0.4, 0.5, 5, devices) == pytest.approx(seconds / (whole * STEPS))


def test_the_fit_recovers_rates_that_made_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "SEEDS", 10)
    rates = dict(zip(MODELS, (0.25, 0.45), strict=True))
    made = {
        model: {n: (UNCACHED_S[model, "4K"][n] * reuse.rounds(rate, 0.6, 1, n), 0.0) for n in (2, 4, 8)}
        for model, rate in rates.items()
    }
    monkeypatch.setattr(reuse, "CACHED_S", made)
    found = reuse.best_fit(1)
    assert found.alike == pytest.approx(0.6, abs=0.11)
    assert found.reuse == pytest.approx(rates, abs=0.02)
    assert found.error < 0.005


def test_the_goal_with_redistribution_is_met_where_the_warm_up_counts_from_the_schedule() -> None:
    found = reuse.best_fit(reuse.WARM_UPS[1])
    for model, times in CACHED_S.items():
        for gpus, (_, published) in times.items():
            draws = [drawn(found.reuse[model], found.alike, (3, 3), seed) for seed in range(reuse.SEEDS)]
            rounds = np.mean([-(-computed.sum(1) // gpus).sum() for computed in draws]) / (-(-9 // gpus) * STEPS)
            assert UNCACHED_S[model, "4K"][gpus] * rounds == pytest.approx(published, rel=0.1)


def test_a_tiles_cost_follows_from_the_transformers_shape() -> None:
    shape = TRANSFORMERS["CogVideoX-1.5"]
    assert shape.tokens(NATIVE) == 226 + 6 * 45 * 80
    assert TRANSFORMERS["HunyuanVideo"].tokens(NATIVE) == 256 + 11 * 45 * 80
    assert shape.relative(NATIVE) == 1
    assert 0.25 * 0.25 < shape.relative((360, 640, 41)) < 0.25
    assert shape.attention == pytest.approx(0.54, abs=0.005)


def test_the_published_tile_counts_are_met_without_fitting() -> None:
    rows = supergen.tile_sizes(0.5)
    assert [row["tiles"] for row in rows] == [9, 12, 15, 25]
    for row, published in zip(rows, TILE_COUNT_S.values(), strict=True):
        ours = next(value for name, value in row.items() if name.startswith("by shape"))
        assert ours == pytest.approx(published, rel=0.04)


def test_the_grids_of_the_tables_have_native_tiles() -> None:
    for tiles in GRIDS.values():
        assert {tile.window[2:] for tile in supergen.grid_of(tiles).tiles((5, 11))} == {(90, 160)}


def test_the_command_prints_and_writes_every_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supergen, "SEEDS", 1)
    monkeypatch.setattr(supergen, "GPUS", (4,))
    monkeypatch.setattr(reuse, "ALIKE", (0.5,))
    for module, name, few in ((reuse, "SEEDS", 4), (reuse, "STEPS", 10), (simulate, "STEPS", 10)):
        monkeypatch.setattr(module, name, few)  # what times come out is tested above
    supergen.main(["--seeds", "1", "-o", str(tmp_path / "out" / "figures.json")])
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())["tables"]
    assert [table["title"][:2] for table in figures] == ["1.", "2.", "2.", "2.", "3.", "4.", "5a", "5b"]
    assert all(table["rows"] for table in figures)
    ratios = [row["ratio"] for row in figures[5]["rows"]]
    assert min(ratios) > 1.4
    received = {(row["placement"], row["reuse"]): row["mean"] for row in figures[6]["rows"]}
    assert max(received.values()) < 2
    by_policy = {(row["grid"], row["gpus"], row["placement"]): row["refine, s"] for row in figures[7]["rows"]}
    assert by_policy["3 x 3", 4, "CacheGuided"] < by_policy["3 x 3", 4, "Contiguous"]
    assert "283 s with 1" in " ".join(capsys.readouterr().out.split())
