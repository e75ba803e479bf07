"""How often does a plan promise what fresh traces of the same process do not keep?

    python -m benchmarks.promises [--traces 64] [--workers 2]

Clusters of ``tiny-image`` on CPU cores with first come, first served, at a rate at which 94.5 % of the deadlines are
kept in truth (over many long traces of the generator): half a point below the promise of 95 %, the hardest place. From
each of many recordings of 2,000 requests, Poisson and bursty (gamma arrivals, cv 2), a planner says whether that
cluster keeps the promise, and what the least one is. A promise is broken where it says yes. For comparison the same
without the recording's own luck (`reports.output_analysis.interval`), from the same simulations.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tilecast as tc
from reports.plan.page import PLAN
from tilecast.studies.assess import Assessor
from tilecast.studies.case import Case
from tilecast.studies.experiment import AS_PLANNED, Experiment
from tilecast.studies.replication import Replication
from tilecast.studies.result_store import ResultStore
from tilecast.studies.simulator import Simulator
from traces.errors import BadInput
from traces.sizes import parse_sizes
from traces.trace import Trace
from traces.workload import generate

REPLICAS = 6
RECORDED = 2_000
PROMISED, TRUE = 0.95, 0.945
ARRIVALS = {"Poisson": "poisson", "cv 2": "gamma:2"}
SIZES = "64x64:2,96x96:2,128x128:1"
_TRUTH = 40_000
_FRESH = 100_000


@dataclass(frozen=True)
class Judged:
    """What planners say of recordings of one process: with and without the recording's luck.

    Attributes:
        promised: recordings of which the cluster is said to keep the promise.
        replicas: replicas of the least clusters, summed.
    """

    promised: tuple[int, int]
    replicas: tuple[int, int]


def scenario(trace: Trace) -> tc.Scenario:
    """The question about one recording."""
    return tc.Scenario(
        model="tiny-image",
        trace=trace,
        profile="cpu-1core",
        scheduler="fcfs",
        cluster={"replicas": REPLICAS},
        predictor={"online": False},
        slo={"scale": 5.0},
        plan={"attainment": PROMISED},
    )


def recording(arrivals: str, rate: float, requests: int, seed: int) -> Trace:
    """So many requests of the process."""
    made = generate(rate, 1.2 * requests / rate + 60, parse_sizes(SIZES), arrivals=arrivals, steps="8", seed=seed)
    return Trace(made.frame.head(requests), made.source)


def knife_edge(arrivals: str) -> float:
    """The rate at which `TRUE` of the deadlines are kept."""
    fresh = recording(arrivals, 1.0, _TRUTH, _FRESH)

    def kept(rate: float) -> float:
        case = scenario(fresh).replaced({"trace.rate_scale": rate})
        return float(tc.simulate(case).summary()["slo_attainment"])

    low, high = 0.5, 50.0
    while high / low > 1.002:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if kept(middle) >= TRUE else (low, middle)
    return low


def judged(arrivals: str, rate: float, traces: int, workers: int) -> Judged:
    """What is said of ``traces`` recordings."""
    promised, replicas = [0, 0], [0, 0]
    for seed in range(traces):
        with tempfile.TemporaryDirectory() as folder, ResultStore(Path(folder) / "plan", PLAN) as store:
            case = Case(scenario(recording(arrivals, rate, RECORDED, seed)))
            simulator = Simulator(case, store, workers, lambda *_: None)
            for at, evaluate in enumerate((simulator, _without_luck(simulator))):
                assess = Assessor(evaluate, case.options, case.slo_target(), case.effort())
                [option] = case.options.values()
                count = REPLICAS
                promised[at] += assess(option.cluster(count), AS_PLANNED).keeps is True
                while not assess(option.cluster(count), AS_PLANNED).keeps:
                    count += 1
                replicas[at] += count
    return Judged((promised[0], promised[1]), (replicas[0], replicas[1]))


def _without_luck(simulator: Simulator) -> Callable[[Sequence[Experiment]], list[Replication]]:
    return lambda experiments: [replace(run, recorded=float("inf")) for run in simulator(experiments)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the shares; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=64, help="recordings of each process")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args(arguments)
    print(f"{'arrivals':10s} {'requests/s':>10s}  promises broken: with the recording's luck, without    replicas")
    for name, arrivals in ARRIVALS.items():
        rate = knife_edge(arrivals)
        said = judged(arrivals, rate, asked.traces, asked.workers)
        broken = [f"{count} of {asked.traces} ({count / asked.traces:.1%})" for count in said.promised]
        mean = [f"{count / asked.traces:.2f}" for count in said.replicas]
        print(f"{name:10s} {rate:10.3g}  {broken[0]:>20s} {broken[1]:>20s}   {mean[0]} against {mean[1]}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadInput as error:
        sys.exit(f"error: {error}")
