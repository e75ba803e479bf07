"""Finding the threshold of a tile cache, and recording what such a cache sees."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from policies.caching import FixedInterval, Threshold
from predictors.tile_recording import TileRecording
from predictors.tile_reuse import TileReuse
from tests.cli.run_command import refused, run
from tilecast.studies.calibration import CacheTradeOff, best_of, calibrate, threshold_of, with_threshold
from traces.errors import BadInput


def falls_with(threshold: float) -> CacheTradeOff:
    """60 dB up to a threshold of 0.01, then 10 dB less with every factor of ten; reuse grows until 10."""
    psnr = min(60.0, 40.0 - 10 * math.log10(threshold / 0.1)) if threshold >= 0.01 else 60.0
    computed = 1.0 if threshold < 0.01 else max(0.25, 0.5 - 0.125 * math.log10(threshold / 0.1))
    return CacheTradeOff(threshold, computed, 1 / computed, psnr, psnr - 2, 0.9, (psnr,))


@pytest.mark.parametrize("first", [0.002, 0.1, 0.7, 20.0])
def test_the_largest_threshold_that_keeps_the_target_is_found(first: float) -> None:
    points = list(calibrate(falls_with, 35.0, first, bisections=8))
    best = best_of(points, 35.0)
    assert best is not None
    assert best.threshold == pytest.approx(0.1 * 10**0.5, rel=0.01)
    assert best.threshold <= 0.1 * 10**0.5
    assert len(points) < 24


def test_it_ends_where_more_reuse_is_not_to_be_had() -> None:
    points = list(calibrate(falls_with, 5.0, 1.0))
    assert [point.threshold for point in points] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    best = best_of(points, 5.0)
    assert best is not None
    assert best.computed == 0.25


def test_it_ends_where_nothing_keeps_the_target() -> None:
    points = list(calibrate(falls_with, 61.0, 0.1))
    assert best_of(points, 61.0) is None
    assert points[-1].threshold < 1e-4
    assert len(points) < 24


def test_another_threshold_is_another_policy_with_all_else_as_it_was() -> None:
    policy = Threshold(0.5, warmup=3, max_reuse=7)
    other = with_threshold(policy, 0.25)
    assert isinstance(other, Threshold)
    assert (other.threshold, other.warmup, other.max_reuse) == (0.25, 3, 7)
    assert (threshold_of(policy), threshold_of(FixedInterval())) == (0.5, None)
    with pytest.raises(BadInput, match="the caching policy: threshold is -1"):
        with_threshold(policy, -1.0)


def test_a_plateau_is_no_end() -> None:
    def nothing_at_first(threshold: float) -> CacheTradeOff:
        return replace(falls_with(threshold / 100), threshold=threshold)

    best = best_of(list(calibrate(nothing_at_first, 35.0, 0.05, 8)), 35.0)
    assert best is not None
    assert best.threshold == pytest.approx(10 * 10**0.5, rel=0.01)


SMALL = ("--steps", 4, "--requests", 1, "--tile", "40x40", "--threads", 1)


def on(model_folder: Path) -> tuple[object, ...]:
    return ("--model", model_folder, *SMALL)


def test_record_tiles_writes_what_the_simulator_reads(model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiles.parquet"
    printed = run("cache", "record-tiles", *on(model_folder), "--sizes", "80x80", "--max-age", 2, "-o", path)
    recording = TileRecording.load(path)
    assert f"{len(recording.frame)} rows of 1 requests, 4 refinement steps" in printed
    assert (recording.model, recording.latent_factor) == (model_folder.name, 2)
    assert recording.metadata["mode"] == "wrap"
    assert TileReuse.fit(recording).donors[0].size == (80, 80, 1)


def test_calibrate_prints_the_curve_and_writes_the_threshold(model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    options = ("--size", "80x80", "--policy", "threshold:warmup=1,threshold=1.2", "--psnr", 58)
    printed = run("cache", "calibrate", *on(model_folder), *options, "--refine", 1.0, "--bisections", 1, "-o", path)
    report = json.loads(path.read_text())
    assert f"threshold {report['threshold']:.3g} keeps" in printed
    best = max((point for point in report["points"] if point["psnr_db"] >= 58), key=lambda point: -point["computed"])
    assert best["threshold"] == report["threshold"]
    assert report["model"] == model_folder.name
    thresholds = [point["threshold"] for point in report["points"]]
    assert thresholds == sorted(thresholds)
    assert len({point["computed"] for point in report["points"]}) > 1
    assert all(point["computed"] == 1 or point["psnr_db"] < 60 for point in report["points"])


def interrupts(after: int) -> Callable[..., CacheTradeOff]:
    calls = []

    def point(self: object, policy: object, reuse: str, again: bool) -> CacheTradeOff:
        calls.append(policy)
        if len(calls) > after:
            raise KeyboardInterrupt
        return falls_with(policy.threshold)  # type: ignore[attr-defined]

    return point


def test_an_interrupted_calibration_shows_what_it_has_and_writes_nothing(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.tile_cache import calibrate as command

    monkeypatch.setattr("tilecast.studies.calibration.Yardstick.point", interrupts(2))
    with pytest.raises(typer.Exit) as left:
        command(str(model_folder), "80x80", output=tmp_path / "r.json", requests=1, steps=3, tile="40x40")
    assert left.value.exit_code == 130
    assert "interrupted; nothing was written" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--size", "64x64,80x80"), "expected one size"),
        (("--size", "64x64"), "is not tiled"),
        (("--size", "80x80", "--policy", "interval"), "has no threshold to calibrate"),
        (("--size", "80x80", "--policy", "region-awear"), "did you mean 'region-aware'?"),
        (("--size", "80x80", "--reuse", "both"), "expected output or residual"),
        (("--size", "80x80", "--refine", "2"), "--refine is 2.0"),
        (("--size", "80x80", "--tile", "big"), "--tile is 'big', expected heightxwidth in pixels"),
    ],
)
def test_wrong_calibrations_are_refused(model_folder: Path, options: tuple[str, ...], words: str) -> None:
    assert words in refused("cache", "calibrate", "--model", model_folder, *options)
