"""How long `tilecast simulate` takes to begin.

    python -m benchmarks.startup [--repeats 5]

Starts a fresh Python for each run, simulates few requests on the profile that ships with Tilecast, and prints CPU
seconds since the process began at each stage: what is imported, what is loaded and fitted, when the first request has
been submitted, when the log is written. Medians; the first run may fill caches and is not counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGES = {
    "help": "the command line answers --help",
    "imported": "everything is imported",
    "prepared": "scenario, trace and profile are loaded and costs fitted",
    "first request": "the first request is simulated",
    "log": "the run log is written",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    print("CPU seconds since the process began")
    for stage, seconds in stages(parser.parse_args().repeats).items():
        print(f"{seconds:6.2f} s  {STAGES[stage]}")


def first_request_s() -> float:
    """CPU seconds until the first request of a small scenario is simulated."""
    return stages(3)["first request"]


def stages(repeats: int) -> dict[str, float]:
    """CPU seconds from the start of a process to each of `STAGES`."""
    runs = [{"help": _help()} | _stages() for _ in range(1 + repeats)][1:]
    return {stage: statistics.median([run[stage] for run in runs]) for stage in STAGES}


def _help() -> float:
    """CPU seconds of ``tilecast simulate --help``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tilecast", "simulate", "--help"]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _stages() -> dict[str, float]:
    command = [sys.executable, "-c", "from benchmarks.startup import report_stages; report_stages()"]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    reached: dict[str, float] = json.loads(answer.splitlines()[-1])
    return reached


def report_stages() -> None:
    """Do what ``tilecast simulate`` does, and print as JSON when each stage was reached."""
    reached = {}
    from tilecast.scenario import load_scenario
    from tilecast.setup import prepare
    from tilecast.simulation import run_simulation
    from traces.sizes import parse_sizes
    from traces.workload import generate

    reached["imported"] = time.process_time()

    def submitted(_: int) -> None:
        reached.setdefault("first request", time.process_time())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace = generate(rate=5.0, duration_s=10.0, sizes=parse_sizes("96x96,192x192"), steps="20", seed=0)
        trace.save(folder / "trace.parquet")
        settings = {"trace.path": str(folder / "trace.parquet"), "predictor.profile": "cpu-1core"}
        prepared = prepare(load_scenario(ROOT / "examples" / "tiny_image.toml", settings))
        reached["prepared"] = time.process_time()
        controller = run_simulation(prepared, progress=submitted)
        prepared.write(folder, controller, prepared.simulation_info(controller), [])
        reached["log"] = time.process_time()
    print(json.dumps(reached))


if __name__ == "__main__":
    main()
