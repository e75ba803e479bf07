"""What each tile cache saves, and what it costs the picture: requests of four times a model's native area.

    python -m benchmarks.tile_caches [--models tiny-image tiny-video] [--prompts 4] [-o out/tile_caches]

Within one prompt all policies refine the same sketch one after another, with the uncached refinement before and after
them, so that a slow spell of the machine meets all. Speed is the uncached refinement's work over the policy's: in tiles
computed, and in CPU seconds (medians over prompts). Beside the tiles computed stands what the simulator makes of the
signals recorded in the uncached run. PSNR and SSIM compare decoded results with the uncached ones. The curves of the
policies are then read at equal PSNR, on straight lines between measured points; means over prompts hide a ruined
picture, so the worst prompt stands beside them.

For the region-aware cache it also counts gain checks, and how many gains were 1: in the published code gains are
measured on reused steps too, and collapse to 1. Reuse per region is the share of steps at which a tile was reused.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from backend.tiled.record import Notes
from backend.tiled.refiner import RecordingPolicy, Refiner
from benchmarks.outputs import write_csv
from policies.caching import CachingPolicy, RegionAware
from policies.caching.contract import Flags, Signals
from policies.caching.step import decide_block
from policies.tiling.signals import TileSignals
from predictors.tile_recording import TileRecording
from predictors.tile_reuse import TileReuse
from tilecast.caching import parse_caching_policy
from tilecast.studies.calibration import fidelity
from tools.tiny_models.moving_scenes import FRAMES, held_out_scenes
from traces.prompts import load_prompts
from traces.request import Request

PROMPTS = Path(__file__).parents[1] / "examples" / "prompts.txt"
KINDS = ("interval", "threshold", "region-aware")
POLICIES = (
    *(f"interval:every=2,warmup={warmup}" for warmup in (2, 4, 6, 8)),
    *(f"interval:every={every},warmup=2" for every in (3, 4)),
    *(f"threshold:threshold={threshold}" for threshold in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)),
    *(f"region-aware:warmup=2,threshold={threshold}" for threshold in (0.1, 0.11, 0.12, 0.13, 0.15, 0.2, 0.3, 0.4)),
)
TARGETS_DB = (25.0, 30.0, 35.0)


class Gains(NamedTuple):
    """Of a region-aware run: how often a gain was asked for, how often it was 1, how often of no new computation."""

    checks: int
    ones: int
    of_reused: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/tile_caches"))
    parser.add_argument("--models", nargs="+", default=["tiny-image", "tiny-video"])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--refine", type=float, default=0.5)
    parser.add_argument("--mode", default="wrap")
    parser.add_argument("--stride", type=float, default=1 / 16)
    parser.add_argument("--stand", type=int, default=1, help="steps for which the grid stands before it moves")
    parser.add_argument("--reuse", nargs="+", default=["output", "residual"])
    parser.add_argument("policies", nargs="*", default=list(POLICIES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for model in arguments.models:
        options = {name: getattr(arguments, name) for name in ("refine", "mode", "stride", "stand")}
        trial = Refiner(model, **options)
        asked = requests(trial, arguments.prompts, arguments.steps)
        runs, tiles, gains = measure(trial, asked, arguments.policies, arguments.reuse)
        summary = summarise(runs)
        write_csv(summary, arguments.output / f"{model}.csv")
        height, width, frames = asked[0].size
        Console().print(curve_table(summary, f"{model}, {height}x{width}x{frames}: tile caches against no cache"))
        Console().print(equal_table(summary, f"{model}: fewer tiles at equal PSNR (means over prompts)"))
        Console().print(region_table(tiles, f"{model}: share of steps at which a tile is reused"))
        print(f"{model}: {gains.checks} gain checks; {gains.ones} were 1, {gains.of_reused} were of reused steps")
    print(f"wrote {arguments.output}")


def requests(trial: Refiner, count: int, steps: int) -> list[Request]:
    """Requests of twice the native height and width, of prompts that `tiny-video` never trained on."""
    geometry = trial.rule.geometry
    height, width = geometry.native_size
    clips = geometry.frame_factor > 1
    texts = [scene.prompt for scene in held_out_scenes()] if clips else load_prompts(PROMPTS)
    length = FRAMES if clips else 1
    return [
        Request(
            f"r{i}", 0.0, 2 * height, 2 * width, steps, length,
            prompt=texts[i * 7 % len(texts)], seed=i, guidance_scale=6.0 if clips else 3.0,
        )
        for i in range(count)
    ]  # fmt: skip


def measure(
    trial: Refiner, asked: list[Request], policies: list[str], reuse: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, Gains]:
    """(one row a prompt, policy and reuse; one row a region-aware run and tile; its gains)."""
    rows, tiles, gains, factor = [], [], Gains(0, 0, 0), str(trial.rule.geometry.latent_factor)
    for prompt, request in enumerate(asked):
        sketch = trial.sketch(request)
        notes = Notes(request, trial.rule.shape(request.size, request.steps), max_age=4)
        uncached = trial.refine(request, sketch, observe=notes.take)
        reuse_model = TileReuse.fit(TileRecording(notes.frame(), {"model": "one", "latent_factor": factor}))
        whole_s, own = [trial.refine(request, sketch).seconds], []
        for policy in policies:
            for kept in reuse:
                watched = RecordingPolicy(parse_caching_policy(policy))
                cached = trial.refine(request, sketch, watched, kept)
                saved = cached.tiles / cached.computed, modelled_saving(trial, request, watched.policy, reuse_model)
                own.append((policy, kept, prompt, *saved, cached.seconds, *fidelity(cached, uncached)))
                if isinstance(watched.policy, RegionAware):
                    gains = Gains(*map(sum, zip(gains, count_gains(watched.log), strict=True)))
                    shares = reused_shares(watched.log)
                    tiles += [(policy, kept, prompt, tile, share) for tile, share in shares.items()]
        whole_s.append(trial.refine(request, sketch).seconds)
        rows += [(*row[:5], float(np.mean(whole_s)) / row[5], *row[6:]) for row in own]
    names = ["policy", "reuse", "prompt", "fewer", "modelled", "faster", "psnr_db", "ssim"]
    return (
        pd.DataFrame(rows, columns=np.array(names)),
        pd.DataFrame(tiles, columns=np.array(["policy", "reuse", "prompt", "tile", "reused"])),
        gains,
    )


def modelled_saving(trial: Refiner, request: Request, policy: CachingPolicy, model: TileReuse) -> float:
    """How many times fewer tiles the policy computes of the request in a simulation."""
    shape = trial.rule.shape(request.size, request.steps)
    tiles_of = TileSignals(model).of(request, shape.refine_steps)
    policy.reset()
    computed = total = 0
    for step in range(shape.refine_steps):
        tiles = shape.grid.tiles(shape.shifts.at(step))
        flags = decide_block(policy, tiles_of.signals(step, tiles, shape.shifts.renews(step)))
        tiles_of.done(step, tiles, flags)
        computed, total = computed + int(flags.sum()), total + len(tiles)
    return total / computed


def count_gains(log: list[tuple[Signals, Flags]]) -> Gains:
    """The gains that were looked at within a run; a tile's may change only after it was computed."""
    checks = ones = of_reused = 0
    last: dict[int, float] = {}
    fresh: set[int] = set()
    for signals, computed in log:
        assert signals.output_gain is not None
        assert signals.input_gain is not None
        for unit, out, into in zip(signals.unit.tolist(), signals.output_gain, signals.input_gain, strict=True):
            if into > 0:
                gain = float(out / into)
                checks += 1
                ones += abs(gain - 1) < 1e-6
                of_reused += unit in last and gain != last[unit] and unit not in fresh
                last[unit] = gain
        fresh = set(signals.unit[computed].tolist())
    return Gains(checks, int(ones), int(of_reused))


def reused_shares(log: list[tuple[Signals, Flags]]) -> dict[int, float]:
    """By tile the share of the steps it was there for at which it was reused."""
    units = np.concatenate([signals.unit for signals, _ in log])
    reused = np.concatenate([~computed for _, computed in log])
    return {int(unit): float(reused[units == unit].mean()) for unit in np.unique(units)}


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a policy and reuse."""
    grouped = runs.groupby(["policy", "reuse"], sort=False)
    return grouped.agg(
        fewer=("fewer", lambda ratio: 1 / (1 / ratio).mean()),
        modelled=("modelled", lambda ratio: 1 / (1 / ratio).mean()),
        faster=("faster", "median"),
        psnr_db=("psnr_db", "mean"),
        least_psnr_db=("psnr_db", "min"),
        ssim=("ssim", "mean"),
        least_ssim=("ssim", "min"),
    ).reset_index()


def at_psnr(summary: pd.DataFrame, kind: str, reuse: str, target_db: float, column: str = "psnr_db") -> float:
    """How many times fewer tiles one kind of policy computes where its curve crosses a PSNR.

    1 where even its least reuse costs more than that; NaN where its most costs less.
    """
    rows = summary[(summary["policy"].str.partition(":")[0] == kind) & (summary["reuse"] == reuse)]
    points = sorted(zip(rows[column], rows["fewer"], strict=True), reverse=True)
    if not points or points[-1][0] > target_db:
        return float("nan")
    best = [1.0, *(fewer for psnr, fewer in points if psnr >= target_db)]
    for (high, before), (low, after) in pairwise(points):
        if high >= target_db > low:
            best.append(before + (after - before) * (high - target_db) / (high - low))
    return max(best)


def curve_table(summary: pd.DataFrame, title: str) -> Table:
    table = Table(title=title)
    for name in ("policy", "reuse", "fewer tiles", "modelled", "faster", "PSNR", "least", "SSIM", "least SSIM"):
        table.add_column(name, justify="left" if name in ("policy", "reuse") else "right")
    for row in summary.itertuples():
        times = (f"{value:.2f}x" for value in (row.fewer, row.modelled, row.faster))
        table.add_row(row.policy, row.reuse, *times, f"{row.psnr_db:.1f} dB", f"{row.least_psnr_db:.1f} dB",
                      f"{row.ssim:.3f}", f"{row.least_ssim:.3f}")  # fmt: skip
    return table


def equal_table(summary: pd.DataFrame, title: str) -> Table:
    table = Table(title=title, caption="in brackets: where the worst prompt has that PSNR")
    table.add_column("PSNR")
    reuses = list(summary["reuse"].unique())
    for reuse in reuses:
        for kind in KINDS:
            table.add_column(f"{kind}, {reuse}", justify="right")
    for target in TARGETS_DB:
        cells = []
        for reuse in reuses:
            for kind in KINDS:
                mean, worst = (at_psnr(summary, kind, reuse, target, of) for of in ("psnr_db", "least_psnr_db"))
                cells.append(f"{mean:.2f}x ({worst:.2f}x)")
        table.add_row(f"{target:g} dB", *cells)
    return table


def region_table(tiles: pd.DataFrame, title: str) -> Table:
    table = Table(title=title)
    table.add_column("policy")
    indices = sorted(tiles["tile"].unique())
    for index in indices:
        table.add_column(f"tile {index}", justify="right")
    for policy, rows in tiles[tiles["reuse"] == tiles["reuse"].iloc[0]].groupby("policy", sort=False):
        means = rows.groupby("tile")["reused"].mean()
        table.add_row(str(policy), *(f"{means.get(index, float('nan')):.0%}" for index in indices))
    return table


if __name__ == "__main__":
    main()
