"""One tiled request under different caches, and recordings of what the caches see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from backend.tiled.record import record_tiles  # noqa: E402
from backend.tiled.refiner import RecordingPolicy, Refiner  # noqa: E402
from policies.caching import ComputeAll, FixedInterval, RegionAware, Threshold  # noqa: E402
from policies.tiling.signals import TileSignals  # noqa: E402
from predictors.tile_recording import TileRecording  # noqa: E402
from predictors.tile_reuse import TileReuse  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)

SIZES = {"sdxl": (16, 48, 1), "wan": (32, 96, 5)}
TILES, STEPS, REFINED = 3, 6, 5


@pytest.fixture(scope="module", params=["sdxl", "wan"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trial(kind: str, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Refiner:
    folder = model_folder
    if kind == "wan":
        folder = tmp_path_factory.mktemp("models") / "tiny-wan"
        tiny_pipelines.wan().save_pretrained(folder)
    tile = {"sdxl": (16, 16), "wan": (32, 32)}[kind]
    return Refiner(str(folder), above=0.005, tile=tile, refine=REFINED / STEPS, stride=0.25)


@pytest.fixture(scope="module")
def request_(kind: str) -> Request:
    height, width, frames = SIZES[kind]
    return Request("r0", 0.0, height, width, STEPS, frames, prompt="a cat", seed=3)


@pytest.fixture(scope="module")
def sketch(trial: Refiner, request_: Request) -> torch.Tensor:
    return trial.sketch(request_)


@pytest.fixture(scope="module")
def uncached(trial: Refiner, request_: Request, sketch: torch.Tensor) -> np.ndarray:
    done = trial.refine(request_, sketch)
    assert done.computed == done.tiles == TILES * REFINED
    assert done.seconds > 0
    return done.pixels


class SeesAll(ComputeAll):
    """Computes everything and is shown all there is."""

    needs_gain = True


def test_a_cache_that_reuses_nothing_changes_nothing(
    trial: Refiner, request_: Request, sketch: torch.Tensor, uncached: np.ndarray
) -> None:
    for reuse in ("output", "residual"):
        done = trial.refine(request_, sketch, SeesAll(), reuse)
        assert np.array_equal(done.pixels, uncached)
        assert done.computed == done.tiles


def test_what_is_reused_is_counted_and_shows(
    trial: Refiner, request_: Request, sketch: torch.Tensor, uncached: np.ndarray
) -> None:
    watched = RecordingPolicy(FixedInterval(2))
    pixels = []
    for reuse in ("output", "residual"):
        done = trial.refine(request_, sketch, watched, reuse)
        assert (done.computed, done.tiles) == (TILES * 4, TILES * REFINED)  # steps 0, 1, 3 and the last
        assert [bool(flags.all()) for _, flags in watched.log] == [True, True, False, True, True]
        pixels.append(done.pixels)
    assert not np.array_equal(pixels[0], uncached)
    assert not np.array_equal(pixels[0], pixels[1])


def test_a_trial_is_the_same_every_time(trial: Refiner, request_: Request, sketch: torch.Tensor) -> None:
    policy = RegionAware(50.0, warmup=2)
    first, second = (trial.refine(request_, sketch, policy) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    assert first.computed == second.computed < first.tiles


@pytest.fixture(scope="module")
def recording(trial: Refiner, kind: str) -> TileRecording:
    frame = record_tiles(trial, [SIZES[kind]], 1, STEPS, max_age=3, seed=3, prompts=["a cat"])
    return TileRecording(frame, {"model": kind, "latent_factor": str(trial.rule.geometry.latent_factor)})


def test_every_tile_is_recorded_at_every_age(recording: TileRecording) -> None:
    frame = recording.frame
    assert recording.steps == REFINED
    assert frame.groupby("step")["age"].unique().map(list).to_dict() == {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 2, 3]}
    assert (frame.groupby(["step", "age"])["tile"].nunique() == TILES).all()
    later = frame[frame["step"] >= 3].groupby("age")[["input_change", "input_shift"]].median()
    assert later["input_change"].is_monotonic_increasing
    assert later["input_shift"].is_monotonic_increasing


def test_the_recording_is_what_a_cache_is_shown(
    trial: Refiner, request_: Request, sketch: torch.Tensor, recording: TileRecording
) -> None:
    watched = RecordingPolicy(SeesAll())
    trial.refine(request_, sketch, watched)
    of_step = {step: rows.sort_values("tile") for step, rows in recording.frame.query("age == 1").groupby("step")}
    for step, (signals, _) in enumerate(watched.log):
        if not step:
            assert np.isinf(signals.input_change).all()
            continue
        rows = of_step[step]
        close(signals.input_change, rows["input_change"])
        close(signals.input_shift, rows["input_shift"])
        close(signals.output_level, rows["output_level"])
        if step > 1:
            close(signals.output_gain, of_step[step - 1]["output_shift"])
            close(signals.input_gain, of_step[step - 1]["input_shift"])


def test_a_simulation_shows_a_policy_what_the_model_does(
    trial: Refiner, request_: Request, sketch: torch.Tensor, recording: TileRecording
) -> None:
    """From the recording of everything computed to the signals of a run in which a third is reused."""
    watched = RecordingPolicy(Threshold(1e9, warmup=1, max_reuse=1))
    trial.refine(request_, sketch, watched)
    shape = trial.rule.shape(request_.size, STEPS)
    tiles_of = TileSignals(TileReuse.fit(recording)).of(request_, REFINED)
    for step, (real, computed) in enumerate(watched.log):
        tiles = shape.grid.tiles(shape.shifts.at(step))
        modelled = tiles_of.signals(step, tiles)
        assert np.array_equal(modelled.unit, real.unit)
        if step in (1, 2):  # after a reuse the real input is not quite the recorded one
            close(modelled.input_shift, real.input_shift, 0.4 if step == 2 else 0.001)
            close(modelled.output_level, real.output_level, 0.4 if step == 2 else 0.001)
        tiles_of.done(step, tiles, computed)
    assert 0 < np.mean([flags.mean() for _, flags in watched.log]) < 1


def close(signal: np.ndarray | None, recorded: pd.Series | np.ndarray | None, within: float = 1e-4) -> None:
    assert signal is not None
    np.testing.assert_allclose(signal, np.asarray(recorded), rtol=within)


def test_what_is_not_tiled_is_said(trial: Refiner) -> None:
    side = trial.rule.geometry.size_multiple
    with pytest.raises(BadInput, match="is not tiled"):
        trial.check(Request("r", 0.0, side, side, STEPS))
    with pytest.raises(BadInput, match="height 7 is not a multiple"):
        trial.check(Request("r", 0.0, 7, side, STEPS))


def test_where_the_grid_stands_only_what_was_computed_there_is_reused(
    trial: Refiner, request_: Request, sketch: torch.Tensor, recording: TileRecording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "rule", replace(trial.rule, stand=2))
    shape = trial.rule.shape(request_.size, STEPS)
    assert [shape.shifts.renews(step) for step in range(REFINED)] == [False, False, True, False, True]
    watched = RecordingPolicy(RegionAware(1e9, warmup=2))
    done = trial.refine(request_, sketch, watched)
    assert [bool(computed.all()) for _, computed in watched.log] == [True, True, True, False, True]
    assert done.computed == TILES * 4
    tiles_of = TileSignals(TileReuse.fit(recording)).of(request_, REFINED)
    for step, (real, computed) in enumerate(watched.log):
        tiles = shape.grid.tiles(shape.shifts.at(step))
        modelled = tiles_of.signals(step, tiles, shape.shifts.renews(step))
        assert np.array_equal(np.isinf(modelled.input_change), np.isinf(real.input_change))
        tiles_of.done(step, tiles, computed)
