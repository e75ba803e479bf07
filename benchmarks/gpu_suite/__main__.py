"""What a device does with models of real shapes, in minutes: ceilings, kernels, steps, mixes, the other stages, tiles,
caches, and two replays against their simulations.

    python -m benchmarks.gpu_suite --dry-run          the plan: what is measured and how long it should take
    python -m benchmarks.gpu_suite -o FOLDER          measure, on a CUDA device
    python -m benchmarks.gpu_suite --smoke            the same code with narrow models on a CPU
    python -m benchmarks.gpu_suite -o FOLDER --table  what FOLDER holds

Points are measured in order of value until the minutes are over, and each is kept in FOLDER as it ends: started again,
the run goes on with what is missing. Weights are random, so no model is downloaded.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from rich.console import Console, RenderableType

from benchmarks.gpu_suite.budget import Alike, Costs, Estimated, Pace, plan
from benchmarks.gpu_suite.limits import DEVICE
from benchmarks.gpu_suite.point import Point
from benchmarks.gpu_suite.points import default_points, smoke_points
from benchmarks.gpu_suite.store import FAILURES, Store, read_suite
from benchmarks.gpu_suite.table import plan_table, results_table
from predictors.hardware import find_hardware
from traces.errors import BadInput

OUTPUT = Path("out/gpu-suite")
_WIDE = 180  # columns where no terminal says


def main(given: Sequence[str] | None = None) -> int:
    """Run it.

    Returns:
        0; 1 where points failed; 2 on bad input; 130 when it was interrupted.
    """
    began = time.monotonic()
    asked = _parser().parse_args(given)
    try:
        points = _asked(smoke_points() if asked.smoke else default_points(), asked.only)
        if not asked.minutes > 0:
            raise BadInput(f"--minutes is {asked.minutes:g}, expected more than 0")
        if asked.table:
            _print(results_table(read_suite(asked.output or OUTPUT)))
            return 0
        costs: Costs = Alike() if asked.smoke else Estimated(find_hardware(asked.hardware), DEVICE)
        pace = Pace(asked.minutes, costs, points)
        if asked.dry_run:
            on = "narrow models" if asked.smoke else costs.hardware.name
            _print(plan_table(plan(points, asked.minutes, costs), asked.minutes, pace, on))
            return 0
        with ExitStack() as stack:
            folder = asked.output
            if folder is None:
                folder = Path(stack.enter_context(TemporaryDirectory())) if asked.smoke else OUTPUT
            return _measure(asked, folder, points, pace, began)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _measure(asked: argparse.Namespace, folder: Path, points: Sequence[Point], pace: Pace, began: float) -> int:
    from benchmarks.gpu_suite.run import DeviceLost, bench_on, facts_of, run

    bench = bench_on(asked.device, asked.kernels, asked.smoke)
    from benchmarks.gpu_suite.measures import MEASURES

    def end(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    status = 0
    with Store(folder, facts_of(bench)) as store:
        try:
            failed, left = run(points, store, bench, pace, MEASURES, lambda: time.monotonic() - began, _say)
        except KeyboardInterrupt:
            status = 130
            _say(f"interrupted: what ended is kept in {folder}; the same command goes on from there")
        except DeviceLost as error:
            status = 1
            _say(f"{error}; what ended is kept in {folder}, and the same command goes on with the other points")
        else:
            status = 1 if failed else 0
            if failed:
                _say(f"{failed} points failed: {folder / FAILURES} says where")
            if left:
                _say(f"{len(left)} points were left out for want of time: {', '.join(point.key for point in left)}")
        _print(results_table(read_suite(folder)))
    return status


def _asked(points: list[Point], only: Sequence[str] | None) -> list[Point]:
    for prefix in only or ():
        if not any(_under(point, prefix) for point in points):
            known = ", ".join(dict.fromkeys(f"{point.group}/{point.name}" for point in points))
            raise BadInput(f"--only {prefix} names no point, expected one of {known}, or one point of --dry-run")
    return [point for point in points if not only or any(_under(point, prefix) for prefix in only)]


def _under(point: Point, prefix: str) -> bool:
    return f"{point.key}/".startswith(f"{prefix}/")


def _say(line: str) -> None:
    print(line, flush=True)


def _print(what: RenderableType) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=_WIDE)).print(what)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, help=f"folder; by default {OUTPUT}, with --smoke a temporary one")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it; by default 8")
    parser.add_argument("--smoke", action="store_true", help="narrow models and small sizes, on a CPU")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and measure nothing")
    parser.add_argument("--table", action="store_true", help="print what the folder holds and measure nothing")
    parser.add_argument("--only", nargs="+", metavar="POINT", help="a group, group/name, ... as --dry-run names points")
    parser.add_argument("--device", help="by default cuda, with --smoke cpu")
    parser.add_argument("--kernels", default="auto", help="auto, or reference: plain PyTorch alone")
    parser.add_argument("--hardware", default="h200-sxm", help="a kind to plan for: see 'tilecast hardware'")
    return parser


if __name__ == "__main__":
    sys.exit(main())
