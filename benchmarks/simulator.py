"""Simulated requests a second, as users run them and as the bare loop does, and which layer they are spent in.

    python -m benchmarks.simulator [--cases 8-replicas ...] [--schedulers fcfs ...] [--against FOLDER]

Every case is a Poisson trace that is replayed in two ways, in a fresh process. *End to end* is what ``tilecast
simulate`` does with a scenario of defaults: read the trace and the profile, simulate with online prediction, write the
run log, read it back, and compute every figure. *Bare* is the event loop alone, with predictions that do not learn.

Figures count CPU seconds, so that a busy machine changes them less; they are medians of ``--repeats`` processes. The
cost of a request is given in bare SimPy events, timed in the same process: the floor under any such simulator, and a
figure that hardly depends on the machine. ``--against`` has another checkout of Tilecast run the same cases by turns
with this one, and tells how many times as fast this one is.

Shares come from sampling the end-to-end run: every few milliseconds of CPU time the stack is looked at, and the time
since the last look counts for the innermost function that belongs to a layer. Helpers below all layers (jobs,
compositions, pandas) count for the layer that calls them; the event loop for SimPy. Nothing is wrapped and nothing
counted, so no overhead has to be subtracted.
"""

from __future__ import annotations

import argparse
import dis
import inspect
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import simpy

import tilecast as tc
from benchmarks.startup import first_request_s
from policies.controller import Controller
from policies.scheduling import SCHEDULERS
from predictors.latency_model import LatencyModel
from sim.driver import Simulation
from sim.world import World
from tilecast.setup import prepare
from traces.request import Request
from traces.sizes import parse_sizes
from traces.workload import generate

ROOT = Path(__file__).parents[1]
FEW_SIZES = "96x96:1,128x128:1,192x192:1"
MANY_SIZES = ",".join([f"{64 + 32 * row}x{64 + 32 * column}:1" for row in range(20) for column in range(20)])
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
    "policies/record.py": "log",
    "policies/runlog.py": "log",
    "tilecast/results.py": "log",
    "reports/": "figures",
    "tilecast/setup.py": "prepare",
}
"""Parts of paths, and the layers whose code lies there."""
SHOWN = tuple(dict.fromkeys(LAYERS.values()))
EVERY_S = 0.002
_ENTERED = dis.opmap["RESUME"]


@dataclass(frozen=True)
class Case:
    """A trace and a cluster.

    Attributes:
        replicas: of the cluster.
        sizes: spelled as for ``tilecast trace generate``.
        load: of what the replicas carry one request at a time.
        requests: how many; None: as many as ``--requests`` says.
        drops: whether schedulers that can give late requests up do.
        pools: that share the replicas evenly, all of the same hardware.
    """

    replicas: int = 8
    sizes: str = FEW_SIZES
    load: float = 0.8
    requests: int | None = None
    drops: bool = True
    pools: int = 1


CASES = {
    "8-replicas": Case(),
    "100-replicas": Case(replicas=100),
    "1000-replicas": Case(replicas=1000),
    "ten-pools": Case(replicas=1000, pools=10),
    "400-sizes": Case(sizes=MANY_SIZES),
    "backlog-2000": Case(load=1000.0, requests=2000, drops=False),
    "backlog-8000": Case(load=1000.0, requests=8000, drops=False),
    "million": Case(requests=1_000_000),
}
"""In a backlog all requests come at once and none is given up. The million is run only where it is named: minutes."""
USUAL = [name for name in CASES if name != "million"]
USUAL_SCHEDULERS = ["fcfs", "same-size-continuous", "lookahead"]


@dataclass(frozen=True)
class Measured:
    """What a process found.

    Attributes:
        event_s: CPU seconds of a bare SimPy event.
        whole_s: of the case end to end.
        bare_s: of its bare loop.
        requests, launches: of the end-to-end run.
        peak_mb: the most memory that the process had needed when the end-to-end run was over.
        shares: of the end-to-end run, by layer.
    """

    event_s: float
    whole_s: float
    bare_s: float
    requests: int
    launches: int
    peak_mb: float
    shares: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=USUAL)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", type=Path, help="a checkout of other code of Tilecast, to compare with")
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)  # of these: see `measure_in`
    parser.add_argument("--schedulers", nargs="+", choices=SCHEDULERS, default=USUAL_SCHEDULERS)
    given = parser.parse_args()
    if given.process:
        found = measure(CASES[given.cases[0]], given.schedulers[0], given.requests)
        print(json.dumps(asdict(found)))
        return
    heading = " ".join([f"{layer:>10s}" for layer in SHOWN])
    print("cost of a request in bare SimPy events; thousands of requests a CPU second; launches a request; memory")
    print(f"{'':35s}    bare   whole  bare k/s whole k/s launches       MB {heading}")
    for case in given.cases:
        for scheduler in given.schedulers:
            others, own = [], []
            for _ in range(given.repeats):
                if given.against is not None:
                    others.append(measure_in(given.against, case, scheduler, given.requests))
                own.append(measure_in(ROOT, case, scheduler, given.requests))
            if others:
                print(f"{case:14s} {scheduler:20s} {_spelled(others)}  against")
            print(f"{case:14s} {scheduler:20s} {_spelled(own)}", flush=True)
            if others:
                print(f"{'':35s} {_times(others, own, _bare):6.2f}x {_times(others, own, _whole):6.2f}x as fast")
    print(f"a simulation of few requests has started the first of them after {first_request_s():.2f} s of CPU time")


def measure_in(folder: Path, case: str, scheduler: str, requests: int) -> Measured:
    """Measure a case in a fresh process, with the code of Tilecast that lies in a folder."""
    options = ["--process", "--cases", case, "--requests", str(requests), "--schedulers", scheduler]
    environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
    command = [sys.executable, __file__, *options]
    answer = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return Measured(**json.loads(answer.splitlines()[-1]))


def measure(case: Case, scheduler: str, count: int) -> Measured:
    """Run a case end to end, then its bare loop."""
    policy: dict[str, Any] = {"name": scheduler}
    if not case.drops and "drop_late" in inspect.signature(SCHEDULERS[scheduler]).parameters:
        policy["drop_late"] = False
    sampler = Sampler(layer_of)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenario = tc.Scenario(
            model="tiny-image",
            trace=folder / "trace.parquet",
            profile="cpu-1core",
            scheduler=policy,
            replicas=case.replicas,
            slo={"scale": 5.0},
        ).replaced({"predictor.max_extrapolation": 1e6})  # of many sizes most are larger than any that was measured
        if case.pools > 1:
            each = case.replicas // case.pools
            scenario = scenario.replaced({"pool": [{"name": f"p{at}", "replicas": each} for at in range(case.pools)]})
        table = LatencyModel.fit(tc.Profile.load(ROOT / "profiles" / "cpu-1core.parquet"), "tiny-image")
        workload(case, table, case.requests or count).save(folder / "trace.parquet")
        event_s = [simpy_event_s() for _ in range(5)]
        begun_s = time.process_time()
        with sampler:
            result = tc.simulate(scenario, folder / "run")
            result.table()
        whole_s = time.process_time() - begun_s
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        requests, launches = len(result.requests), int(result.steps["launch_id"].nunique())
        del result
        prepared = prepare(scenario)
    bare_s = bare_loop_s(case, prepared.policy, prepared.requests, prepared.table)
    event_s += [simpy_event_s() for _ in range(5)]
    return Measured(
        event_s=statistics.median(event_s),
        whole_s=whole_s,
        bare_s=bare_s,
        requests=requests,
        launches=launches,
        peak_mb=peak_mb,
        shares={layer: sampler.share(layer) for layer in SHOWN},
    )


def bare_loop_s(case: Case, policy: tc.SchedulingPolicy, requests: list[Request], table: LatencyModel) -> float:
    """CPU seconds of the event loop alone, with predictions that do not learn."""
    controller = Controller(policy, table, case.replicas)
    if case.pools > 1:
        from policies.pool import Pool  # which older code, to compare with, does not have

        controller = Controller(policy, [Pool(table, case.replicas // case.pools) for _ in range(case.pools)])
    simulation = Simulation(controller, World(table, case.replicas, seed=0))
    begun_s = time.process_time()
    simulation.run(requests)
    return time.process_time() - begun_s


def workload(case: Case, table: LatencyModel, count: int) -> tc.Trace:
    """A Poisson trace of a case, of requests of 20 steps."""
    sizes = parse_sizes(case.sizes)
    service_s = sum(table.standalone_s(Request("x", 0.0, h, w, 20)) for h, w, _ in sizes.values) / len(sizes.values)
    rate = case.load * case.replicas / service_s
    return generate(rate=rate, duration_s=(1.2 * count + 50) / rate, sizes=sizes, steps="20", seed=0).head(count)


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


def _bare(found: Measured) -> float:
    return found.bare_s / found.requests / found.event_s


def _whole(found: Measured) -> float:
    return found.whole_s / found.requests / found.event_s


def _times(others: Sequence[Measured], own: Sequence[Measured], cost: Callable[[Measured], float]) -> float:
    """How many times less a request costs, the median of pairs of runs."""
    return statistics.median([cost(other) / cost(mine) for other, mine in zip(others, own, strict=True)])


def _spelled(runs: Sequence[Measured]) -> str:
    run = sorted(runs, key=_whole)[len(runs) // 2]
    bare, whole = (statistics.median(map(cost, runs)) for cost in (_bare, _whole))
    shares = " ".join([f"{100 * run.shares[layer]:8.0f} %" for layer in SHOWN])
    return (
        f"{bare:7.1f} {whole:7.1f} {run.requests / run.bare_s / 1000:9.1f} {run.requests / run.whole_s / 1000:9.1f} "
        f"{run.launches / run.requests:8.2f} {run.peak_mb:8.0f} {shares}"
    )


def layer_of(filename: str) -> str | None:
    """The layer whose code a file holds; None: whoever calls it."""
    return next((layer for part, layer in LAYERS.items() if f"/{part}" in filename), None)


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
