"""A sweep over a production trace: how long it takes, and what a second process brings. One command.

    python -m benchmarks.sweep [--points 200] [--runs joblib:1 joblib:2 ray:1 ray:2] [--data ../shared/data]

The grid of `GRID`, or as many points of it as are asked for, over GenTD26 (16 days, 15,615 requests; DiffusionDB's
sizes) on the measurements of SDXL that were published with MixFusion, `examples/sdxl_h100.toml` being the scenario.
Each run starts from nothing: its seconds include starting processes, fitting and, for Ray, the cluster of this machine.
Beside them the CPU seconds of the points alone, measured in the workers, and which share of the workers' cores these
had: on a machine with other work it is less than all, and the scaling is that of what was left. All runs must give the
same figures.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.outputs import BENCHMARK
from predictors.importers.mixfusion import import_mixfusion
from reports.progress import bar
from tilecast.scenario import load_scenario
from tilecast.studies.grid import Grid
from tilecast.studies.result_store import Result, ResultStore, run_points
from tilecast.studies.sweep import SweepTask, simulate_point, tasks
from traces.files import write_document
from traces.importers.gentd26 import import_gentd26
from traces.sizes import load_sizes

ROOT = Path(__file__).parents[1]
SCENARIO = ROOT / "examples" / "sdxl_h100.toml"
GRID = """
[grid]
trace.rate_scale = [20, 40, 80, 160]
cluster.replicas = [2, 3, 4, 6, 8]
slo.scale = [3, 5]
policies.scheduling = ["fcfs", "least-slack", "same-size-continuous", "clockwork", "lookahead"]
"""
RUNS = ["joblib:1", "joblib:2", "ray:1", "ray:2"]
CPU = "cpu_s"


def timed_point(task: SweepTask) -> Result:
    """A point's figures, and the CPU seconds that they took."""
    started = time.process_time()
    figures = simulate_point(task)
    return {**figures, CPU: time.process_time() - started}


def prepare_grid(data: Path, folder: Path, points: int) -> dict[str, SweepTask]:
    """The points, their trace and profile made from published data."""
    sizes = load_sizes(data / "diffusiondb_sizes.csv")
    import_gentd26(data / "gentd26" / "lora_request_trace.csv.gz", sizes).trace.save(folder / "trace.parquet")
    import_mixfusion(sorted((data / "mixfusion" / "profile").glob("sm_util_sdxl_*.csv"))).save(folder / "h100.parquet")
    write_document(BENCHMARK.comment(f"samples = {points}\n{GRID}", ".toml"), folder / "grid.toml", BENCHMARK)
    files = {"trace.path": folder / "trace.parquet", "predictor.profile": folder / "h100.parquet"}
    given = {key: str(path.absolute()) for key, path in files.items()}
    return tasks(Grid.load(folder / "grid.toml").points(load_scenario(SCENARIO, given)), None)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument(
        "--runs", nargs="+", default=["joblib:1", "joblib:2", "ray:1", "ray:2"], help="executor:workers"
    )
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder with gentd26/ and more")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/sweep"))
    asked = parser.parse_args(arguments)
    if not (asked.data / "gentd26").is_dir():
        print(f"skipped: no gentd26/ under {asked.data}; --data names the folder that holds it")
        return
    todo = prepare_grid(asked.data, asked.output, asked.points)
    print(f"{len(todo)} points")
    alone: dict[str, float] = {}
    found: dict[str, Result] = {}
    for run in asked.runs:
        executor, _, workers = run.partition(":")
        folder = asked.output / run.replace(":", "-")
        shutil.rmtree(folder, ignore_errors=True)
        started = time.perf_counter()
        with ResultStore(folder) as kept, bar(run, len(todo)) as progress:
            results = run_points(timed_point, todo, kept, int(workers), executor, progress)
        seconds = time.perf_counter() - started
        cpu_s = sum(result.pop(CPU) for result in results.values())
        alone.setdefault(executor, seconds)
        assert repr(found or results) == repr(results), "runs differ"
        found = results
        print(
            f"{run:9s} {seconds:7.1f} s, {len(todo) / seconds:5.2f} points/s, "
            f"{alone[executor] / seconds:.2f} x its first run; points took {cpu_s:.1f} s of CPU, "
            f"{100 * cpu_s / seconds / int(workers):.0f} % of {workers} cores",
            flush=True,
        )


if __name__ == "__main__":
    main()
