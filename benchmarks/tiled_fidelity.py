"""Tiled requests simulated against reality, stage by stage, on one and on two devices.

    python -m benchmarks.tiled_fidelity [--model tiny-image] [--size 256x256] [--requests 6] -o FOLDER

Measures the model on one core, its canvas included, and runs the same requests, one after another, simulated and for
real on one process and on two. Measuring and running take turns in ``--rounds``, so that a slow spell of the machine
meets both. Prints the mean seconds of each stage, and how far the simulation is off.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.outputs import BENCHMARK
from examples.demo import HERE, tilecast
from policies.runlog import read_run
from predictors.profile import Profile
from traces.files import write_json
from traces.request import Request
from traces.sizes import parse_size
from traces.trace import Trace

STAGES = ("encode", "sketch", "upscale", "refine", "decode")


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/tiled-fidelity"))
    parser.add_argument("--model", default="tiny-image")
    parser.add_argument("--size", default="256x256", help="of the requests: heightxwidth[xframes]")
    parser.add_argument("--native", default="128x128", help="of the sketches, like --size")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--requests", type=int, default=6, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--link", default="1.4e-4,2.4e9", help="seconds a message, bytes/s: python -m benchmarks.ranks")
    parser.add_argument("--caching", default="none", help="of tiles")
    arguments = parser.parse_args(given)
    out: Path = arguments.output
    out.mkdir(parents=True, exist_ok=True)
    trace = out / "trace.parquet"
    one_by_one(arguments.size, arguments.steps, arguments.requests, arguments.model).save(trace)
    latency_s, bytes_per_s = arguments.link.split(",")
    profiles, runs = [], []
    for turn in range(arguments.rounds):
        profiles.append(out / f"profile-{turn}.parquet")
        tilecast("profile", "--model", arguments.model, "--threads", 1, "--sizes", arguments.native, "--max-batch", 1,
                 "--repeats", 5, "--canvases", arguments.size, "-o", profiles[-1])  # fmt: skip
        for devices in arguments.devices:
            folder = out / f"real-{devices}-{turn}"
            scenario = settings(trace, profiles[-1], arguments, devices, latency_s, bytes_per_s)
            tilecast("replay", *scenario, "-o", folder)
            runs.append((devices, folder))
    profile = out / "profile.parquet"
    together(profiles).save(profile)
    table = Table(title=f"{arguments.model} {arguments.size}: mean seconds a stage")
    for column in ("devices", "stage", "simulated", "real", "error", "real, by round"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    results = []
    for devices in arguments.devices:
        folder = out / f"sim-{devices}"
        scenario = settings(trace, profile, arguments, devices, latency_s, bytes_per_s)
        tilecast("simulate", *scenario, "--set", "world.noise=false", "-o", folder)
        simulated = stage_means(folder)
        rounds = [stage_means(run) for of, run in runs if of == devices]
        for stage in (*STAGES, "request"):
            by_round = [means[stage] for means in rounds]
            real = sum(by_round) / len(by_round)
            error = simulated[stage] / real - 1
            results.append({"devices": devices, "stage": stage, "sim_s": simulated[stage], "real_s": by_round})
            table.add_row(str(devices), stage, f"{simulated[stage]:.4f}", f"{real:.4f}", f"{100 * error:+.1f} %",
                          ", ".join(f"{seconds:.4f}" for seconds in by_round))  # fmt: skip
    write_json({"results": results}, out / "tiled-fidelity.json", BENCHMARK)
    Console().print(table)


def one_by_one(size: str, steps: int, count: int, model: str) -> Trace:
    """A trace of equal requests that all arrive at once: they are served one after another."""
    height, width, frames = parse_size(size)
    return Trace.from_requests(
        [
            Request(f"r{i}", 0.0, height, width, steps, frames, model=model, prompt="a red circle on blue", seed=i)
            for i in range(count)
        ]
    )


def settings(
    trace: Path, profile: Path, arguments: argparse.Namespace, devices: int, latency_s: str, bytes_per_s: str
) -> list[object]:
    """The scenario, as arguments of the command line."""
    return [
        HERE / "tiled.toml", "--trace", trace, "--profile", profile, "--scheduler", "fcfs",
        "--set", f"model={arguments.model}", "--set", f"cluster.devices={devices}", "--set", "cluster.threads=1",
        "--set", f"cluster.link_latency_s={latency_s}", "--set", f"cluster.link_bytes_per_s={bytes_per_s}",
        "--set", f"policies.tile_caching={arguments.caching}", "--set", "tiling.mode=wrap",
        "--set", "tiling.overlap=0", "--set", "tiling.refine=0.5",
    ]  # fmt: skip


def stage_means(folder: Path) -> dict[str, float]:
    """Mean seconds of each stage of a request, and of a request."""
    steps = read_run(folder).steps
    seconds = (steps["end_s"] - steps["start_s"]).groupby(steps["stage"]).sum()
    requests = len(read_run(folder).requests)
    means = {stage: float(seconds[stage]) / requests for stage in STAGES}
    return {**means, "request": sum(means.values())}


def together(profiles: Sequence[Path]) -> Profile:
    """One profile of the measurements of all."""
    loaded = [Profile.load(path) for path in profiles]
    frame = pd.concat([profile.frame.drop(columns="repeat") for profile in loaded], ignore_index=True)
    return Profile.from_frame(frame, loaded[0].metadata)


if __name__ == "__main__":
    main()
