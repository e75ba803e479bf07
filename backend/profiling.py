"""Measuring a model on this machine: the profile that predictors are fitted on.

The executor that serves requests is the one that is measured, so its own overhead is in the figures. Compositions
are measured in rounds, not one after the other, so that a slow spell of the machine spreads over all of them; every
row is one launch of a round.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import diffusers
import pandas as pd
import torch

from backend.executor import Executor
from backend.loading import geometry_of_pipeline, load_pipeline
from predictors.profile import Profile
from traces.composition import composition_of, spell
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.request import Request, Size

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
STEPS_A_ROW = 4


def measure_profile(
    model: str,
    device: str = "cpu",
    dtype: str = "float32",
    sizes: Sequence[Size] | None = None,
    max_batch: int = 8,
    repeats: int = 5,
    minutes: float = 10.0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Measure encode, denoising step and decode for equal-size batches.

    Args:
        model: an embedded model's name or a diffusers folder.
        sizes: (height, width, frames); by default a spread of sizes around the model's native one.
        max_batch: largest number of images in a batch.
        repeats: rounds over all compositions.
        minutes: stop after this long, but never before the first round is whole.
        threads: CPU threads; None leaves torch's own choice.
        progress: called with (batches measured, batches planned).

    Raises:
        BadInput: unknown model or device, or a size the model cannot make.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    executor = Executor(load_pipeline(model, device, dtype))
    geometry = geometry_of_pipeline(executor.pipeline, Path(model).name)
    sizes = list(sizes or default_sizes(geometry))
    batches = [n for n in BATCHES if n <= max_batch]
    plan = [(size, n) for size in sizes for n in batches]
    for size in sizes:
        geometry.check(_request(size, 0))
    rows: list[tuple[str, str, int, int, float]] = []
    started = time.perf_counter()
    for size in sizes:
        _measure(executor, size, 1)  # warm-up
    for repeat in range(repeats):
        for count, (size, n) in enumerate(plan):
            if repeat and time.perf_counter() - started > 60 * minutes:
                return _profile(rows, executor, geometry, device, dtype)
            composition = spell(composition_of([(size, n)]))
            for stage, steps, seconds in _measure(executor, size, n):
                rows.append((stage, composition, steps, repeat, seconds))
            if progress is not None:
                progress(repeat * len(plan) + count + 1, repeats * len(plan))
    return _profile(rows, executor, geometry, device, dtype)


def default_sizes(geometry: ModelGeometry) -> list[Size]:
    """Half, three quarters, once and one and a half times the native side, square and not."""
    multiple = geometry.size_multiple

    def fit(pixels: float) -> int:
        return max(multiple, round(pixels / multiple) * multiple)

    height, width = geometry.native_size
    scales = ((0.5, 0.5), (0.75, 0.75), (0.75, 1.0), (1.0, 1.0), (1.0, 1.5), (1.5, 1.5))
    return sorted({(fit(height * h), fit(width * w), 1) for h, w in scales})


def _request(size: Size, index: int) -> Request:
    height, width, frames = size
    return Request(f"profile-{index}", 0.0, height, width, STEPS_A_ROW, frames, seed=index)


def _measure(executor: Executor, size: Size, batch: int) -> list[tuple[str, int, float]]:
    """(stage, steps, seconds) of one batch taken through all stages."""
    requests = [_request(size, i) for i in range(batch)]
    rows = []
    for stage, steps in (("encode", 1), ("denoise", STEPS_A_ROW), ("decode", 1)):
        started = time.perf_counter()
        outcome = executor.execute(stage, requests, steps)
        seconds = time.perf_counter() - started
        if outcome.failed:
            executor.keep_only(set())
            raise BadInput(f"cannot measure {batch} x {size}: {next(iter(outcome.failed.values()))}")
        rows.append((stage, steps, seconds))
    return rows


def _profile(
    rows: list[tuple[str, str, int, int, float]],
    executor: Executor,
    geometry: ModelGeometry,
    device: str,
    dtype: str,
) -> Profile:
    frame = pd.DataFrame(rows, columns=["stage", "composition", "steps", "repeat", "seconds"])
    frame = frame.assign(
        hardware=hardware_name(device),
        software=f"torch {torch.__version__}, diffusers {diffusers.__version__}, {dtype}",
        model=geometry.name,
        executor="whole",
        guided=True,
    )
    metadata = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "source": "tilecast profile",
        "pipeline": type(executor.pipeline).__name__,
        "geometry": json.dumps(asdict(geometry), sort_keys=True),
    }
    return Profile(frame, metadata)


def hardware_name(device: str) -> str:
    """What a device is called in profiles and run logs."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
