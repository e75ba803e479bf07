"""What it gains to decode, or to encode, on devices of their own: pools of stages beside replicas that do all.

    python -m benchmarks.stages [--mixes wan flux wan-few flux-few] [--requests 300] [--chosen-on 2] [--seeds 5]

Sixteen H100s, times by the data sheet (ESTIMATED), compiled, under `lookahead`, and what may stand in their place:

- *together*: sixteen replicas of one device that do all stages.
- *apart, as many devices*: some of them decode alone, or encode alone, or do both, and the others do the rest; latents
  and embeddings go over a network of 400 Gb/s. The fewest that can do that work, or one more.
- *apart, for as much money*: in their place L40S cards that cost no more in all (by the example prices of the
  catalogue, 3.00 and 1.20 an hour), over a network of 10 Gb/s.
- *within*: two replicas of eight devices each, of which the scheduler gives some to the decoding of one request beside
  the denoising of others, and several to one where that pays.

Requests come as a Poisson process at 0.7 and 1.0 times what sixteen devices do one by one; each is due 1.5 to 5 times,
drawn evenly, what it takes alone on one of them, whatever runs it. The mixes ``-few`` are of models that were distilled
to four steps. For every mix and load the best of the ways to be apart is chosen on some seeds and reported on others,
beside all else on the same ones: the share of the requests that are in time, and the mean over the seeds of its
difference to *together*, in points with intervals of 95 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import tilecast as tc
from benchmarks.degrees import MIXES, DrawnMix
from predictors.costs import CostModel, alone
from predictors.hardware import find_hardware
from reports.formatting import format_interval
from reports.output_analysis import interval
from tilecast.setup import prepare
from traces.stages import ORDINARY, RECEIVE, ordinary
from traces.streams import stream

DEVICES, LOADS, TIGHTEST, LOOSEST = 16, (0.7, 1.0), 1.5, 5.0
OF_MIXES = {
    "wan": MIXES["wan"],
    "flux": MIXES["flux"],
    "wan-few": MIXES["wan"]._replace(steps=4, guidance=1.0),
    "flux-few": DrawnMix("flux-schnell", ((512, 512, 1), (1024, 1024, 1), (2048, 2048, 1)), 4, 1.0),
}
LARGE, SMALL = "h100-sxm", "l40s"
NODE = 8
_EXCHANGED = {LARGE: range(DEVICES), SMALL: [int(2.5 * given) for given in range(DEVICES)]}
"""How many cards stand in the place of 0, 1, 2, ... large ones."""


class Cluster(NamedTuple):
    """What serves the requests.

    Attributes:
        kind: what is compared: ``together``, ``devices`` (as many of them), ``money`` (as much of it) or ``within``.
        name: what people call it.
        pools: as a scenario has them; none: ``replicas`` of ``devices`` each.
        replicas: see there.
        devices: see there.
    """

    kind: str
    name: str
    pools: tuple[dict[str, Any], ...] = ()
    replicas: int = 1
    devices: int = 1


def clusters(mix: DrawnMix, costs: Mapping[str, CostModel], load: float) -> list[Cluster]:
    """All that is compared.

    Args:
        mix: what is asked.
        costs: by kind of hardware.
        load: of sixteen devices.
    """
    found = [Cluster("together", "together", (), DEVICES), Cluster("within", "within", (), DEVICES // NODE, NODE)]
    rate_rps = load * DEVICES / _mean_s(mix, costs[LARGE], ORDINARY)
    for apart in (("decode",), ("encode",), ("encode", "decode")):
        for kind, hardware in (("devices", LARGE), ("money", SMALL)):
            busy = rate_rps * _mean_s(mix, costs[hardware], apart)  # of so many
            able = [(given, count) for given, count in enumerate(_EXCHANGED[hardware]) if count > busy]
            for given, count in able[:2]:
                rest = [stage for stage in ORDINARY if stage not in apart]
                pools = (_pool("rest", mix, LARGE, DEVICES - given, rest), _pool("apart", mix, hardware, count, apart))
                found.append(Cluster(kind, f"{'+'.join(apart)} on {count} {hardware} for {given}", pools))
    return found


def _pool(name: str, mix: DrawnMix, hardware: str, replicas: int, stages: Sequence[str]) -> dict[str, Any]:
    of = {"models": [mix.model], "hardware": hardware, "engine": "compile"}
    return {"name": name, "replicas": replicas, "stages": list(stages), **of}


def _mean_s(mix: DrawnMix, costs: CostModel, stages: Sequence[str]) -> float:
    """Seconds of some stages of a request alone, over the sizes of a mix."""
    seconds = []
    for which in range(len(mix.sizes)):
        asked = _request(mix, which, 0, 0.0, None)
        recipe = [(stage, steps) for stage, steps in ordinary(asked) if stage in stages]
        seconds.append(sum([steps * costs.step_s(stage, alone(asked)) for stage, steps in recipe]))
    return float(np.mean(seconds))


def scenario(trace: tc.Trace, model: str, cluster: Cluster) -> tc.Scenario:
    """A cluster that serves a trace."""
    return tc.Scenario(
        model=model,
        trace=trace,
        predictor={"hardware": LARGE, "engine": "compile"},
        cluster={"replicas": cluster.replicas, "devices": cluster.devices},
        pool=list(cluster.pools),
        scheduler="lookahead",
    )


def requests(mix: DrawnMix, costs: CostModel, load: float, count: int, seed: int) -> tc.Trace:
    """A trace of a mix at a load of all devices."""
    rng = stream(seed, f"benchmark/stages/{mix.model}/{mix.steps}")
    alone_s = [costs.standalone_s(_request(mix, which, 0, 0.0, None)) for which in range(len(mix.sizes))]
    arrivals_s = np.cumsum(rng.exponential(float(np.mean(alone_s)) / DEVICES / load, count))
    drawn = []
    for i, at_s in enumerate(arrivals_s.tolist()):
        which = int(rng.integers(len(mix.sizes)))
        drawn.append(_request(mix, which, i, at_s, float(rng.uniform(TIGHTEST, LOOSEST)) * alone_s[which]))
    return tc.Trace.from_requests(drawn)


def _request(mix: DrawnMix, which: int, i: int, at_s: float, slo_s: float | None) -> tc.Request:
    height, width, frames = mix.sizes[which]
    more: dict[str, Any] = {"frames": frames, "model": mix.model, "guidance_scale": mix.guidance, "slo_s": slo_s}
    return tc.Request(f"r{i}", at_s, height, width, mix.steps, **more)


class Measured(NamedTuple):
    """Of one cluster on one seed: the share in time, and the gigabytes that went from replica to replica."""

    in_time: float
    moved_gb: float


def measure(mix: DrawnMix, cluster: Cluster, costs: CostModel, load: float, count: int, seed: int) -> Measured:
    """One simulation."""
    run = tc.simulate(scenario(requests(mix, costs, load, count, seed), mix.model, cluster))
    moved = run.steps.loc[run.steps["stage"] == RECEIVE, "moved_bytes"].sum()
    return Measured(float(run.summary()["slo_attainment"]), float(moved) / 1e9)


def compare(
    mix: DrawnMix, load: float, count: int, chosen_on: int, seeds: int
) -> dict[str, tuple[str, list[Measured]]]:
    """Of each kind the cluster that is best on the first seeds, with what it does on the others.

    Args:
        mix: what is asked.
        load: how much of it.
        count: requests of a seed.
        chosen_on: seeds on which the best is chosen.
        seeds: other seeds.
    """
    costs = {hardware: _costs(mix, hardware) for hardware in (LARGE, SMALL)}
    by_kind: dict[str, list[Cluster]] = {}
    for cluster in clusters(mix, costs, load):
        by_kind.setdefault(cluster.kind, []).append(cluster)

    def on(cluster: Cluster, *which: int) -> list[Measured]:
        return [measure(mix, cluster, costs[LARGE], load, count, seed) for seed in which]

    found = {}
    for kind, own in by_kind.items():
        marks = [np.mean([each.in_time for each in on(one, *range(chosen_on))]) for one in own if len(own) > 1]
        best = own[int(np.argmax(marks))] if marks else own[0]
        found[kind] = best.name, on(best, *range(chosen_on, chosen_on + seeds))
    return found


def _costs(mix: DrawnMix, hardware: str) -> CostModel:
    trace = tc.Trace.from_requests([_request(mix, 0, 0, 0.0, 1e6)])
    return prepare(
        tc.Scenario(model=mix.model, trace=trace, predictor={"hardware": hardware, "engine": "compile"})
    ).costs


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixes", nargs="+", choices=list(OF_MIXES), default=list(OF_MIXES))
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--chosen-on", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(arguments)
    console = Console(width=170)
    prices = [find_hardware(kind).example_price_per_hour or 0.0 for kind in (LARGE, SMALL)]
    assert 2.5 * prices[1] <= prices[0], "five small ones are to cost no more than two large ones"
    console.print(f"{DEVICES} {LARGE}, ESTIMATED; {given.seeds} seeds of {given.requests} requests")
    shown = Table("mix", "load", "together", "apart, as many devices", "apart, as much money", "within nodes of 8")
    for name in given.mixes:
        for load in LOADS:
            found = compare(OF_MIXES[name], load, given.requests, given.chosen_on, given.seeds)
            _, base = found["together"]
            cells = [format_interval(interval([each.in_time for each in base]), "%")]
            for kind in ("devices", "money", "within"):
                best, values = found[kind]
                gains = interval([mine.in_time - theirs.in_time for mine, theirs in zip(values, base, strict=True)])
                moved = f", {np.mean([each.moved_gb for each in values]):.1f} GB moved" if kind != "within" else ""
                said = f"{100 * gains.mean:+.1f} ± {100 * gains.half_width:.1f} points"
                cells.append(said if kind == "within" else f"{said}: {best}{moved}")
            shown.add_row(name, f"{load:g}", *cells)
    console.print(shown)


if __name__ == "__main__":
    main()
