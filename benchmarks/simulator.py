"""Simulated requests a second, by scheduler, on one core, and which layer they are spent in.

    python -m benchmarks.simulator [--requests 100000] [SCHEDULER ...]

Replays a Poisson trace of three sizes over eight replicas at about 80 % load, with noise, without and with building and
writing the run log. Figures are medians of ``--repeats`` runs. They count this process's CPU seconds, so that a busy
machine changes them little; how much of a core it had is printed. An event is the arrival of a request or the end of a
launch, and its cost is given as a multiple of a bare SimPy event in the same process, the floor under any such
simulator. Last, what it takes to start (`benchmarks.startup`).

Shares come from sampling: every few milliseconds of CPU time the stack is looked at, and the time since the last look
counts for the innermost function that belongs to a layer. Helpers below all layers (jobs, compositions) count for the
layer that calls them; the event loop for SimPy. Nothing is wrapped and nothing counted, so no overhead has to be
subtracted.
"""

from __future__ import annotations

import argparse
import dis
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import simpy

from benchmarks.startup import first_request_s
from policies.controller import Controller
from policies.record import request_table, step_table
from policies.runlog import write_run
from policies.scheduling import SCHEDULERS
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from sim.driver import Simulation
from sim.world import World
from traces.request import Request
from traces.sizes import parse_sizes
from traces.workload import generate

REPLICAS = 8
ROOT = Path(__file__).parents[1]
PROFILE = ROOT / "profiles" / "cpu-1core.parquet"
LAYERS = {
    "simpy/": "SimPy",
    "sim/driver.py": "driver",
    "sim/timeline.py": "driver",
    "sim/world.py": "world",
    "policies/controller.py": "controller",
    "policies/router.py": "controller",
    "policies/rules.py": "controller",
    "policies/contract.py": "controller",
    "policies/routing/": "policy",
    "policies/scheduling/": "policy",
    "predictors/": "predictor",
}
"""Parts of paths, and the layers whose code lies there."""
SHOWN = tuple(dict.fromkeys(LAYERS.values()))
EVERY_S = 0.002
_ENTERED = dis.opmap["RESUME"]


class Run(NamedTuple):
    """CPU seconds of the simulation and of its log, wall-clock seconds of both, and events."""

    simulated_s: float
    log_s: float
    wall_s: float
    events: int
    busy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--load", type=float, default=0.8, help="of what the replicas carry one request at a time")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("schedulers", nargs="*", default=list(SCHEDULERS))
    arguments = parser.parse_args()

    table = LatencyModel.fit(Profile.load(PROFILE), "tiny-image")
    requests = workload(table, arguments.requests, arguments.load)
    floor_s = statistics.median([simpy_event_s() for _ in range(5)])
    print(f"a SimPy event costs {1e6 * floor_s:.2f} us here; thousands of requests and events a second:")
    heading = " ".join([f"{layer:>10s}" for layer in SHOWN])
    print(f"{'':21s} req/s with log   ev/s x SimPy {heading}   busy")
    cpu_s = wall_s = 0.0
    for name in arguments.schedulers:
        sampler = Sampler(layer_of)
        runs = [simulate(name, requests, table, sampler) for _ in range(arguments.repeats)]
        run = sorted(runs)[len(runs) // 2]
        both_s = statistics.median([each.simulated_s + each.log_s for each in runs])
        shares = " ".join([f"{100 * sampler.share(layer):8.0f} %" for layer in SHOWN])
        print(
            f"{name:21s} {len(requests) / run.simulated_s / 1000:5.1f} {len(requests) / both_s / 1000:8.1f} "
            f"{run.events / run.simulated_s / 1000:6.1f} {run.simulated_s / run.events / floor_s:7.1f} {shares} "
            f"{100 * run.busy:4.0f} %"
        )
        cpu_s += sum([each.simulated_s + each.log_s for each in runs])
        wall_s += sum([each.wall_s for each in runs])
    print(f"this process had {100 * cpu_s / wall_s:.0f} % of a core")
    print(f"a simulation of few requests has started the first of them after {first_request_s():.2f} s of CPU time")


def simulate(name: str, requests: list[Request], table: LatencyModel, sampler: Sampler) -> Run:
    """One simulation and its log."""
    controller = Controller(SCHEDULERS[name](), table, REPLICAS)
    simulation = Simulation(controller, World(table, REPLICAS, seed=0))
    began, started = time.perf_counter(), time.process_time()
    with sampler:
        end_s = simulation.run(requests)
    simulated_s = time.process_time() - started
    write_log(controller, requests, table)
    log_s = time.process_time() - started - simulated_s
    wall_s = time.perf_counter() - began
    busy = sum([sum(outcome.device_s) for _, outcome, _ in controller.launched]) / end_s / REPLICAS
    return Run(simulated_s, log_s, wall_s, len(controller.launched) + len(requests), busy)


def workload(table: LatencyModel, count: int, load: float) -> list[Request]:
    """A Poisson trace with deadlines at five times the standalone latency."""
    sizes = parse_sizes("96x96:1,128x128:1,192x192:1")
    service_s = sum(table.standalone_s(Request("x", 0.0, h, w, 20)) for h, w, _ in sizes.values) / len(sizes.values)
    rate = load * REPLICAS / service_s
    trace = generate(rate=rate, duration_s=1.1 * count / rate, sizes=sizes, steps="20", seed=0)
    return trace.with_slo(scale=5.0, standalone=table.standalone_s).requests()[:count]


def simpy_event_s() -> float:
    """CPU seconds of one timeout of one process."""
    env = simpy.Environment()

    def tick():  # type: ignore[no-untyped-def]
        for _ in range(100_000):
            yield env.timeout(1)

    env.process(tick())
    started = time.process_time()
    env.run()
    return (time.process_time() - started) / 100_000


def write_log(controller: Controller, requests: list[Request], table: LatencyModel) -> None:
    """What `tilecast simulate` does after the simulation."""
    steps = step_table(controller, table.extrapolates)
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder), request_table(controller, requests, steps, table.standalone_s), steps, {}, [])


def layer_of(filename: str) -> str | None:
    """The layer whose code a file holds; None: whoever calls it."""
    path = filename.removeprefix(f"{ROOT}/")
    return next((layer for part, layer in LAYERS.items() if path.startswith(part) or f"/{part}" in filename), None)


class Sampler:
    """Where the CPU time inside ``with`` blocks goes.

    Args:
        layer_of: from a file's name to the layer it counts for; None: to that of its caller.
    """

    def __init__(self, layer_of: Callable[[str], str | None]) -> None:
        self._layer_of = layer_of
        self._known: dict[str, str | None] = {}
        self._seconds: Counter[str] = Counter()
        self._last_s = 0.0

    def share(self, layer: str) -> float:
        """The layer's share of all time sampled."""
        return self._seconds[layer] / (sum(self._seconds.values()) or 1.0)

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGPROF, self._look)
        self._last_s = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, self._before)

    def _look(self, _: int, frame: FrameType | None) -> None:
        now_s = time.process_time()
        if frame is not None and frame.f_code.co_code[frame.f_lasti] == _ENTERED:
            frame = frame.f_back  # the time went by before the call
        while frame is not None:
            filename = frame.f_code.co_filename
            if filename not in self._known:
                self._known[filename] = self._layer_of(filename)
            layer = self._known[filename]
            if layer is not None:
                self._seconds[layer] += now_s - self._last_s
                break
            frame = frame.f_back
        self._last_s = now_s


if __name__ == "__main__":
    main()
