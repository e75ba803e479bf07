"""How near schedulers come to what somebody could do who knows the future: small bursts on one replica, one command.

    python -m benchmarks.optimum [--data ../shared/data] [--models sdxl sd3] [--instances 40] [-o FILE] [SCHEDULER ...]

A burst is 4 to 8 requests of any size that come at once, or within two mean latencies of each other, each with one of
several deadlines, in multiples of its latency alone. Durations are those of the published measurements without noise,
and the schedulers' predictions are right. So what a scheduler loses, it loses by what it decides.

What the optimum is over: schedules on one replica that know all arrivals, and that at every step boundary run any set
of the requests that have come, up to ``max_batch`` images, start any, pause any and go on with any later. It is the
most requests for which the following program has a solution, found by branch and bound (HiGHS). Time is parted at all
arrivals and deadlines; a variable says how many steps of a stage a set runs in a part; a part's steps fit into it, and
a chosen request gets all steps of all of its stages between its arrival and its deadline. Steps may be parts of steps
there, and a request's stages come in any order, so it is an upper bound of what can be done, above it by less than
what rounding to whole steps costs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from benchmarks.outputs import BENCHMARK
from benchmarks.serving.measure import SLACK_S
from benchmarks.serving.point import Source, truth
from policies.controller import Controller
from policies.scheduling import SCHEDULERS
from predictors.costs import Batch, CostModel
from sim.driver import Simulation
from sim.world import World
from traces.composition import composition_of
from traces.files import write_frame
from traces.request import Request
from traces.stages import ORDINARY
from traces.streams import stream

ROOT = Path(__file__).parents[1]
SIDES = (512, 768, 1024)
DEADLINES = {"3 5 10": (3.0, 5.0, 10.0), "1.5 3 5 10": (1.5, 3.0, 5.0, 10.0), "1.2 2 3": (1.2, 2.0, 3.0)}
SPREADS = (0.0, 2.0)
"""Within how many mean latencies alone a burst comes, drawn uniformly: at once, and one after another."""
STEPS = 50
MAX_BATCH = 12
"""Images in a batch: what the schedulers of the published comparison may hold."""


def burst(costs: CostModel, model: str, count: int, deadlines: str, spread: float, seed: int) -> list[Request]:
    """Requests of a burst, in order of arrival.

    Args:
        costs: what takes how long alone.
        model: that all are of.
        count: requests.
        deadlines: of `DEADLINES`, from which each draws its own.
        spread: mean latencies alone within which they come.
        seed: same seed, same burst.
    """
    rng = stream(seed, f"benchmark/burst/{model}/{count}/{deadlines}/{spread:g}")
    alone = {side: costs.standalone_s(Request("alone", 0.0, side, side, STEPS, model=model)) for side in SIDES}
    arrivals = np.sort(rng.uniform(0.0, spread * np.mean(list(alone.values())), count))
    sides, slos = rng.choice(SIDES, count), rng.choice(DEADLINES[deadlines], count)
    return [
        Request(f"r{i}", float(at), int(side), int(side), STEPS, model=model, slo_s=float(slo) * alone[int(side)])
        for i, (at, side, slo) in enumerate(zip(arrivals, sides, slos, strict=True))
    ]


def most_in_time(costs: CostModel, requests: Sequence[Request], stages: Sequence[str], max_batch: int) -> int:
    """The most of some requests that one replica can finish in time: an upper bound, as this module's text says.

    Args:
        costs: what a step of a stage takes for a set of requests.
        requests: that come; they are guided alike.
        stages: that they go through.
        max_batch: images in a batch.
    """
    count = len(requests)
    times = sorted({at for r in requests for at in (r.arrival_s, r.deadline)})
    parts = list(itertools.pairwise(times))
    rows, columns, values, objective = [], [], [], [-1.0] * count
    recipe = {stage: [dict(costs.recipe(r)).get(stage, 0) for r in requests] for stage in stages}
    row_of = {(stage, i): row for row, (stage, i) in enumerate(itertools.product(stages, range(count)))}
    known: dict[tuple[str, tuple[int, ...]], float] = {}

    def entry(row: int, column: int, value: float) -> None:
        rows.append(row)
        columns.append(column)
        values.append(value)

    for (stage, i), row in row_of.items():
        entry(row, i, -float(recipe[stage][i]))
    for part, (start_s, end_s) in enumerate(parts):
        there = [i for i, r in enumerate(requests) if r.arrival_s <= start_s and r.deadline >= end_s]
        for stage, members in itertools.product(stages, _subsets(there)):
            if sum(requests[i].images for i in members) > max_batch and len(members) > 1:
                continue
            step_s = known.get((stage, members))
            if step_s is None:
                step_s = known[stage, members] = _step_s(costs, stage, [requests[i] for i in members])
            column = len(objective)
            objective.append(0.0)
            entry(len(row_of) + part, column, step_s)
            for i in members:
                entry(row_of[stage, i], column, 1.0)
    size = len(row_of) + len(parts), len(objective)
    matrix = coo_array((values, (rows, columns)), shape=size).tocsr()
    lower = np.concatenate([np.zeros(len(row_of)), np.full(len(parts), -np.inf)])
    upper = np.concatenate([np.full(len(row_of), np.inf), [end_s - start_s for start_s, end_s in parts]])
    whole = np.arange(size[1]) < count
    found = milp(
        np.array(objective),
        options={"presolve": False},
        constraints=LinearConstraint(matrix, lower, upper),
        integrality=whole.astype(int),
        bounds=Bounds(0.0, np.where(whole, 1.0, np.inf)),
    )
    if found.x is None:
        raise RuntimeError(f"the program has no solution: {found.message}")
    return round(-found.fun)


def _subsets(of: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All but the empty one."""
    return itertools.chain.from_iterable(itertools.combinations(of, n) for n in range(1, len(of) + 1))


def _step_s(costs: CostModel, stage: str, requests: Iterable[Request]) -> float:
    counted = [(r.size, r.images, r.guided) for r in requests]
    composition = composition_of([(size, images) for size, images, _ in counted])
    return costs.step_s(stage, Batch(next(iter(requests)).model, composition, float(counted[0][2])))


def in_time(costs: CostModel, requests: Sequence[Request], stages: tuple[str, ...], scheduler: str) -> int:
    """How many of some requests a scheduler finishes in time, when things take what it is told they take."""
    kind = SCHEDULERS[scheduler]
    controller = Controller(kind(), costs, 1, stages)
    Simulation(controller, World(costs, 1, noise=False)).run(requests)
    return sum(
        job.state == "finished" and job.finish_s is not None and job.finish_s <= job.request.deadline + SLACK_S
        for job in controller.jobs
    )


def measure(source: Source, models: Sequence[str], schedulers: Sequence[str], instances: int) -> pd.DataFrame:
    """One row a burst: what it is, the optimum, and what each scheduler finishes in time."""
    rows = []
    for model in models:
        costs = truth(source, model, "patched")
        stages = tuple(stage for stage in ORDINARY if stage in costs.costs)
        for deadlines, spread, seed in itertools.product(DEADLINES, SPREADS, range(instances)):
            requests = burst(costs, model, 4 + seed % 5, deadlines, spread, seed)
            row: dict[str, object] = {"model": model, "deadlines": deadlines, "spread": spread, "seed": seed}
            row["requests"] = len(requests)
            row["optimum"] = most_in_time(costs, requests, stages, MAX_BATCH)
            rows.append(row | {name: in_time(costs, requests, stages, name) for name in schedulers})
    return pd.DataFrame(rows)


def shares(bursts: pd.DataFrame, schedulers: Sequence[str]) -> pd.DataFrame:
    """Of what the optimum finishes in time, the share that each scheduler does, by spread, deadlines and model."""
    sums = bursts.groupby(["spread", "deadlines", "model"])[["optimum", *schedulers]].sum()
    return sums[list(schedulers)].div(sums["optimum"], axis=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder with mixfusion/")
    parser.add_argument("--profile", type=Path, help="a profile instead of the published measurements")
    parser.add_argument("--models", nargs="+", default=["sdxl", "sd3"])
    parser.add_argument("--instances", type=int, default=40, help="bursts of a model, deadlines and spread")
    parser.add_argument("-o", "--output", type=Path, help="a Parquet file of all bursts")
    parser.add_argument("schedulers", nargs="*", help="by default all")
    asked = parser.parse_args(arguments)
    source = Source(asked.data, asked.profile)
    if not source.present:
        print(f"skipped: no measurements under {asked.data / 'mixfusion' / 'profile'}", file=sys.stderr)
        return 0
    schedulers = asked.schedulers or list(SCHEDULERS)
    bursts = measure(source, asked.models, schedulers, asked.instances)
    print(f"Share of what the optimum finishes in time, %; {len(bursts)} bursts of 4 to 8 requests, one replica")
    print((100 * shares(bursts, schedulers)).T.round(1).to_string())
    print(f"The optimum is {100 * bursts['optimum'].sum() / bursts['requests'].sum():.1f} % of all requests")
    if asked.output is not None:
        write_frame(bursts, asked.output, kind=BENCHMARK)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
