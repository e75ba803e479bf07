"""How long a plan takes, and what it says: SDXL for the GenTD26 trace at several loads.

    python -m benchmarks.plan [--scales 1 20] [--loads 1 3 10] [--data ../shared/data] [-o out/plan]
    python -m benchmarks.plan --scales 20 --loads 1 --policies fcfs,patchedserve,lookahead --against CHECKOUT

The example `examples/plan_sdxl.toml`: an H100 with published measurements, an A100 and an L40S known by data sheet,
example prices; the trace at its own pace (one request in 90 s) and at 20 times that, each at the loads asked for.
Prints the answers, simulations, seconds, and with one worker those of the CPU. Simulations are kept in the output
folder: an interrupted benchmark goes on, and its seconds are then those of what was left. With ``--policies`` the best
of them is the answer, beside the price of each. With ``--against`` the same is then asked of another checkout of this
repository, in a process of its own, and the ratio of CPU seconds is printed; start it with an empty output folder.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.outputs import BENCHMARK
from benchmarks.serving.point import Source
from predictors.importers.mixfusion import import_mixfusion
from reports.plan.answer import answer
from reports.plan.write import write_plan
from tilecast.scenario import load_scenario
from tilecast.studies.result_store import read_points
from tilecast.studies.run import plan
from traces.errors import BadInput
from traces.files import write_document
from traces.importers.gentd26 import import_gentd26
from traces.sizes import load_sizes

ROOT = Path(__file__).parents[1]
SCENARIO = ROOT / "examples" / "plan_sdxl.toml"


def inputs(source: Source, folder: Path) -> Path:
    """The scenario, with its trace and profile beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    trace, profile = folder / "gentd26.parquet", folder / "h100.parquet"
    if not trace.is_file():
        import_gentd26(source.gentd26, load_sizes(source.sizes), spread_seconds=True).trace.save(trace)
    if not profile.is_file():
        whole = sorted((source.data / "mixfusion" / "profile").glob("sm_util_sdxl_*.csv"))
        import_mixfusion(whole).save(profile)
    scenario = folder / SCENARIO.name
    write_document(BENCHMARK.comment(SCENARIO.read_text(encoding="utf-8"), ".toml"), scenario, BENCHMARK)
    return scenario


def _simulated(folder: Path) -> int:
    """Requests in all simulations kept."""
    return sum([result["submitted"] for result in read_points(folder).values()])


def compare(arguments: Sequence[str], other: Path, output: Path) -> None:
    """Run the same plans by this checkout and by another one, and print what each says and its CPU seconds."""
    at = list(arguments).index("--against")
    asked = [*arguments[:at], *arguments[at + 2 :]]
    took_s = []
    for name, root in (("this", ROOT), ("other", other.absolute())):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "benchmarks.plan", *asked, "-o", str(output / name)]
        said = subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=True, capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        print(f"{name}: {took_s[-1]:.0f} CPU seconds\n{said.stdout}", flush=True)
    print(f"{took_s[0] / took_s[1]:.2f} times the CPU seconds of {other}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plans; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder with gentd26/ and more")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 20.0], help="times the pace of the trace")
    parser.add_argument("--loads", type=float, nargs="+", default=[1.0, 3.0, 10.0], help="times that")
    parser.add_argument(
        "--policies", help="schedulers, of which the best is the answer, like fcfs,patchedserve,lookahead"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--against", type=Path, help="another checkout, to be compared with")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/plan"))
    asked = parser.parse_args(arguments)
    source = Source(asked.data)
    if not (source.gentd26.exists() and source.present and source.sizes.exists()):
        print(f"skipped: GenTD26, MixFusion and DiffusionDB sizes are not under {asked.data}")
        return 0
    if asked.against is not None:
        given = [*(sys.argv[1:] if arguments is None else arguments), "--data", str(asked.data.absolute())]
        compare(given, asked.against, asked.output.absolute())
        return 0
    scenario = inputs(source, asked.output)
    lines = []
    for scale in asked.scales:
        for load in asked.loads:
            folder = asked.output / f"{scale:g}x{load:g}"
            keys = {"trace.path": str((asked.output / "gentd26.parquet").absolute()), "trace.rate_scale": scale * load}
            compared = asked.policies.split(",") if asked.policies else ()
            started, began_s = time.perf_counter(), time.process_time()
            made = plan(load_scenario(scenario, keys), folder, policies=compared, workers=asked.workers)
            seconds, cpu_s = time.perf_counter() - started, time.process_time() - began_s
            write_plan(made, folder)
            clusters, requests = len(made.considered), _simulated(folder)
            lines.append(
                f"{scale:g} x {load:g}: {answer(made)}\n    {seconds:.0f} s"
                f"{f' ({cpu_s:.0f} of the CPU)' if asked.workers == 1 else ''}; {made.points} simulations of "
                f"{requests:,} requests, {clusters} clusters considered"
            )
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadInput as error:
        sys.exit(f"error: {error}")
