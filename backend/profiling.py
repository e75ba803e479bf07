"""Measuring a model on this machine: the profile that predictors are fitted on.

The executor that serves requests is the one that is measured, so its own overhead is in the figures. Compositions
are measured in rounds, not one after the other, so that a slow spell of the machine spreads over all of them; every
row is one launch of a round, or with a patch cache one step of it, because a step's time depends on what it reuses.
"""

from __future__ import annotations

import gc
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pandas as pd
import torch
from PIL import Image

from backend.devices.servers import DeviceServers
from backend.executor import Executor
from backend.inputs import image_use, takes_mask
from backend.kernels.graphs import TRIALS
from backend.load_seconds import load_rates
from backend.loading import geometry_of_pipeline, load_pipeline
from backend.machine import hardware_name
from backend.measured import Measured
from backend.ranks.workers import Devices
from backend.tiled.execution import Tiling
from policies.caching import CachingPolicy
from policies.contract import Outcome
from policies.tiling.recipe import TilingRule
from predictors.parallel import BANDS, Parallel
from predictors.profile import LOADS, Profile, metadata_of
from traces.composition import Composition, composition_of, format_composition
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.references import REFERENCES
from traces.request import Request, Size
from traces.stages import ORDINARY, STAGES, ordinary
from traces.streams import stream
from traces.strength import IMAGE_TO_IMAGE

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
STEPS_A_ROW = 4
_SKETCHED, _REFINED = 5, 0.8
"""Denoising steps of a tiled request that is measured, and the share of them that is refined: `STEPS_A_ROW` of them."""
_LOADS = 3
"""Measurements of a load, at most."""
CACHED_STEPS = 12
"""Denoising steps of a request that is measured with a cache: each is a row, with the share that was computed."""


class ProfileRow(NamedTuple):
    """One measurement of a batch."""

    stage: str
    composition: str
    steps: int
    repeat: int
    seconds: float
    computed: float
    cached: bool
    devices: int = 1
    parallel: str = ""


def degrees_up_to(devices: int) -> list[int]:
    """The degrees that are measured of a replica of so many devices: doubling, and all of them."""
    doubled = [2**power for power in range(1, devices.bit_length()) if 2**power < devices]
    return [*doubled, devices] if devices > 1 else []


def measure_profile(
    model: str,
    device: str = "cpu",
    dtype: str = "float32",
    sizes: Sequence[Size] | None = None,
    max_batch: int = 8,
    repeats: int = 5,
    minutes: float = 10.0,
    threads: int | None = None,
    mode: str = "whole",
    mixes: int = 12,
    caching: CachingPolicy | None = None,
    cache_patch: int = 32,
    patch_floor: int | None = None,
    canvases: Sequence[Size] = (),
    tile: tuple[int, int] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    kernels: str = "auto",
    kept: Measured | None = None,
    devices: int = 1,
) -> Profile:
    """Measure loading, and encode, denoising step and decode of batches.

    Args:
        model: an embedded model's name or a diffusers folder.
        sizes: (height, width, frames); by default a spread of sizes around the model's native one.
        max_batch: largest number of images in a batch.
        repeats: rounds over all compositions.
        minutes: stop after this long, but never before the first round is whole.
        threads: CPU threads; None leaves torch's own choice.
        mode: the executor's; ``patched`` and ``packed`` are measured on mixes of sizes too.
        mixes: how many of these, drawn at random.
        caching: every batch is measured with this cache too, step by step.
        cache_patch: see `Executor`.
        patch_floor: see `Executor`.
        canvases: sizes of tiled requests, whose upscale, refinement steps and decode are measured, on one device; the
            sizes of their sketches and tiles are added to ``sizes``.
        tile: (height, width) in pixels of the largest tile; None: the native size.
        seed: seed of the drawn mixes.
        progress: called with (batches measured, batches planned).
        kernels: see `Executor`.
        kept: what was measured before, with the same arguments, and is not measured again.
        devices: denoising and decoding are measured on up to so many, too, which the model is loaded on.

    Raises:
        BadInput: unknown model or device, a size the model cannot make, or an executor that does not fit the model.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    kept = Measured() if kept is None else kept  # which is false while it is empty
    make = partial(Executor, mode=mode, patch_floor=patch_floor, kernels=kernels)
    servers = DeviceServers(Devices(devices, model, dtype), device.partition(":")[0]) if devices > 1 else None
    executor = make(load_pipeline(model, device if servers is None else "cpu", dtype), servers=servers)
    cached = None
    if caching is not None:
        pipeline = load_pipeline(model, device, dtype)
        cached = Executor(pipeline, mode, caching, cache_patch=cache_patch, patch_floor=patch_floor, kernels=kernels)
    geometry = geometry_of_pipeline(executor.pipeline, Path(model).name)
    shown = image_use(executor.pipeline) == "required"
    rule = TilingRule(geometry, refine=_REFINED, tile=tile, image="condition" if shown else "refine")
    for size in canvases:
        if not rule.applies(size):
            raise BadInput(
                f"canvas {format_composition(((size, 1),))} is not larger than the native size {geometry.native_size}"
            )
    sizes = sorted({*(sizes or default_sizes(geometry)), *_of_tiles(rule, canvases)})
    sizes = _with_references(sizes, type(executor.pipeline).__name__, geometry)
    for size in sizes:
        geometry.check(_request(size, 0))
    plan: list[Composition] = [((size, n),) for size in sizes for n in BATCHES if n <= max_batch]
    if mode != "whole":
        plan += _mixes(sizes, max_batch, mixes, stream(seed, "profile/mixes"))
    tiled = None
    if canvases:
        tiled = Executor(load_pipeline(model, device, dtype), tiling=Tiling(rule), kernels=kernels)
    try:
        profile = measure(
            executor=executor,
            geometry=geometry,
            plan=plan,
            dtype=dtype,
            repeats=repeats,
            minutes=minutes,
            cached=cached,
            tiled=tiled,
            canvases=canvases,
            progress=progress,
            kept=kept,
        )
    finally:
        executor.close()
    del executor, cached, tiled
    gc.collect()  # a load finds the device free
    take = partial(load_rates, model, make, device, dtype, min(repeats, _LOADS))
    loads = kept.once("loads", kept.elapsed_s, lambda: take().text)
    return Profile(profile.frame, {**profile.metadata, LOADS: loads})


def measure(
    executor: Executor,
    geometry: ModelGeometry,
    plan: Sequence[Composition],
    dtype: str = "float32",
    repeats: int = 5,
    minutes: float = 10.0,
    cached: Executor | None = None,
    tiled: Executor | None = None,
    canvases: Sequence[Size] = (),
    progress: Callable[[int, int], None] | None = None,
    kept: Measured | None = None,
) -> Profile:
    """Measure batches on executors whose pipelines are in memory; nothing else may be resident there.

    Args:
        executor: takes each batch through all stages, and through those that are divided on several devices, too, if it
            has them.
        geometry: geometry of its model, whose name the profile gets.
        plan: the batches; sizes that the model can make.
        dtype: dtype of its weights, for the record.
        repeats: rounds over the plan.
        minutes: stop after this long, but never before the first round is whole.
        cached: a second executor of the model, with a cache, which takes each batch through its steps one by one.
        tiled: a third one, which tiles ``canvases``.
        canvases: sizes of tiled requests.
        progress: called with (batches measured, batches planned).
        kept: what was measured before, and is not measured again.

    Raises:
        BadInput: a batch cannot be made.
    """
    with _pictures([each for each in (executor, cached, tiled) if each is not None], plan, canvases):
        kept = Measured() if kept is None else kept  # which is false while it is empty
        executors = [executor] if cached is None else [executor, cached]
        sizes = sorted({size for composition in plan for size, _ in composition})
        weights = None if cached is None else kept.once("weights", 0.0, partial(block_weights, cached, sizes))
        started = time.perf_counter() - kept.elapsed_s
        for each in executors:
            _warm_up(each, plan)
        guided = geometry.guidance == "scale"
        degrees = degrees_up_to(executor.devices) if executor.divided is not None else []
        rows: list[ProfileRow] = []
        for repeat in range(repeats):
            for count, composition in enumerate(plan):
                if repeat and time.perf_counter() - started > 60 * minutes:
                    return _profile(rows, executor, cached, geometry, dtype, weights)
                for number, each in enumerate(executors):
                    key = f"{repeat} {number} {format_composition(composition)}"
                    take = partial(_measure, each, composition, repeat, weights)
                    rows += [ProfileRow(*row) for row in kept.once(key, time.perf_counter() - started, take)]
                for degree in degrees:
                    key = f"{repeat} on {degree} {format_composition(composition)}"
                    take = partial(_measure_divided, executor, composition, repeat, guided, degree)
                    rows += [ProfileRow(*row) for row in kept.once(key, time.perf_counter() - started, take)]
                if progress is not None:
                    progress(repeat * len(plan) + count + 1, repeats * len(plan))
            for size in canvases:
                assert tiled is not None
                key, take = (
                    f"{repeat} tiled {format_composition(((size, 1),))}",
                    partial(_measure_tiled, tiled, size, repeat),
                )
                rows += [ProfileRow(*row) for row in kept.once(key, time.perf_counter() - started, take)]
        return _profile(rows, executor, cached, geometry, dtype, weights)


@contextmanager
def _pictures(executors: Sequence[Executor], plan: Sequence[Composition], canvases: Sequence[Size]) -> Iterator[None]:
    """While the block runs, pictures of every size that is measured lie where pipelines that need one find them."""
    with TemporaryDirectory() as folder:
        for each in executors:
            if image_use(each.pipeline) != "none":
                each.images = Path(folder)
                for size in [size for composition in plan for size, _ in composition] + list(canvases):
                    _picture(Path(folder), size)
                    Image.new("L", _sides(size)[::-1], 255).save(Path(folder) / _mask_name(size))
        yield


def _with_references(sizes: Sequence[Size], pipeline: str, geometry: ModelGeometry) -> list[Size]:
    """The sizes to measure of a pipeline: of one that edits, with a reference picture of the same size.

    One that can do without is measured without, but for the largest size, which is measured with one, too.
    """
    reference = REFERENCES.get(pipeline)
    if reference is None:
        return list(sizes)
    seen: list[Size] = [(*size, reference.pixels([_sides((*size, 0))], geometry.size_multiple)) for size in sizes]
    return seen if reference.needed else [*sizes, max(seen, key=geometry.tokens)]


def _of_tiles(rule: TilingRule, canvases: Sequence[Size]) -> set[Size]:
    """The sizes of the sketches of tiled requests, and of their tiles while the grid has not moved."""
    factor, found = rule.geometry.latent_factor, set()
    for size in canvases:
        shape = rule.shape(size, _SKETCHED)
        windows = [tile.window for tile in shape.grid.tiles()]
        found |= {shape.sketch, *((w.height * factor, w.width * factor, size[2]) for w in windows)}
    return found


def _measure_tiled(executor: Executor, size: Size, repeat: int) -> list[ProfileRow]:
    """Rows of the stages that only a tiled request has, and of decoding its canvas."""
    request, composition, rows = _request(size, 0, _SKETCHED, executor), ((size, 1),), []
    for stage, steps in executor.recipe(request):
        started = time.perf_counter()
        outcome = executor.execute(stage, [request], steps)
        seconds = time.perf_counter() - started
        _must(outcome, format_composition(composition))
        if STAGES[stage].measured and STAGES[stage].canvas != "sketch":
            rows.append(
                ProfileRow(
                    stage=stage,
                    composition=format_composition(composition),
                    steps=steps,
                    repeat=repeat,
                    seconds=seconds,
                    computed=1.0,
                    cached=False,
                )
            )
    return rows


def block_weights(executor: Executor, sizes: Sequence[Size]) -> list[float]:
    """The share of each block of a cached executor's model in the time of all of them, over one image of each size."""
    assert executor.cache is not None
    blocks = executor.cache.blocks
    seconds, started = [0.0] * len(blocks), [0.0]

    def starting(*_: Any) -> None:
        executor.wait()
        started[0] = time.perf_counter()

    def ending(index: int) -> Callable[..., None]:
        def note(*_: Any) -> None:
            executor.wait()
            seconds[index] += time.perf_counter() - started[0]

        return note

    for size in sizes:
        request = _request(size, 0, executor=executor)
        _must(executor.execute("encode", [request]), format_composition(((size, 1),)))
        hooks = [block.register_forward_pre_hook(starting) for block in blocks]
        hooks += [block.register_forward_hook(ending(index)) for index, block in enumerate(blocks)]
        # the first step of a request computes everything
        _must(executor.execute("denoise", [request], 1), format_composition(((size, 1),)))
        for hook in hooks:
            hook.remove()
        executor.keep_only(set())
    return [value / sum(seconds) for value in seconds]


def _mixes(sizes: Sequence[Size], max_batch: int, count: int, rng: np.random.Generator) -> list[Composition]:
    """Different random batches of at least two sizes."""
    if len(sizes) < 2 or max_batch < 2:
        return []
    found: dict[Composition, None] = {}
    for _ in range(20 * count):
        images = rng.integers(2, max_batch + 1)
        composition = composition_of((sizes[i], 1) for i in rng.integers(0, len(sizes), images))
        if len(composition) > 1:
            found[composition] = None
        if len(found) == count:
            break
    return list(found)


def default_sizes(geometry: ModelGeometry) -> list[Size]:
    """Half, three quarters, once and one and a half times the native side, square and not; clips are short."""
    multiple = geometry.size_multiple
    frames = 1 if geometry.frame_factor == 1 else 1 + 2 * geometry.frame_factor

    def fit(pixels: float) -> int:
        return max(multiple, round(pixels / multiple) * multiple)

    height, width = geometry.native_size
    scales = ((0.5, 0.5), (0.75, 0.75), (0.75, 1.0), (1.0, 1.0), (1.0, 1.5), (1.5, 1.5))
    return sorted({(fit(height * h), fit(width * w), frames) for h, w in scales})


def _request(size: Size, index: int, steps: int = STEPS_A_ROW, executor: Executor | None = None) -> Request:
    """A request to measure; it starts from a picture where the executor's pipeline does, and makes all of its steps."""
    height, width, frames, *seen = size
    image = mask = strength = None
    if executor is not None and (seen or image_use(executor.pipeline) == "required"):
        image = _picture_name(size)
        mask = _mask_name(size) if takes_mask(executor.pipeline) else None
        strength = 1.0 if type(executor.pipeline).__name__ in IMAGE_TO_IMAGE else None
    return Request(
        request_id=f"profile-{index}",
        arrival_s=0.0,
        height=height,
        width=width,
        steps=steps,
        frames=frames,
        seed=index,
        image=image or "",
        mask=mask or "",
        strength=strength,
        reference_pixels=sum(seen),
    )


def _mask_name(size: Size) -> str:
    return f"mask-{_picture_name(size)}"


def _sides(size: Size) -> tuple[int, int]:
    """Height and width of the picture that a size is measured with; a reference is never below 64, as FLUX.2 has it."""
    least = 64 if len(size) > 3 else 0
    return max(least, size[0]), max(least, size[1])


def _picture_name(size: Size) -> str:
    height, width = _sides(size)
    return f"{height}x{width}.png"


def _picture(folder: Path, size: Size) -> None:
    """A picture of a size, for models that make everything from one: a plain slope of colours."""
    height, width = _sides(size)
    slope = np.linspace(0, 255, height)[:, None, None] * np.linspace(0.2, 1, width)[None, :, None]
    Image.fromarray((slope * np.array([1.0, 0.6, 0.3])).astype(np.uint8)).save(folder / _picture_name(size))


def _measure(
    executor: Executor, composition: Composition, repeat: int, weights: list[float] | None
) -> list[ProfileRow]:
    """Rows of one batch taken through all stages; with a cache the denoising steps alone, one by one."""
    cached = executor.cache is not None
    every_size = [size for size, n in composition for _ in range(n)]
    requests = [
        _request(size, i, CACHED_STEPS if cached else STEPS_A_ROW, executor) for i, size in enumerate(every_size)
    ]
    rows = []
    recipe = [("encode", 1), *[("denoise", 1)] * CACHED_STEPS] if cached else ordinary(requests[0])
    for stage, steps in recipe:
        started = time.perf_counter()
        outcome = executor.execute(stage, requests, steps)
        seconds = time.perf_counter() - started
        _must(outcome, format_composition(composition))
        if not cached or STAGES[stage].cache:
            computed = _computed_share(executor, weights) if cached else 1.0
            rows.append(
                ProfileRow(
                    stage=stage,
                    composition=format_composition(composition),
                    steps=steps,
                    repeat=repeat,
                    seconds=seconds,
                    computed=computed,
                    cached=cached,
                )
            )
    executor.keep_only(set())
    return rows


def _measure_divided(
    executor: Executor, composition: Composition, repeat: int, guided: bool, degree: int
) -> list[ProfileRow]:
    """Rows of denoising and decoding on so many devices; none of what was not divided over all of them."""
    images = sum(n for _, n in composition)
    divided = executor.divided
    if divided is None:
        return []
    denoises = divided.most(images * (1 + guided)) >= degree
    every_size = [size for size, n in composition for _ in range(n)]
    requests = [_request(size, i, STEPS_A_ROW, executor) for i, size in enumerate(every_size)]
    text, spelled = format_composition(composition), str(Parallel.of(degree, images, guided))
    rows = []
    for stage, steps in ordinary(requests[0]):
        row, alone = STAGES[stage], sum(divided.decoding.alone.values())
        wanted = row.divides and (denoises or not row.sampler)
        started = time.perf_counter()
        _must(executor.execute(stage, requests, steps, devices=range(degree if wanted else 1)), text)
        seconds = time.perf_counter() - started
        if wanted and sum(divided.decoding.alone.values()) == alone:
            rows.append(
                ProfileRow(
                    stage=stage,
                    composition=text,
                    steps=steps,
                    repeat=repeat,
                    seconds=seconds,
                    computed=1.0,
                    cached=False,
                    devices=degree,
                    parallel=spelled if row.sampler else BANDS,
                )
            )
    executor.keep_only(set())
    return rows


def _warm_up(executor: Executor, plan: Sequence[Composition]) -> None:
    """Meet every shape of the plan before it counts: a first launch chooses and compiles kernels, which takes longer.

    Where forwards are recorded, as often as it takes until that is done.
    """
    steps = TRIALS + 1 if executor.kernels.graphs else 2
    for composition in plan:
        requests = [
            _request(size, i, steps, executor) for i, size in enumerate(s for s, n in composition for _ in range(n))
        ]
        for stage in ORDINARY:
            _must(
                executor.execute(stage, requests, steps if STAGES[stage].sampler else 1),
                format_composition(composition),
            )
        executor.keep_only(set())
        for degree in degrees_up_to(executor.devices if executor.divided is not None else 1):
            _must(executor.execute("encode", requests), format_composition(composition))
            _must(executor.execute("denoise", requests, steps, devices=range(degree)), format_composition(composition))
            _must(executor.execute("decode", requests, devices=range(degree)), format_composition(composition))
            executor.keep_only(set())


def _must(outcome: Outcome, composition: str) -> None:
    if outcome.failed:
        raise BadInput(f"cannot measure {composition}: {next(iter(outcome.failed.values()))}")


def _computed_share(executor: Executor, weights: list[float] | None) -> float:
    """The share of the last step's block time that was computed, not below a hundredth."""
    assert executor.cache is not None
    computed, reused = executor.cache.by_block.T
    shares = computed / np.maximum(1, computed + reused)
    return max(0.01, round(float(np.dot(shares, weights or np.full(len(shares), 1 / len(shares)))), 3))


def _profile(
    rows: list[ProfileRow],
    executor: Executor,
    cached: Executor | None,
    geometry: ModelGeometry,
    dtype: str,
    weights: list[float] | None,
) -> Profile:
    frame = pd.DataFrame(rows, columns=list(ProfileRow._fields))
    frame = frame.assign(
        hardware=hardware_name(str(executor.computes_on)),
        software=f"torch {torch.__version__}, diffusers {diffusers.__version__}, {dtype}",
        model=geometry.name,
        executor=executor.mode,
        guided=geometry.guidance == "scale",
    )
    metadata = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "source": "tilecast profile",
        "pipeline": type(executor.pipeline).__name__,
        "geometry": json.dumps(asdict(geometry), sort_keys=True),
        **driver_facts(executor.computes_on),
        **({} if cached is None else cached.conditions),
        **executor.conditions,
        **metadata_of(executor.notes),
    }
    if weights is not None:
        metadata["block_weights"] = json.dumps([round(weight, 4) for weight in weights])
    return Profile.from_frame(frame, metadata)


def driver_facts(device: torch.device) -> dict[str, str]:
    """What a CUDA device's figures depend on beside the device: ``cuda`` (torch's) and ``driver``, where known."""
    if device.type != "cuda":
        return {}
    found = {"cuda": torch.version.cuda}
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        lines = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split()
        found["driver"] = lines[0] if lines else None
    except (OSError, subprocess.SubprocessError):
        pass
    return {name: value for name, value in found.items() if value}
