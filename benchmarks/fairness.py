"""What a floor under every size's attainment costs: `lookahead` with several, and another scheduler, one command.

    python -m benchmarks.fairness [--data ../shared/data] [--seeds 3] [--beside clockwork]

Prints, for some loads of one H100 with a uniform mix of 512, 768 and 1024 px, the attainment of all requests and of
each size; durations are those of the published measurements, as in `benchmarks.patchedserve`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.serving.contenders import OURS, Contender
from benchmarks.serving.measure import SLACK_S
from benchmarks.serving.point import Point, Source, predictor_of, requests_of, truth, world_of
from policies.controller import Controller
from sim.driver import Simulation
from sim.world import World
from traces.stages import ORDINARY

ROOT = Path(__file__).parents[1]
LOADS = (("sdxl", 5.0, 1.2), ("sdxl", 5.0, 1.5), ("sd3", 5.0, 0.5), ("sd3", 5.0, 0.555), ("sd3", 3.0, 0.45))
"""Model, deadline in multiples of the latency alone, requests a second."""
FLOORS = (0.0, 0.8, 0.9, 0.95)
REQUESTS = 800


def in_time(source: Source, point: Point, rate: float, contender: Contender) -> pd.DataFrame:
    """One row a request of a simulation: its ``size``, and whether it was finished ``in_time``."""
    costs = truth(source, point.model, point.engine)
    stages = tuple(stage for stage in ORDINARY if stage in costs.costs)
    controller = Controller(contender.policy(), predictor_of(source, point), 1, stages)
    Simulation(controller, World(world_of(source, point), 1, point.seed)).run(requests_of(source, point, rate))
    rows = [
        (
            f"{job.request.height}x{job.request.width}",
            job.state == "finished" and job.finish_s is not None and job.finish_s <= job.request.deadline + SLACK_S,
        )
        for job in controller.jobs
    ]
    return pd.DataFrame(rows, columns=["size", "in_time"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder with mixfusion/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--beside", default="clockwork", help="the scheduler without a floor to compare with")
    asked = parser.parse_args(arguments)
    source = Source(asked.data)
    if not source.present:
        print(f"skipped: no measurements under {asked.data / 'mixfusion' / 'profile'}", file=sys.stderr)
        return 0
    contenders = {asked.beside: Contender.of(asked.beside)}
    contenders |= {f"{OURS}, floor {floor:.0%}" if floor else OURS: Contender.of(OURS, fair=floor) for floor in FLOORS}
    for model, slo, rate in LOADS:
        shown = {}
        for name, contender in contenders.items():
            points = [Point(model, OURS, slo=slo, requests=REQUESTS, seed=seed) for seed in range(asked.seeds)]
            every = pd.concat([in_time(source, point, rate, contender) for point in points])
            shares = every.groupby("size")["in_time"].mean()
            order = sorted(shares.index, key=lambda size: int(size.partition("x")[0]))
            shown[name] = {"all": every["in_time"].mean(), **{size: shares[size] for size in order}}
        print(f"{model} at {rate:g}/s, deadlines of {slo:g} times the latency alone: in time, %")
        print((100 * pd.DataFrame(shown).T).round(1).to_string(), end="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
