"""What a report costs: seconds, memory, and bytes of each file.

    python -m benchmarks.report [--requests 100000] [--scheduler lookahead] [--runs 1]

Simulates a Poisson trace of three sizes on eight replicas at about 70 % load, then runs ``tilecast report`` on the log,
each time in a process of its own: without and with timelines. Printed are CPU and wall seconds of that process, its
largest resident memory, and the size of every file that it wrote. With ``--runs 2`` the same log is reported twice side
by side.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPLICAS = 8
RATE = 1.25
"""Requests a second and replica."""

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--scheduler", default="lookahead")
    parser.add_argument("--runs", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = _simulated(folder, chosen.requests, chosen.scheduler)
        print(f"{chosen.requests:,} requests, {chosen.scheduler}, {chosen.runs} in the report")
        for what, options in (("page and table", []), ("and timelines", ["--timelines"])):
            output = folder / what.replace(" ", "-") / "report.html"
            cpu_s, wall_s, peak = _measured("report", *[run] * chosen.runs, "-o", output, *options)
            print(f"{what}: {cpu_s:.1f} CPU seconds, {wall_s:.1f} s, {peak / 1e6:,.0f} MB of memory at most")
            for path in sorted(output.parent.iterdir()):
                print(f"  {path.stat().st_size / 1e6:10.3f} MB  {path.name}")


def _simulated(folder: Path, requests: int, scheduler: str) -> Path:
    """The folder of a run log of about so many requests."""
    trace, run = folder / "trace.parquet", folder / "run"
    _measured(
        "trace", "generate", "-o", trace, "--rate", RATE * REPLICAS, "--duration", requests / (RATE * REPLICAS),
        "--sizes", "96x96:1,128x128:2,192x192:1", "--steps", 20, "--guidance-scale", 3, "--model", "tiny-image",
    )  # fmt: skip
    _measured(
        "simulate", ROOT / "examples/tiny_image.toml", "--trace", trace, "--scheduler", scheduler, "-o", run,
        "--set", f"cluster.replicas={REPLICAS}",
    )  # fmt: skip
    return run


def _measured(*arguments: object) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and the largest resident bytes of one ``tilecast`` command."""
    return measured([sys.executable, "-m", "tilecast", *map(str, arguments)])


def measured(command: Sequence[str]) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and the largest resident bytes of a command.

    Raises:
        SystemExit: the command failed; what it said on the standard error stands above.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return used.ru_utime + used.ru_stime, time.perf_counter() - began, used.ru_maxrss * 1024


if __name__ == "__main__":
    main()
