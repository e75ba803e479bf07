"""Many checkpoints on few replicas: which routing and which weights policy, on GenTD26's 86 checkpoints. One command.

    python -m benchmarks.weights [--data ../shared/data] [--replicas 6] [--load 0.65] [--scheduler least-slack]

The requests, their checkpoints and adapters come in the order of the trace, at Poisson arrivals of a rate at which the
replicas would be busy for the given share if every weight was always there (``--recorded``: at the recorded arrivals,
at another pace); sizes are DiffusionDB's. Durations are SDXL's on one H100 as measured by MixFusion's authors.
Checkpoints take 6.9 GB (SDXL in half precision), come from disk at 2 GB/s or from 64 GB of host memory at 20 GB/s, and
each load takes a second beside that, an adapter half a second; that is assumed, not measured.

Deadlines are five times the latency alone. ``waited`` is the share of requests whose checkpoint had to be loaded while
they waited; every combination meets the same requests.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.serving.point import Source
from policies.controller import Controller
from policies.load import load_policy
from policies.pool import Pool
from policies.record import run_arrays
from policies.routing import RoutingPolicy
from policies.weights import ModelSwapping
from predictors.importers.mixfusion import import_mixfusion
from predictors.latency_model import LatencyModel
from predictors.loading import AdapterCosts, LoadTimes, Weights, with_adapters
from predictors.online import OnlinePredictor
from reports.figures import summary
from sim.driver import Simulation
from sim.world import World
from traces.errors import BadInput
from traces.importers.gentd26 import import_gentd26
from traces.request import Request
from traces.sizes import load_sizes
from traces.stages import ordinary
from traces.streams import stream
from traces.trace import Trace

ROOT = Path(__file__).parents[1]
ROUTINGS = ("affinity", "least-work", "hash", "round-robin", "shared")
EVICTIONS = ("cost", "lru", "lfu")
GB = 6.9
FITTING = (2, 4, 8)
"""Checkpoints that lie on a replica at once."""
COLUMNS = ("attainment", "P95", "loads", "loading", "waited", "busy")


def costs_of(source: Source) -> AdapterCosts:
    """SDXL on one H100."""
    profile = import_mixfusion(sorted((source.data / "mixfusion" / "profile").glob("sm_util_sdxl_*.csv")))
    return AdapterCosts(LatencyModel.fit(profile, "sdxl"), 0.5)


def requests_of(source: Source, costs: AdapterCosts, replicas: int, load: float, recorded: bool) -> list[Request]:
    """The trace at the pace at which the replicas are busy for the share ``load``, one request after another."""
    trace = import_gentd26(source.gentd26, load_sizes(source.sizes), spread_seconds=True).trace
    requests = trace.requests()
    rate = load * replicas / float(np.mean([costs.standalone_s(request) for request in requests]))
    if recorded:
        return _due(trace.scale_rate(rate * requests[-1].arrival_s / len(requests)), costs)
    frame = trace.frame.copy()
    frame["arrival_s"] = np.cumsum(stream(0, "benchmark/residency").exponential(1 / rate, len(frame)))
    return _due(Trace(frame, trace.source), costs)


def _due(trace: Trace, costs: AdapterCosts) -> list[Request]:
    return trace.with_slo(scale=5.0, standalone=costs.standalone_s).requests()


def figures(
    requests: list[Request],
    costs: AdapterCosts,
    policy: ModelSwapping,
    routing: RoutingPolicy,
    weights: Weights,
    loaded: list[list[str]],
) -> dict[str, float]:
    """Every figure of one simulation; ``loaded`` lies on the replicas from the beginning."""
    replicas = len(loaded)
    controller = Controller(
        policy,
        OnlinePredictor(costs),
        replicas,
        lambda request: with_adapters(request, ordinary(request)),
        weights=weights,
        loaded=loaded,
        routing=routing,
    )
    Simulation(controller, World(costs, replicas, loads=LoadTimes(weights, loaded))).run(requests)
    return summary(run_arrays(controller, requests, [Pool(costs, replicas)]))


def combinations(
    requests: list[Request], costs: AdapterCosts, scheduler: str, replicas: int
) -> Iterator[tuple[str, str, str, dict[str, float]]]:
    """(memory, routing, eviction, figures), first with all weights always there."""
    inner = load_policy("scheduling", scheduler)
    checkpoints = sorted({request.checkpoint for request in requests})
    free, affinity = Weights(GB * len(checkpoints), GB), load_policy("routing", "affinity")
    found = figures(requests, costs, ModelSwapping(inner), affinity, free, [checkpoints] * replicas)
    yield "all fit", "affinity", "", found
    for fitting in FITTING:
        weights = Weights(fitting * GB, GB, host_gb=64.0, load_s=1.0)
        for routing in ROUTINGS:
            for eviction in EVICTIONS:
                policy = ModelSwapping(inner, load_policy("weights", eviction))
                way = load_policy("routing", routing)
                yield (
                    f"{fitting} fit",
                    routing,
                    eviction,
                    figures(requests, costs, policy, way, weights, [[]] * replicas),
                )


def _loading(found: dict[str, float]) -> list[str]:
    return [f"{found['loads']:,.0f}", f"{found['loading']:.1%}", f"{1 - found['resident']:.1%}"]


def main() -> int:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description="Routing and weights policies on GenTD26's checkpoints.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--replicas", type=int, default=6)
    parser.add_argument("--load", type=float, default=0.65)
    parser.add_argument("--scheduler", default="least-slack")
    parser.add_argument("--recorded", action="store_true")
    parser.add_argument("--requests", type=int, default=None, help="only the first of the trace")
    given = parser.parse_args()
    source = Source(given.data)
    if not (source.present and source.gentd26.exists() and source.sizes.exists()):
        print(f"{given.data} lacks mixfusion/, gentd26/ or diffusiondb_sizes.csv; --data names their folder")
        return 2
    costs = costs_of(source)
    requests = requests_of(source, costs, given.replicas, given.load, given.recorded)[: given.requests]
    arrivals = "recorded" if given.recorded else "Poisson"
    title = f"{len(requests):,} requests, {arrivals}, {given.replicas} replicas at {given.load:.0%}, {given.scheduler}"
    table = Table(title=title)
    for column in ("memory", "routing", "eviction"):
        table.add_column(column)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    try:
        for memory, routing, eviction, found in combinations(requests, costs, given.scheduler, given.replicas):
            table.add_row(
                memory,
                routing,
                eviction,
                f"{found['slo_attainment']:.1%}",
                f"{found['latency_p95_s']:.1f} s",
                *([""] * 3 if math.isnan(found["loads"]) else _loading(found)),
                f"{found['utilisation']:.1%}",
            )
    except BadInput as error:
        print(error)
        return 2
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
