"""How often does a plan promise what fresh traces of the same process do not keep?

    python -m benchmarks.promises [--traces 32] [--first 0] [--workers 2] [-o out/promises]

Clusters of ``tiny-image`` on CPU cores with first come, first served, at a rate at which 94.5 % of the deadlines are
kept in truth (over many long traces of the generator): half a point below the promise of 95 %, the hardest place. From
each of many recordings of 2,000 requests, Poisson and bursty (gamma arrivals, cv 2), a planner says whether that
cluster keeps the promise, and what the least one is. A promise is broken where it says yes. For comparison the same
with an interval that takes the recording for the truth (``reports.output_analysis.interval`` of the replications alone)
from the same simulations.

Every recording that was judged is kept in the output folder: an interrupted benchmark goes on. Choose on other
recordings (``--first 1000``) than are reported.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tilecast as tc
from reports.plan.page import PLAN
from tilecast.studies.assess import Assessor
from tilecast.studies.case import Case
from tilecast.studies.experiment import AS_PLANNED, Experiment
from tilecast.studies.replication import Replication
from tilecast.studies.result_store import FAILED, ResultStore, point_key, run_points
from tilecast.studies.simulator import Simulator
from traces.errors import BadInput
from traces.sizes import parse_sizes
from traces.trace import Trace
from traces.workload import generate

REPLICAS = 6
RECORDED = 2_000
PROMISED, TRUE = 0.95, 0.945
ARRIVALS = {"Poisson": "poisson", "cv 2": "gamma:2"}
SCALES = (2.0,)
"""Deadlines, times the latency alone: such tight ones break at a load of 0.8, those of 5 at one close to 1."""
SIZES = "64x64:2,96x96:2,128x128:1"
_COARSE = 1.005
_APART = 1.015
_FRESH, _FRESH_TRACES, _FRESH_REQUESTS = 100_000, 6, 20_000


@dataclass(frozen=True)
class Process:
    """Where requests come from, and how soon they are wanted.

    Attributes:
        arrivals: the process, as `traces.workload.generate` takes it.
        scale: deadlines, times the latency alone.
    """

    arrivals: str
    scale: float

    def __str__(self) -> str:
        return f"{self.arrivals}, deadlines {self.scale:g} times the latency alone"

    def scenario(self, trace: Trace, rate_scale: float = 1.0) -> tc.Scenario:
        """The question about one recording."""
        return tc.Scenario(
            model="tiny-image",
            trace=trace,
            profile="cpu-1core",
            scheduler="fcfs",
            cluster={"replicas": REPLICAS},
            predictor={"online": False},
            slo={"scale": self.scale},
            plan={"attainment": PROMISED},
        ).replaced({"trace.rate_scale": rate_scale})

    def recording(self, rate: float, requests: int, seed: int) -> Trace:
        """So many requests of the process."""
        sizes = parse_sizes(SIZES)
        made = generate(rate, 1.2 * requests / rate + 60, sizes, arrivals=self.arrivals, steps="8", seed=seed)
        return Trace(made.frame.head(requests), made.source)


@dataclass(frozen=True)
class Recording:
    """One of the traces that a planner is given.

    Attributes:
        process: what it is drawn from.
        rate: its requests a second, in the mean.
        seed: which of them.
    """

    process: Process
    rate: float
    seed: int

    def __str__(self) -> str:
        return f"recording {self.seed} of {self.process}"


def knife_edge(process: Process) -> dict[str, Any]:
    """The rate at which `TRUE` of the deadlines are kept: found roughly on one long trace, then read off what many
    attain a little below and above it."""
    fresh = [process.recording(1.0, _FRESH_REQUESTS, _FRESH + seed) for seed in range(_FRESH_TRACES)]

    def kept(rate: float, traces: Sequence[Trace]) -> float:
        runs = [tc.simulate(process.scenario(trace, rate)).summary() for trace in traces]
        return sum([float(run["slo_attainment"]) for run in runs]) / len(runs)

    low, high = 0.5, 50.0
    while high / low > _COARSE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if kept(middle, fresh[:1]) >= TRUE else (low, middle)
    below, above = low / _APART, low * _APART
    first, last = kept(below, fresh), kept(above, fresh)
    while last >= TRUE:
        below, above, first = above, above * _APART, last
        last = kept(above, fresh)
    while first < TRUE:
        below, above, last = below / _APART, below, first
        first = kept(below, fresh)
    return {"rate": below + (above - below) * (first - TRUE) / (first - last)}


def judged(recording: Recording) -> dict[str, Any]:
    """What is said of a recording, with its luck and without: whether the cluster keeps the promise, its state, and the
    replicas of the least cluster that does."""
    process = recording.process
    said: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, ResultStore(Path(folder) / "plan", PLAN) as store:
        case = Case(process.scenario(process.recording(recording.rate, RECORDED, recording.seed)))
        simulator = Simulator(case, store, 1, lambda *_: None)
        for how, evaluate in (("with", simulator), ("without", _without_luck(simulator))):
            assess = Assessor(evaluate, case.options, case.slo_target(), case.effort())
            [option] = case.options.values()
            count = REPLICAS
            about = assess(option.cluster(count), AS_PLANNED)
            while not assess(option.cluster(count), AS_PLANNED).keeps:
                count += 1
            said |= {f"{how}_promised": about.keeps is True, f"{how}_state": about.state, f"{how}_replicas": count}
        said["simulations"] = simulator.simulations
    return said


def _without_luck(simulator: Simulator) -> Callable[[Sequence[Experiment]], list[Replication]]:
    return lambda experiments: [replace(run, recorded=float("inf")) for run in simulator(experiments)]


def _points(function: Callable[[Any], dict[str, Any]], points: Sequence[Any], store: ResultStore, workers: int) -> Any:
    """What ``function`` says of each, kept as soon as it does.

    Raises:
        BadInput: one of them cannot be simulated.
    """
    own = tc.Scenario(model="tiny-image", profile="cpu-1core")
    keys = {point_key(own, [function.__name__, repr(point)]): point for point in points}

    def tell(done: int) -> None:
        print(f"\r{function.__name__}: {done} of {len(points)}", end="", file=sys.stderr, flush=True)

    found = run_points(partial(function), keys, store, workers, progress=tell)
    print(file=sys.stderr)
    for result in found.values():
        if FAILED in result:
            raise BadInput(result[FAILED])
    return list(found.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the shares; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=32, help="recordings of each process")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES, help="deadlines, times the latency alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/promises"))
    asked = parser.parse_args(arguments)
    print(
        f"{'arrivals':8s} {'SLO':>4s} {'requests/s':>10s} {'STABLE':>7s}  "
        f"promises broken: with the recording's luck, without    replicas"
    )
    totals = [0, 0]
    with ResultStore(asked.output) as store:
        cases = [(name, Process(arrivals, scale)) for scale in asked.scales for name, arrivals in ARRIVALS.items()]
        edges = _points(knife_edge, [process for _, process in cases], store, asked.workers)
        for (name, process), edge in zip(cases, edges, strict=True):
            seeds = range(asked.first, asked.first + asked.traces)
            recordings = [Recording(process, edge["rate"], seed) for seed in seeds]
            said = _points(judged, recordings, store, asked.workers)
            broken = [sum([one[f"{how}_promised"] for one in said]) for how in ("with", "without")]
            mean = [sum([one[f"{how}_replicas"] for one in said]) / len(said) for how in ("with", "without")]
            stable = sum([one["with_state"] == "STABLE" for one in said]) / len(said)
            totals = [before + more for before, more in zip(totals, broken, strict=True)]
            spelled = [f"{count} of {len(said)} ({count / len(said):.1%})" for count in broken]
            print(
                f"{name:8s} {process.scale:3g}x {edge['rate']:10.3g} {stable:7.0%}  {spelled[0]:>22s} "
                f"{spelled[1]:>22s}    {mean[0]:.2f} against {mean[1]:.2f}",
                flush=True,
            )
    count = len(cases) * asked.traces
    print(f"in all {totals[0]} of {count} ({totals[0] / count:.1%}) against {totals[1]} ({totals[1] / count:.1%})")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadInput as error:
        sys.exit(f"error: {error}")
