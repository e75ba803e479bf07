"""How many devices a request deserves: policies that choose degrees beside the best static one. One command.

    python -m benchmarks.degrees [--mixes flux flux-large qwen-image sd3 wan] [--seeds 5] [--requests 400]

One node of eight H100s, times by the data sheet (ESTIMATED), compiled. Every mix draws its sizes alike; a request is
due 1.0 to 5.0 times, drawn evenly, what it takes alone at its best degree. Requests come at 0.4, 0.7 and 1.0 of what
eight devices can do one by one, as a Poisson process or in bursts (gaps of a coefficient of variation of 3).

Static degrees are 8, 4, 2 and 1 replicas of 1, 2, 4 and 8 devices, each under `edf`, `clockwork` and our own
`lookahead`, which batches, looks ahead and drops, but takes all devices of its replica; of these twelve the best is
taken for every mix, load and kind of arrivals. Beside them TetriServe, greedy best fit and the load-adaptive degree.

Prints the share of all requests that are in time, means over the seeds with intervals of 95 %, and for each mix how
many times as many `lookahead` has in time as each of the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import tilecast as tc
from predictors.costs import CostModel, OnDevices
from reports.formatting import format_interval
from reports.output_analysis import Interval, interval
from tilecast.setup import prepare
from traces.streams import stream

DEVICES, LOADS, BURST_CV = 8, (0.4, 0.7, 1.0), 3.0
TIGHTEST, LOOSEST = 1.0, 5.0
STATIC = (("edf", {}), ("clockwork", {}), ("lookahead", {"elastic": False}))
ELASTIC = ("lookahead", "tetriserve", "best-fit", "load-adaptive")


class DrawnMix(NamedTuple):
    """What requests of a mix are drawn from, each size as often as the others.

    Attributes:
        model: whose requests they are.
        sizes: (height, width, frames) in pixels.
        steps: denoising steps.
        guidance: guidance scale; of a model that has it distilled, 1.
    """

    model: str
    sizes: tuple[tuple[int, int, int], ...]
    steps: int
    guidance: float


def _squares(*edges: int) -> tuple[tuple[int, int, int], ...]:
    return tuple([(edge, edge, 1) for edge in edges])


MIXES = {
    "flux": DrawnMix("flux", _squares(256, 512, 1024, 2048), 28, 1.0),
    "flux-large": DrawnMix("flux", _squares(1024, 1536, 2048), 28, 1.0),
    "qwen-image": DrawnMix("qwen-image", _squares(512, 1024, 1536), 50, 4.0),
    "sd3": DrawnMix("sd3", _squares(256, 512, 1024), 28, 5.0),
    "wan": DrawnMix("wan-1.3b", ((480, 832, 33), (480, 832, 81), (320, 576, 33)), 50, 5.0),
}


def scenario(trace: tc.Trace, mix: DrawnMix, degree: int, scheduler: str, options: dict[str, Any]) -> tc.Scenario:
    """One node under a scheduler, as replicas of ``degree`` devices."""
    return tc.Scenario(
        model=mix.model,
        trace=trace,
        predictor={"hardware": "h100-sxm", "engine": "compile"},
        slo={},
        cluster={"replicas": DEVICES // degree, "devices": degree},
        policies={"scheduling": {"name": scheduler, **options}},
    )


def requests(mix: DrawnMix, costs: CostModel, load: float, cv: float, count: int, seed: int) -> tc.Trace:
    """A trace of a mix at a load."""
    rng = stream(seed, f"benchmark/degrees/{mix.model}")
    asked = [_request(mix, size, 0, 0.0, None) for size in mix.sizes]
    alone_s = [OnDevices(costs, 1).standalone_s(request) for request in asked]
    best_s = [min([OnDevices(costs, k).standalone_s(request) for k in costs.degrees(mix.model)]) for request in asked]
    gap_s = float(np.mean(alone_s)) / DEVICES / load
    arrivals_s = np.cumsum(rng.gamma(1 / cv**2, gap_s * cv**2, count))
    drawn = []
    for i, at_s in enumerate(arrivals_s.tolist()):
        which = int(rng.integers(len(mix.sizes)))
        slo_s = float(rng.uniform(TIGHTEST, LOOSEST)) * best_s[which]
        drawn.append(_request(mix, mix.sizes[which], i, at_s, slo_s))
    return tc.Trace.from_requests(drawn)


def _request(mix: DrawnMix, size: tuple[int, int, int], i: int, at_s: float, slo_s: float | None) -> tc.Request:
    height, width, frames = size
    return tc.Request(
        f"r{i}",
        at_s,
        height,
        width,
        mix.steps,
        frames=frames,
        model=mix.model,
        guidance_scale=mix.guidance,
        slo_s=slo_s,
    )


Contender = tuple[str, int]
"""A scheduler and the devices of a replica; of those that choose degrees, all."""


def measure(mix: DrawnMix, load: float, cv: float, count: int, seeds: int) -> dict[Contender, list[float]]:
    """The share in time of each contender, by seed."""
    alone = tc.Trace.from_requests([_request(mix, mix.sizes[0], 0, 0.0, None)])
    costs = prepare(scenario(alone, mix, DEVICES, "fcfs", {})).pools[0].costs
    found: dict[Contender, list[float]] = {}
    for seed in range(seeds):
        trace = requests(mix, costs, load, cv, count, seed)
        cases = [(name, DEVICES, {}, name) for name in ELASTIC]
        degrees = [degree for degree in (1, 2, 4, 8) if degree in costs.degrees(mix.model)]
        cases += [(f"static {name}", degree, options, name) for degree in degrees for name, options in STATIC]
        for label, degree, options, name in cases:
            figures = tc.simulate(scenario(trace, mix, degree, name, options)).summary()
            found.setdefault((label, degree), []).append(float(figures["slo_attainment"]))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixes", nargs="+", choices=list(MIXES), default=list(MIXES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400)
    given = parser.parse_args(arguments)
    console = Console(width=150)
    columns = ("lookahead", "tetriserve", "best-fit", "load-adaptive")
    shown = Table("mix", "load", "arrivals", *columns, "best static", "of published ones", title="requests in time")
    ratios: dict[str, list[list[float]]] = {}
    for name in given.mixes:
        for load in LOADS:
            for cv in (1.0, BURST_CV):
                found = measure(MIXES[name], load, cv, given.requests, given.seeds)
                static = {of: values for of, values in found.items() if of[0].startswith("static")}
                ours = max(static, key=lambda of: float(np.mean(static[of])))
                others = {of: values for of, values in static.items() if of[0] != "static lookahead"}
                published = max(others, key=lambda of: float(np.mean(others[of])))
                shown.add_row(
                    name,
                    f"{load:g}",
                    "poisson" if cv == 1.0 else "bursts",
                    *[_share(found[each, DEVICES]) for each in columns],
                    *[f"{_share(static[of])} {of[0].split()[1]} {of[1]}" for of in (ours, published)],
                )
                of_lookahead = float(np.mean(found["lookahead", DEVICES]))
                compared = [found["tetriserve", DEVICES], static[ours], static[published]]
                compared += [found[each, DEVICES] for each in columns[2:]]
                ratios.setdefault(name, []).append([of_lookahead / float(np.mean(each)) for each in compared])
    console.print(shown)
    times = Table(
        "lookahead over", "tetriserve", "best static", "of published ones", *columns[2:], "least over best static"
    )
    for name, rows in ratios.items():
        times.add_row(
            name, *[f"{value:.2f}x" for value in np.mean(rows, axis=0)], f"{min(row[1] for row in rows):.2f}x"
        )
    every = [row for rows in ratios.values() for row in rows]
    times.add_row("all", *[f"{value:.2f}x" for value in np.mean(every, axis=0)], f"{min(row[1] for row in every):.2f}x")
    console.print(times)


def _share(values: Sequence[float]) -> str:
    found: Interval = interval(values)
    return format_interval(found, "%")


if __name__ == "__main__":
    main()
