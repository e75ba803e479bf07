"""The simulator against queueing theory, and how far its verdicts can be trusted.

    python -m benchmarks.queues [--seeds 20] [--requests 20000] [--groups 40] [--most 16000] [--loads 0.7 ...]

First table: mean waits of queues that have a formula, run through the real simulator and controller with the `fcfs`
policy, beside the formula, with the interval of independent replications; ``inside``: it holds the theory.
Second table: how often a cluster at a given load is called STABLE, NEAR KNEE or UNSTABLE, when its horizon is doubled
from 1,000 requests as the planner does it, by what its runs show, without being told its load. Below 1 UNSTABLE is a
false alarm; above 1 STABLE is a miss.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.queueing import ggc_wait_s
from policies.contract import SchedulingPolicy
from policies.controller import Controller
from policies.pool import Pool
from policies.record import run_arrays
from policies.scheduling import EDF, FCFS
from predictors.costs import Batch, CostModel, RepeatNoise
from reports.output_analysis import interval
from reports.plan.result import NEAR_KNEE, STABLE, UNSTABLE
from sim.driver import Simulation
from sim.world import World
from tilecast.studies.replication import Replication, observe
from tilecast.studies.verdict import judge, need_longer
from traces.request import Request
from traces.streams import stream

SERVICE_S = 1.0
_PARTS = (np.arange(2001) + 0.5) / 2001
WIDTHS = {STABLE: 8, NEAR_KNEE: 10, UNSTABLE: 9}
Numbers = npt.NDArray[np.float64]
Arrivals = Callable[[int, float, np.random.Generator], Numbers]

CONSTANT = (1.0,)
EXPONENTIAL = tuple((-np.log1p(-_PARTS)).tolist())
HYPEREXPONENTIAL = tuple(
    np.concatenate([0.5 * np.array(EXPONENTIAL), 0.5 * np.array(EXPONENTIAL), 2 * np.array(EXPONENTIAL)]).tolist()
)
"""Service times as quantiles of their distribution; the last one: every third is four times as long as the others."""


@dataclass(frozen=True)
class Queue(CostModel):
    """One kind of request of one step, whose seconds are drawn from ``ratios`` (mean 1): a world and a predictor.

    Attributes:
        ratios: equally likely.
        steps: that one draw holds for.
    """

    ratios: tuple[float, ...] = EXPONENTIAL
    steps: int = 1

    def step_s(self, stage: str, batch: Batch) -> float:
        """Seconds of a step before the draw: a batch takes as long as its requests would one by one."""
        return SERVICE_S * sum([count for _, count in batch.composition])

    def standalone_s(self, request: Request) -> float:
        """Seconds of a request, in the mean."""
        return SERVICE_S

    def noise(self, stage: str) -> RepeatNoise:
        """The draws."""
        return RepeatNoise(self.ratios, self.steps)

    @property
    def scv(self) -> float:
        """Variance over squared mean."""
        return float(np.var(self.ratios) / np.mean(self.ratios) ** 2)


def poisson(count: int, rate_rps: float, rng: np.random.Generator) -> Numbers:
    """Times of ``count`` independent arrivals; the first of more are those of fewer."""
    return np.cumsum(rng.exponential(1 / rate_rps, count))


def daily(day_s: float, swing: float) -> Arrivals:
    """Arrivals whose rate rises and falls by the share ``swing`` within a day."""

    def arrivals(count: int, rate_rps: float, rng: np.random.Generator) -> Numbers:
        even_s = poisson(count, rate_rps, rng)
        clock_s = np.linspace(0.0, even_s[-1] * 1.1 + day_s, 100_000)
        expected_s = clock_s + swing * day_s / (2 * np.pi) * (1 - np.cos(2 * np.pi * clock_s / day_s))
        return np.interp(even_s, expected_s, clock_s)

    return arrivals


def run(
    queue: Queue,
    load: float,
    requests: int,
    seed: int,
    servers: int = 1,
    policy: SchedulingPolicy | None = None,
    slo_s: float | None = None,
    arrivals: Arrivals = poisson,
    period_s: float | None = None,
) -> Replication:
    """One replication of a queue at a load, through simulator and controller."""
    times_s = arrivals(requests, load * servers / SERVICE_S, stream(seed, "arrivals"))
    asked = [Request(str(i), at_s, 64, 64, 1, slo_s=slo_s) for i, at_s in enumerate(times_s.tolist())]
    controller = Controller(policy or FCFS(), queue, servers, ("denoise",))
    Simulation(controller, World(queue, servers, seed)).run(asked)
    arrays = run_arrays(controller, asked, [Pool(queue, servers)])
    return observe(controller, arrays, float(times_s[-1]), period_s=period_s)


def doubled(
    replicate: Callable[[int, int], Replication], seeds: Sequence[int], first: int = 1_000, most: int = 16_000
) -> list[Replication]:
    """Replications (of a number of requests and a seed) long enough to judge, or as long as they may be."""
    requests = first
    while True:
        replications = [replicate(requests, seed) for seed in seeds]
        if requests >= most or not need_longer(replications):
            return replications
        requests *= 2


def theory(requests: int, seeds: int) -> None:
    print(f"mean wait in service times, {seeds} x {requests:,} requests, 99 % intervals")
    print(f"{'queue':8s} {'load':>5s} {'theory':>8s} {'simulated':>10s} {'+-':>7s}  inside")
    for name, queue, servers in (
        ("M/M/1", Queue(EXPONENTIAL), 1),
        ("M/M/2", Queue(EXPONENTIAL), 2),
        ("M/M/8", Queue(EXPONENTIAL), 8),
        ("M/D/1", Queue(CONSTANT), 1),
        ("M/H2/1", Queue(HYPEREXPONENTIAL), 1),
        ("M/D/8*", Queue(CONSTANT), 8),
        ("M/H2/8*", Queue(HYPEREXPONENTIAL), 8),
    ):
        for load in (0.5, 0.8, 0.95):
            expected_s = ggc_wait_s(load * servers, SERVICE_S, servers, service_scv=queue.scv)
            found = interval([run(queue, load, requests, seed, servers).wait_mean_s for seed in range(seeds)], 0.99)
            inside = "yes" if found.low <= expected_s <= found.high else "no"
            print(
                f"{name:8s} {load:5.2f} {expected_s:8.3f} {found.mean:10.3f} {found.half_width:7.3f}  {inside}",
                flush=True,
            )
    print("* Lee and Longton's approximation")


@dataclass(frozen=True)
class Cluster:
    """What is judged in a row of the second table: `run`'s arguments."""

    name: str
    load: float
    servers: int = 1
    policy: SchedulingPolicy | None = None
    arrivals: Arrivals = poisson
    period_s: float | None = None

    def replicate(self, requests: int, seed: int) -> Replication:
        """One replication; each request should be done within 100 service times."""
        slo_s = 100 * SERVICE_S
        return run(Queue(), self.load, requests, seed, self.servers, self.policy, slo_s, self.arrivals, self.period_s)


def clusters() -> list[Cluster]:
    """The rows of the second table."""
    loads = (0.7, 0.85, 0.95, 1.02, 1.05, 1.2)
    dropping, days, day_s = EDF(max_batch=1, drop_late=True), daily(1_000.0, 0.5), 1_000.0
    return [
        *[Cluster("fcfs", load) for load in loads],
        *[Cluster("fcfs, 8 replicas", load, 8) for load in loads],
        *[Cluster("edf that drops", load, 1, dropping) for load in loads],
        *[Cluster("fcfs, days", load, arrivals=days, period_s=day_s) for load in (0.6, 1.05)],
        *[Cluster("fcfs, days not told", load, arrivals=days) for load in (0.6, 1.05)],
    ]


def verdicts(rows: Sequence[Cluster], groups: int, seeds: int, most: int) -> None:
    print(f"\nverdicts over {groups} clusters, each of {seeds} seeds, from 1,000 to {most:,} requests")
    print(f"{'scheduler':20s} {'load':>5s} {STABLE:>8s} {NEAR_KNEE:>10s} {UNSTABLE:>9s} {'requests':>9s}")
    for cluster in rows:
        states: Counter[str] = Counter()
        lengths = []
        for group in range(groups):
            replications = doubled(cluster.replicate, range(group * seeds, (group + 1) * seeds), most=most)
            states[judge(replications, None, 0.95).state] += 1
            lengths.append(replications[0].submitted)
        shares = [f"{states[state] / groups:{width}.0%}" for state, width in WIDTHS.items()]
        print(f"{cluster.name:20s} {cluster.load:5.2f} {' '.join(shares)} {np.mean(lengths):9,.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="replications of a queue in the first table; 0: none")
    parser.add_argument("--requests", type=int, default=20_000, help="of one of them")
    parser.add_argument("--groups", type=int, default=40, help="clusters judged in a row of the second table")
    parser.add_argument("--most", type=int, default=16_000, help="requests that a horizon is doubled to")
    parser.add_argument("--loads", type=float, nargs="*", help="rows of the second table: of these loads only")
    arguments = parser.parse_args()
    if arguments.seeds:
        theory(arguments.requests, arguments.seeds)
    rows = [row for row in clusters() if arguments.loads is None or row.load in arguments.loads]
    verdicts(rows, arguments.groups, 5, arguments.most)


if __name__ == "__main__":
    main()
