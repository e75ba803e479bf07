"""Simulated requests a second, by scheduler, on one core.

    python -m benchmarks.simulator [--requests 100000]

Replays a Poisson trace of three sizes over eight replicas at about 80 % load, with noise, and prints requests and
events a second, beside the bare cost of a SimPy event in the same process (the floor under any such simulator).
`--log` adds the time to build and write the run log.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import simpy

from policies.controller import Controller
from policies.record import request_table, step_table
from policies.runlog import write_run
from policies.scheduling import SCHEDULERS
from predictors.profile import Profile
from predictors.table import LatencyTable
from sim.driver import Simulation
from sim.world import World
from traces.request import Request
from traces.sizes import parse_sizes
from traces.workload import generate

REPLICAS = 8
PROFILE = Path(__file__).parents[1] / "profiles" / "cpu-1core.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--load", type=float, default=0.8, help="of what the replicas carry one request at a time")
    parser.add_argument("--log", action="store_true", help="build and write the run log too")
    parser.add_argument("schedulers", nargs="*", default=list(SCHEDULERS))
    arguments = parser.parse_args()

    table = LatencyTable.fit(Profile.load(PROFILE), "tiny-image")
    requests = workload(table, arguments.requests, arguments.load)
    floor = simpy_event_s()
    print(f"a SimPy event costs {1e6 * floor:.2f} us here")
    for name in arguments.schedulers:
        controller = Controller(SCHEDULERS[name](), table, REPLICAS)
        simulation = Simulation(controller, World(table, REPLICAS, seed=0))
        started = time.perf_counter()
        end_s = simulation.run(requests)
        if arguments.log:
            write_log(controller, requests, table)
        wall_s = time.perf_counter() - started
        events = len(controller.launched) + len(requests)
        busy = sum(sum(outcome.device_s) for _, outcome, _ in controller.launched) / end_s / REPLICAS
        print(
            f"{name:22s} {len(requests) / wall_s:9,.0f} requests/s {events / wall_s:9,.0f} events/s  "
            f"{wall_s / events / floor:4.1f} x a SimPy event, {100 * busy:.0f} % busy"
        )


def workload(table: LatencyTable, count: int, load: float) -> list[Request]:
    """A Poisson trace with deadlines at five times the standalone latency."""
    sizes = parse_sizes("96x96:1,128x128:1,192x192:1")
    service_s = sum(table.standalone(Request("x", 0.0, h, w, 20)) for h, w, _ in sizes.values) / len(sizes.values)
    rate = load * REPLICAS / service_s
    trace = generate(rate=rate, duration_s=1.1 * count / rate, sizes=sizes, steps="20", seed=0)
    return trace.with_slo(scale=5.0, standalone=table.standalone).requests()[:count]


def simpy_event_s() -> float:
    """Seconds of one timeout of one process."""
    env = simpy.Environment()

    def tick():  # type: ignore[no-untyped-def]
        for _ in range(200_000):
            yield env.timeout(1)

    env.process(tick())
    started = time.perf_counter()
    env.run()
    return (time.perf_counter() - started) / 200_000


def write_log(controller: Controller, requests: list[Request], table: LatencyTable) -> None:
    """What `tilecast simulate` does after the simulation."""
    steps = step_table(controller, table.extrapolates)
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder), request_table(controller, requests, steps, table.standalone), steps, {}, [])


if __name__ == "__main__":
    main()
