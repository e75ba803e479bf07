"""Scaling policies over a bursty day: what each costs and keeps, beside clusters of fixed size. One command.

    python -m benchmarks.scaling [--seeds 4] [--data ../shared/data] [--start 30 --load 24 --warm-up 10]
    python -m benchmarks.scaling --promises [--plans 16] [--days 4] [--fresh 24] [--workers 2]

FLUX.1-dev, 50 steps, on L40S by the data sheet, first come first served, deadlines of three times the latency alone,
and at most eight replicas at 0.99 an hour (an example, put yours in its place). Two days: *synthetic*, whose rate
follows a sine between night and noon and quadruples or falls back every ten minutes or so, and *recorded*, in which it
follows the hours of GenTD26's sixteen days and is as bursty as they are (left out where ``--data`` has no gentd26/).
Every policy meets the same requests; a seed is another day of the kind. What a start takes is assumed: 30 s until a
machine is there, 24 GB of weights at 1 GB/s, 10 s of warm-up.

Prints, for each day, from the cheapest to the dearest: cost, attainment, P95, replicas paid for, starts; with intervals
of 95 % over the seeds. ``*`` marks those of which the lower end of the attainment's interval is at least the promise.

With ``--promises`` it asks how often what a plan chooses breaks its promise: so many times another recording of a few
synthetic days is planned for (``plan.scaling``, 0.02 requests a second, at most three replicas), with a promise of
95, 97 and 98 %, and what each plan chooses is simulated over days that no plan has seen, the same for all. A promise is
broken where fewer requests than promised are in time over all of these days. Prints what was chosen, how often, what
the plans say that it keeps and what it does keep.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import tilecast as tc
from reports.formatting import format_interval
from reports.output_analysis import Interval, interval
from tilecast.studies.scaling import ScalingChoice, plan_scaling
from traces.arrivals import Arrivals, parse_arrivals
from traces.importers.gentd26 import import_gentd26
from traces.mix import Mix
from traces.sizes import load_sizes
from traces.streams import stream
from traces.workload import Workload, fit

ROOT = Path(__file__).parents[1]
MODEL, HARDWARE, PRICE = "flux", "l40s", 0.99
MOST, SCALE, PROMISE, RATE = 8, 3.0, 0.95, 0.055
PLANNED_MOST, PLANNED_RATE, PROMISES = 3, 0.02, (0.95, 0.97, 0.98)
PLANNED = [
    {"name": "queue", "keep_alive_s": 60.0},
    {"name": "slo", "keep_alive_s": [60.0, 300.0]},
]
"""What plans choose from, beside clusters of fixed size."""
DAY_S = 86_400.0
BURSTY = "mmpp:4:600+diurnal:0.8"
FIGURES = {"cost": "x", "slo_attainment": "%", "latency_p95_s": "s", "replicas_mean": "x", "starts": ""}
Section = dict[str, Any]


def contenders(trace: tc.Trace, alone_s: float) -> dict[str, Section]:
    """What is compared, by name: a scaling policy with its knobs.

    Args:
        trace: a day, by whose hours the schedule is made: what an operator knows who has looked at the day before.
        alone_s: seconds of a request.
    """
    hours = np.bincount((trace.frame["arrival_s"].to_numpy() // 3600).astype(int) % 24, minlength=24)
    wanted = [min(MOST, max(1, math.ceil(count / 3600 * alone_s / 0.7))) for count in hours.tolist()]
    hourly = " ".join(f"{hour:02d}:00={count}" for hour, count in enumerate(wanted))
    found: dict[str, Section] = {f"fixed {count}": {"name": "fixed", "replicas": count} for count in (3, 4, 5, MOST)}
    found["schedule, yesterday's hours at 70 %"] = {"name": "schedule", "hours": hourly, "ahead_s": 120.0}
    for target in (0.6, 0.8):
        found[f"utilisation {target:.0%}"] = {"name": "utilisation", "target": target}
    for waiting in (1.0, 3.0):
        found[f"queue {waiting:g}"] = {"name": "queue", "waiting": waiting}
    found["queue 1, keep alive 60 s"] = {"name": "queue", "waiting": 1.0, "keep_alive_s": 60.0}
    found["slo"] = {"name": "slo"}
    found["slo, keep alive 60 s"] = {"name": "slo", "keep_alive_s": 60.0}
    found["slo, buffer 1, keep alive 60 s"] = {"name": "slo", "buffer": 1, "keep_alive_s": 60.0}
    return found


def scenario(trace: tc.Trace, scaling: Section, start: Section, seed: int) -> tc.Scenario:
    """A day under a scaling policy."""
    return tc.Scenario(
        model=MODEL,
        trace=trace,
        hardware=HARDWARE,
        seed=seed,
        slo={"scale": SCALE},
        cluster={"replicas": MOST, "price_per_hour": PRICE},
        policies={"scaling": scaling},
        scaling={"least": 1, **start},
    )


def days(data: Path) -> dict[str, Arrivals]:
    """The arrivals of each kind of day."""
    found = {"synthetic": parse_arrivals(BURSTY)}
    if (data / "gentd26").is_dir():
        sizes = load_sizes(data / "diffusiondb_sizes.csv")
        file = data / "gentd26" / "lora_request_trace.csv.gz"
        recorded = import_gentd26(file, sizes, spread_seconds=True).trace
        found["recorded"] = fit(recorded.with_model(MODEL)).arrivals
    return found


def measure(arrivals: Arrivals, seeds: int, start: Section) -> dict[str, dict[str, Interval]]:
    """Each contender's figures over the seeds."""
    values: dict[str, dict[str, list[float]]] = {}
    workload = Workload.asking(MODEL, RATE, arrivals=arrivals, steps=Mix((50,), (1.0,)))
    before = workload.generate(DAY_S, rng=stream(0, "benchmark/scaling/yesterday"))
    quiet = tc.simulate(scenario(before.head(1), {"name": "fixed"}, start, 0))
    alone_s = float(quiet.requests["standalone_s"].iloc[0])
    for seed in range(seeds):
        trace = workload.generate(DAY_S, rng=stream(seed, "benchmark/scaling"))
        for name, scaling in contenders(before, alone_s).items():
            figures = tc.simulate(scenario(trace, scaling, start, seed)).summary()
            for figure in FIGURES:
                values.setdefault(name, {}).setdefault(figure, []).append(float(figures[figure]))
    return {name: {figure: interval(found) for figure, found in of.items()} for name, of in values.items()}


def promises(plans: int, days: int, fresh: int, start: Section, workers: int | None) -> Table:
    """How often what a plan chooses breaks its promise.

    Args:
        plans: recordings that are planned for.
        days: whole days of each.
        fresh: days over which choices are simulated.
        start: what a start takes.
        workers: processes; None: one a core.
    """
    workload = Workload.asking(MODEL, PLANNED_RATE, arrivals=parse_arrivals(BURSTY), steps=Mix((50,), (1.0,)))
    unseen = [workload.generate(DAY_S, rng=stream(day, "benchmark/scaling/fresh")) for day in range(fresh)]
    chosen: dict[tuple[float, str], list[ScalingChoice]] = {}
    for number in range(plans):
        recorded = workload.generate((days + 1) * DAY_S, rng=stream(number, "benchmark/scaling/recorded"))
        planned: Section = {"seeds": 4, "max_seeds": 8, "scaling": PLANNED}
        with TemporaryDirectory() as folder:  # the same simulations for every promise
            for promise in PROMISES:
                given = {"cluster.replicas": PLANNED_MOST, "plan": {**planned, "attainment": promise}}
                asked = scenario(recorded, {"name": "fixed"}, start, number).replaced(given)
                answer = plan_scaling(asked, Path(folder) / "plan", workers=workers).answer
                if answer is not None:
                    chosen.setdefault((promise, answer.name), []).append(answer)

    @cache
    def kept(name: str) -> list[float]:
        section = next(choices[0].section for (_, of), choices in chosen.items() if of == name).model_dump()
        given = {"cluster.replicas": PLANNED_MOST}
        runs = [tc.simulate(scenario(trace, section, start, day).replaced(given)) for day, trace in enumerate(unseen)]
        return [float(run.summary()["slo_attainment"]) for run in runs]

    shown = Table("promise", "choice", "plans", "plans say", "fresh days", "broken", title_justify="left")
    broken = 0
    weights = [len(trace) / sum(map(len, unseen)) for trace in unseen]
    for (promise, name), choices in sorted(chosen.items(), key=lambda item: item[0]):
        truth = sum([weight * share for weight, share in zip(weights, kept(name), strict=True)])
        broken += len(choices) if truth < promise else 0
        shown.add_row(
            f"{promise:.0%}",
            name,
            str(len(choices)),
            format_interval(interval([choice.attainment.mean for choice in choices]), "%"),
            format_interval(interval(kept(name)), "%"),
            "yes" if truth < promise else "no",
        )
    made = sum(map(len, chosen.values()))
    shown.title = f"{broken} of {made} promises broken; {plans * len(PROMISES) - made} plans found nothing"
    return shown


def table(day: str, found: dict[str, dict[str, Interval]]) -> Table:
    """Cheapest first."""
    shown = Table("", *FIGURES, title=f"{day} day", title_justify="left")
    for name, figures in sorted(found.items(), key=lambda item: item[1]["cost"].mean):
        kept = "* " if figures["slo_attainment"].low >= PROMISE else "  "
        shown.add_row(kept + name, *[format_interval(figures[each], unit) for each, unit in FIGURES.items()])  # type: ignore[arg-type]
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder with gentd26/")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--promises", action="store_true", help="how often plans break their promise")
    parser.add_argument("--plans", type=int, default=16)
    parser.add_argument("--days", type=int, default=4, help="whole days of a recording that is planned for")
    parser.add_argument("--fresh", type=int, default=24, help="days over which choices are simulated")
    parser.add_argument("--workers", type=int, default=None, help="processes; one a core")
    parser.add_argument("--start", type=float, default=30.0, help="seconds until a machine is there")
    parser.add_argument("--load", type=float, default=24.0, help="seconds of its load")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds from there until it takes requests")
    asked = parser.parse_args(arguments)
    start = {"provisioning_s": asked.start, "load_s": asked.load, "warm_up_s": asked.warm_up}
    console = Console(width=130)
    if asked.promises:
        console.print(promises(asked.plans, asked.days, asked.fresh, start, asked.workers))
        return
    for day, arrivals in days(asked.data).items():
        console.print(table(day, measure(arrivals, asked.seeds, start)))


if __name__ == "__main__":
    main()
