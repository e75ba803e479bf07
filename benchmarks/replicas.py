"""Several real replicas, each a process on a core of its own, against their simulation from one replica's profile.

    python -m benchmarks.replicas [--replicas 2] [--repeats 3] [--profile PROFILE] -o FOLDER
    python -m benchmarks.replicas --replicas 1 --devices 2 -o FOLDER

Measures tiny-image on one core with nobody beside it, or takes a profile that was measured so; generates a trace that
keeps the replicas busy for 70 % of their time, and replays it ``--repeats`` times with the replicas as processes and
once with all of them as threads of one process (`cluster.launcher`). Printed are the ratio of the seconds that steps
really took to the profiled ones, P50, P95 and attainment, beside the mean of ``--seeds`` simulations and their least
and largest.

A replay says what the machine did meanwhile: ``waiting`` is the share of their running time for which its threads were
ready and had no core (Linux), ``others`` how many cores everybody else kept busy. Where these are not near zero, the
figures are of a machine that was shared. The aims hold for the mean of the repeats: a step and P50 and P95 within
10 %, attainment within 3 points.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.fidelity.compare import simulated, speeds
from benchmarks.outputs import BENCHMARK
from examples.demo import HERE, LOAD, generate, measure, tilecast
from policies.runlog import read_run
from reports.checks import checked
from reports.figures import summary
from tilecast.scenario import load_scenario
from tilecast.setup import prepare
from traces.files import write_json

AIMS = {"step": 0.10, "latency_p50_s": 0.10, "latency_p95_s": 0.10, "slo_attainment": 0.03}
"""The largest error wanted of a mean, of attainment as a difference."""
SLO_SCALE = 2.0
"""So tight that some requests are late."""
_TICKS_S = os.sysconf("SC_CLK_TCK")


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/replicas"))
    parser.add_argument("--profile", type=Path, help="of one replica, measured alone on this machine")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1, help="of a replica, each a process on a core of its own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the trace")
    parser.add_argument("--scheduler", default="lookahead")
    parser.add_argument("--seeds", type=int, default=20, help="simulated runs")
    arguments = parser.parse_args(given)
    out: Path = arguments.output
    profile = arguments.profile or out / "profile.parquet"
    if not profile.exists():
        measure(profile, "--devices", arguments.devices)
    trace = out / "trace.parquet"
    generate(profile, trace, LOAD * arguments.replicas * arguments.devices, arguments.seconds, "poisson", seed=1)
    keys: dict[str, Any] = {
        "trace.path": str(trace.absolute()),
        "predictor.profile": str(profile.absolute()),
        "policies.scheduling.name": arguments.scheduler,
        "cluster.replicas": arguments.replicas,
        "cluster.devices": arguments.devices,
        "slo.scale": SLO_SCALE,
    }
    prepared = prepare(load_scenario(HERE / "tiny_image.toml", keys))
    simulations = list(simulated(prepared, arguments.seeds))
    rows = []
    threads = 1 if arguments.replicas > 1 else 0  # one replica has nobody to share an interpreter with
    for launcher, repeats in (("process", arguments.repeats), ("thread", threads)):
        for repeat in range(repeats):
            run = out / f"real-{launcher}-{repeat}"
            options = [f"--set={key}={value}" for key, value in keys.items()]
            with machine_load() as load:
                tilecast("replay", HERE / "tiny_image.toml", *options, f"--set=cluster.launcher={launcher}", "-o", run)
            log = read_run(run)
            figures = summary(checked(log))
            rows.append(
                {
                    "launcher": launcher,
                    "step": speeds(log.steps, prepared.table, costs=prepared.costs)["speed"],
                    **{name: figures[name] for name in AIMS if name != "step"},
                    "waiting": load.waiting,
                    "others": load.others,
                }
            )
    show(simulations, rows)
    document = {"simulated": list(map(_finite, simulations)), "real": list(map(_finite, rows))}
    write_json(document, out / "replicas.json", BENCHMARK)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it: None for what is infinite or no number."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def show(simulations: Sequence[Mapping[str, float]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print simulated and real figures, and the error of the simulated mean to that of the processes."""
    table = Table(title="real replicas against their simulation")
    for column in ("", "step / profile", "P50", "P95", "attainment", "waiting", "others"):
        table.add_column(column, justify="right")
    spread = {name: [run[name] for run in simulations] for name in AIMS if name != "step"}
    mean = {"step": 1.0, **{name: statistics.fmean(values) for name, values in spread.items()}}
    ranges = [f"{low:.3g} to {high:.3g}" for low, high in ((min(v), max(v)) for v in spread.values())]
    table.add_row("simulated", *(f"{value:.3f}" for value in mean.values()))
    table.add_row("least, most", "", *ranges)
    for row in rows:
        table.add_row(
            row["launcher"], *(f"{row[name]:.3f}" for name in AIMS), f"{row['waiting']:.1%}", f"{row['others']:.2f}"
        )
    real = {name: statistics.fmean(row[name] for row in rows if row["launcher"] == "process") for name in AIMS}
    table.add_section()
    table.add_row("simulated - real", *(error(name, mean[name], real[name]) for name in AIMS))
    table.add_row("wanted", *(f"{100 * aim:.0f} {unit_of(name)}" for name, aim in AIMS.items()))
    Console().print(table)


def unit_of(name: str) -> str:
    return "points" if name == "slo_attainment" else "%"


def error(name: str, simulated_value: float, real: float) -> str:
    """How far the simulated figure is off, in words; what misses its aim is marked."""
    off = simulated_value - real if name == "slo_attainment" else simulated_value / real - 1
    return f"{100 * off:+.1f} {unit_of(name)}{'' if abs(off) <= AIMS[name] else ' !'}"


@dataclass
class MachineLoad:
    """What happened on this machine while a command ran.

    Attributes:
        waiting: share of the running time of the command's threads for which they waited for a core; NaN: unknown.
        others: cores that processes other than the command and its children kept busy, in the mean.
    """

    waiting: float = float("nan")
    others: float = float("nan")
    _spent: dict[str, tuple[int, int]] = field(default_factory=dict)

    def sample(self, command: int) -> None:
        """Read what the threads below a process have run and waited, nanoseconds; those that end keep what was read."""
        for process in descendants(command):
            for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
                try:
                    ran, waited, _ = path.read_text(encoding="utf-8").split()
                except OSError:  # it has ended
                    continue
                self._spent[path.parent.name] = int(ran), int(waited)
        ran_ns = sum(ran for ran, _ in self._spent.values())
        self.waiting = sum(waited for _, waited in self._spent.values()) / ran_ns if ran_ns else float("nan")


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and these in their turn."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text(encoding="utf-8").split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def busy_s() -> float:
    """Seconds that all cores of the machine have been busy since it started, idle and waiting for disks apart."""
    fields = [int(ticks) for ticks in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS_S


@contextmanager
def machine_load() -> Iterator[MachineLoad]:
    """Watch the machine while the block runs a command as a child of this process."""
    load = MachineLoad()
    if not sys.platform.startswith("linux"):
        yield load
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            load.sample(os.getpid())

    started, busy, own = time.monotonic(), busy_s(), sum(os.times()[:4])
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield load
    finally:
        over.set()
        watcher.join()
        ours = sum(os.times()[:4]) - own
        load.others = max(0.0, busy_s() - busy - ours) / (time.monotonic() - started)


if __name__ == "__main__":
    main()
