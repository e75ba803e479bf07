"""``tilecast cache record-tiles`` and ``calibrate``: what a cache of tiles sees, saves and costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Device, Dtype, MaxAge, Prompts, RecordingOutput, Threads, prompt_lines
from reports.console import new_console, say
from traces.errors import BadInput
from traces.limits import GUIDANCE, SEED32, SHARE, STEPS, Range
from traces.marks import OutputKind
from traces.request import Size

if TYPE_CHECKING:
    from backend.tiled.refiner import Refiner
    from tilecast.studies.calibration import CacheTradeOff
    from traces.request import Request

CALIBRATION = OutputKind("calibration")

Model = Annotated[str, typer.Option(help="Run this model, a known one or a diffusers folder.")]
SketchSteps = Annotated[
    int, Range(3, STEPS.most, "steps", whole=True), typer.Option(help="Give each sketch this many denoising steps.")
]
FirstSeed = Annotated[int, SEED32, typer.Option(help="Draw the first request's noise from this seed.")]
Refine = Annotated[float, SHARE, typer.Option(help="Repeat this share of the denoising steps in refinement.")]
Mode = Annotated[
    str, typer.Option(help="Move the tile grid so that it wraps around the canvas (wrap) or stays inside (clamp).")
]
Tile = Annotated[
    str | None, typer.Option(help="Use tiles of at most this size, like 512x512; by default the native size.")
]
Overlap = Annotated[
    int,
    Range(0, 65_536, "pixels", whole=True),
    typer.Option(help="Let a tile see this many pixels beyond what it draws."),
]
Stand = Annotated[int, STEPS, typer.Option(help="Let the grid stand for this many steps before it moves.")]
Guidance = Annotated[float, GUIDANCE, typer.Option(help="Use this guidance scale.")]


def record_tiles(
    model: Model,
    output: RecordingOutput,
    sizes: Annotated[str, typer.Option(help="Run requests of these sizes in turn, like 1024x2048 or 96x96x17.")],
    requests: Annotated[
        int, Range(1, 100_000, "requests", whole=True), typer.Option(help="Run this many requests.")
    ] = 8,
    steps: SketchSteps = 20,
    max_age: MaxAge = 4,
    refine: Refine = 0.9,
    mode: Mode = "wrap",
    tile: Tile = None,
    overlap: Overlap = 0,
    stand: Stand = 1,
    prompts: Prompts = None,
    seed: FirstSeed = 0,
    guidance: Guidance = 5.0,
    device: Device = "cpu",
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Refine large requests with every tile computed, and record what reusing tiles would have cost."""
    from predictors.tile_recording import TILE_RECORDING, TileRecording
    from traces.output import check_file
    from traces.sizes import parse_size_list

    check_file(output, TILE_RECORDING)
    wanted = parse_size_list(sizes, "--sizes")

    lines = prompt_lines(prompts)
    refiner = _refiner(
        model=model,
        device=device,
        dtype=dtype,
        threads=threads,
        refine=refine,
        mode=mode,
        tile=tile,
        overlap=overlap,
        stand=stand,
    )
    from backend.tiled.record import record_tiles
    from reports.progress import bar

    with bar("recording", requests) as progress:
        frame = record_tiles(
            refiner,
            wanted,
            requests,
            steps=steps,
            max_age=max_age,
            seed=seed,
            prompts=lines,
            guidance_scale=guidance,
            progress=lambda done, _: progress(done),
        )
    tiling = {"latent_factor": str(refiner.rule.geometry.latent_factor), "mode": mode, "stand": str(stand)}
    recording = TileRecording(frame, {**tiling, **facts_of(model, device)})
    recording.save(output)
    say(f"{output}: {len(frame)} rows of {requests} requests, {recording.steps} refinement steps")


def calibrate(
    model: Model,
    size: Annotated[str, typer.Option(help="Refine requests of this size, like 1024x2048 or 96x96x17.")],
    psnr: Annotated[
        float, Range(0, 1000, "dB"), typer.Option(help="Keep this mean PSNR to the uncached result, dB.")
    ] = 30.0,
    policy: Annotated[
        str,
        typer.Option(
            help="Calibrate this caching policy, one with a threshold, like region-aware or threshold:max_reuse=3."
        ),
    ] = "region-aware",
    reuse: Annotated[str, typer.Option(help="Let a reused tile hand on its output or its residual.")] = "output",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the figures to this file, too, as JSON.")
    ] = None,
    requests: Annotated[
        int, Range(1, 100_000, "requests", whole=True), typer.Option(help="Compare this many requests.")
    ] = 4,
    steps: SketchSteps = 20,
    bisections: Annotated[
        int, Range(0, 60, whole=True), typer.Option(help="Halve the range of the threshold this many times.")
    ] = 5,
    refine: Refine = 0.9,
    mode: Mode = "wrap",
    tile: Tile = None,
    overlap: Overlap = 0,
    stand: Stand = 1,
    prompts: Prompts = None,
    seed: FirstSeed = 0,
    guidance: Guidance = 5.0,
    device: Device = "cpu",
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Find the threshold of a tile cache that keeps a PSNR, and the curve of speed against fidelity."""
    from tilecast.caching import parse_caching_policy
    from tilecast.studies.calibration import Yardstick, best_of, threshold_of, with_threshold
    from tilecast.studies.calibration import calibrate as close_in
    from traces.output import check_file
    from traces.sizes import parse_size_list

    if reuse not in ("output", "residual"):
        raise BadInput(f"--reuse {reuse!r}: expected output or residual")
    if output is not None:
        check_file(output, CALIBRATION)
    wanted = parse_size_list(size, "--size")
    if len(wanted) > 1:
        raise BadInput(f"--size {size!r}: expected one size")
    caching = parse_caching_policy(policy)
    first = threshold_of(caching)
    if first is None:
        raise BadInput(f"--policy {policy!r} has no threshold to calibrate; region-aware and threshold have")

    lines = prompt_lines(prompts)
    refiner = _refiner(
        model=model,
        device=device,
        dtype=dtype,
        threads=threads,
        refine=refine,
        mode=mode,
        tile=tile,
        overlap=overlap,
        stand=stand,
    )
    asked = _requests(wanted[0], lines, requests, steps, seed, guidance)

    from reports.progress import bar

    def measured(threshold: float) -> CacheTradeOff:
        return yardstick.point(with_threshold(caching, threshold), reuse, again=True)

    points: list[CacheTradeOff] = []
    interrupted = False
    try:
        with bar("uncached", requests) as progress:
            yardstick = Yardstick(refiner, asked, progress)
        with bar("thresholds", 0) as progress:
            for point in close_in(measured, psnr, first, bisections):
                points.append(point)
                progress(len(points))
    except KeyboardInterrupt:
        interrupted = True
    best = best_of(points, psnr)
    title = f"{policy}, {reuse} reused: {size} by {Path(model).name}, {requests} requests against uncached ones"
    new_console().print(_curve(points, best, title))
    if interrupted:
        say("interrupted; nothing was written")
        raise typer.Exit(130)
    if best is None:
        raise BadInput(f"no threshold that was tried keeps {psnr:g} dB; the best gives {_most(points):.1f} dB")
    say(f"threshold {best.threshold:.3g} keeps {best.psnr_db:.1f} dB and computes {best.computed:.0%} of the tiles")
    if output is not None:
        found = {"threshold": best.threshold, "policy": policy, "reuse": reuse, "size": list(wanted[0])}
        shape = {"steps": steps, "refine": refine, "mode": mode, "tile": tile, "overlap": overlap, "stand": stand}
        curve = [point.to_json() for point in sorted(points, key=lambda point: point.threshold)]
        asked_for = {"target_psnr_db": psnr, "requests": requests, "seed": seed, "guidance": guidance, **shape}
        _write(output, {**found, **asked_for, **facts_of(model, device), "points": curve})


def _refiner(
    model: str,
    device: str,
    dtype: str | None,
    threads: int | None,
    refine: float,
    mode: str,
    tile: str | None,
    overlap: int,
    stand: int,
) -> Refiner:
    from tilecast.sections import usual_dtype
    from traces.sizes import parse_tile

    dtype = usual_dtype(device) if dtype is None else dtype
    sides = None if tile is None else parse_tile(tile, "--tile")
    try:
        from backend.machine import use_threads
        from backend.tiled.refiner import Refiner
    except ImportError as error:
        raise BadInput(f"this needs {error.name}; install tilecast[backend]") from error
    use_threads(threads)
    return Refiner(model, device, dtype, refine=refine, mode=mode, tile=sides, overlap=overlap, stand=stand)


def _requests(size: Size, prompts: list[str], count: int, steps: int, seed: int, guidance: float) -> list[Request]:
    from traces.request import Request

    height, width, frames = size
    return [
        Request(
            f"r{i}", 0.0, height, width, steps, frames,
            prompt=prompts[i % len(prompts)], seed=seed + i, guidance_scale=guidance,
        )
        for i in range(count)
    ]  # fmt: skip


def facts_of(model: str, device: str) -> dict[str, str]:
    """What was measured where."""
    from datetime import UTC, datetime
    from importlib.metadata import version

    from backend.machine import hardware_name

    return {
        "model": Path(model).name,
        "hardware": hardware_name(device),
        "software": f"torch {version('torch')}, diffusers {version('diffusers')}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _most(points: list[CacheTradeOff]) -> float:
    return max(point.psnr_db for point in points)


def _curve(points: list[CacheTradeOff], best: CacheTradeOff | None, title: str) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for name in ("threshold", "computed", "fewer tiles", "faster", "PSNR", "least", "SSIM"):
        table.add_column(name, justify="right")
    for point in sorted(points, key=lambda point: point.threshold):
        table.add_row(
            f"{point.threshold:.4g}", f"{point.computed:.1%}", f"{1 / point.computed:.2f}x", f"{point.speed:.2f}x",
            f"{point.psnr_db:.1f} dB", f"{point.least_psnr_db:.1f} dB", f"{point.ssim:.3f}",
            style="bold" if point == best else None,
        )  # fmt: skip
    return table


def _write(path: Path, report: dict[str, Any]) -> None:
    from traces.files import write_json

    write_json(report, path, CALIBRATION)
    say(f"wrote {path}")
