"""The Server rate of MLPerf's SDXL, predicted by simulation from the Offline result of the same system.

    python -m benchmarks.mlperf_server [--seeds 5] [--workers 2] [--only H100] [--results benchmarks/mlperf_sdxl.csv]

MLPerf Inference asks for SDXL at 1024 x 1024, 20 steps, guided. *Offline*: all requests are there at the beginning, and
the result is pictures a second. *Server*: Poisson arrivals for ten minutes, and 99 % of the requests within 20 s; the
submitter chooses the rate. The table holds what 35 submissions published of both, by rounds 4.0 to 5.0.

Every GPU is a replica, all of them share one queue, and ``same-size-dynamic`` forms the batches. Seconds of a batch are
those of the roofline on the data sheet of the GPU in the published precision, times one factor for each system: with it
the simulated Offline result is the published one. Nothing is fitted to a Server result but what is said here to be
chosen, and that on every second system alone:

- *Offline*: its whole run, in the batches that its first latency shows (up to 32; the last round is not full); or its
  rate is what Server's own batches reach when there is always work.
- *Batches*: at most as large as configured, or as Offline's; one that is not full waits as configured, or not at all.
- *Longer*: the share by which a batch of Server takes longer than the roofline says, where Offline ran larger ones.

The load generator draws the same arrivals in every submission of a round, and says from which seed. So a simulation
can be given the very arrivals of the run, and what is left is the error of the model (*their arrivals*); with other
seeds it shows how far chance alone moves a run of ten minutes (*seeds*).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from benchmarks.mlperf_server.predict import BOUND_S, SHARE, Assumed, Predicted, factor, implied, p99_ratio, predict
from benchmarks.mlperf_server.systems import NEAR_S, RESULTS, System, read_systems
from traces.errors import BadInput

HEADERS = (
    f"{'':46s}{'published':<28s}{'simulated P99 (s), their arrivals':<50s}{'other arrivals: most per s':<29s}{'P99'}",
    f"{'':46s}{'Offline':>7s} {'Server':>6s} {'load':>4s} {'P99':>5s}   {'P99':>5s} {'ratio':>5s} {'-1 %':>5s} "
    f"{'+1 %':>5s} {'90 %':>9s} {'took':>5s} {'most':>6s}   {'from  to':>11s} {'error':>6s} {'from  to':>11s}",
)
"""``took``: how much longer than predicted batches must take for the published P99; ``most``: within the bound."""


def halves(systems: Sequence[System]) -> tuple[list[System], list[System]]:
    """Those that something is chosen on, and the others: every second one of those near the bound and of the rest."""
    groups = [[each for each in systems if each.near == near] for near in (True, False)]
    return [each for group in groups for each in group[0::2]], [each for group in groups for each in group[1::2]]


def missed(ratios: Sequence[float]) -> float:
    """The mean factor by which something is missed, less 1; ratios of found to right."""
    return math.exp(float(np.mean(np.abs(np.log(ratios))))) - 1 if len(ratios) else math.nan


def choose(systems: Sequence[System], pool: Parallel) -> tuple[Assumed, dict[System, float]]:
    """What makes the P99 of the first of the `halves` right, printing what each choice makes of both.

    Returns:
        What was chosen, and times as long as it predicts that batches took, of every system.
    """
    chosen_on, others = halves(systems)
    print(
        f"P99 at the published rate, with the arrivals of the published runs, is missed by (first the {len(chosen_on)} "
        f"systems* on which it is chosen, then the {len(others)} others)"
    )

    def of_all(ask: Callable[[System, Assumed], float], assumed: Assumed) -> dict[System, float]:
        return dict(zip(systems, pool(delayed(ask)(each, assumed) for each in systems), strict=True))

    def shown(assumed: Assumed) -> None:
        ratios = of_all(p99_ratio, assumed)
        mine, theirs = (missed([ratios[each] for each in half]) for half in (chosen_on, others))
        print(f"  {assumed!s:74s} {mine:6.1%} {theirs:6.1%}", flush=True)

    rate, run = Assumed(offline_run=False), Assumed()
    shown(rate)
    shown(run)
    by_run, factors = of_all(implied, run), [of_all(factor, each) for each in (rate, run)]
    by_rate = {each: by_run[each] * factors[1][each] / factors[0][each] for each in systems}
    fits = [fitted(rate, by_rate, chosen_on), fitted(run, by_run, chosen_on)]
    for each in fits:
        shown(each)
    best, took = min(zip(fits, (by_rate, by_run), strict=True), key=lambda fit: fit[0].log_sd)
    shown(replace(best, waits=False))
    shown(replace(best, offline_batch=True))
    print(
        f"{best}: batches of Server take so much longer where Offline ran larger ones (the median of "
        f"{sum([each.rebatched for each in chosen_on])}*); beyond that they are off by a standard deviation of "
        f"{best.log_sd:.1%} ({len(chosen_on)}*)"
    )
    return best, {each: took[each] / best.times(each) for each in systems}


def fitted(assumed: Assumed, took: Mapping[System, float], systems: Sequence[System]) -> Assumed:
    """How much longer batches take than assumed, by the median of some systems, and how far they are off then."""
    rebatched = [took[each] for each in systems if each.rebatched]
    longer = replace(assumed, longer=float(np.median(rebatched)) - 1 if rebatched else 0.0)
    left = [took[each] / longer.times(each) for each in systems]
    return replace(longer, log_sd=float(np.std(np.log(left))))


def table(rows: Sequence[Predicted], chosen_on: Sequence[System]) -> None:
    """Print a line a system."""
    print("\n".join(HEADERS))
    for row in rows:
        system, mark = row.system, "*" if row.system in chosen_on else " "
        rates, tails = (f"{min(x):.1f}-{max(x):.1f}" if x else "" for x in (row.seeds_per_s, row.seeds_p99_s))
        error = f"{row.rate_ratio - 1:+.1%}" if row.seeds_per_s else ""
        print(
            f"{mark} {system.name:44s}{system.offline_per_s:7.2f} {system.scheduled_per_s:6.2f} {system.load:4.2f} "
            f"{system.p99_s:5.1f}   {row.p99_s:5.1f} {row.ratio:5.2f} {row.shorter_s:5.1f} {row.longer_s:5.1f} "
            f"{row.low_s:4.1f}-{row.high_s:4.1f} {row.implied - 1:+5.1%} {row.most_per_s:6.2f}   {rates:>11s} "
            f"{error:>6s} {tails:>11s}"
        )


def summary(rows: Sequence[Predicted], what: str) -> None:
    """Print what some systems have in common."""
    if not rows:
        return
    ratios = [row.ratio for row in rows]
    moved = [max(row.longer_s / row.p99_s, row.p99_s / row.shorter_s) - 1 for row in rows]
    print(
        f"{what}: P99 over the published one {min(ratios):.2f} to {max(ratios):.2f}, missed by {missed(ratios):.0%}; "
        f"within its interval on {sum([row.inside for row in rows])} of {len(rows)}; "
        f"1 % of a batch moves it by {np.median(moved):.0%}, at most {max(moved):.0%}"
    )
    seeded = [row for row in rows if row.seeds_per_s]
    if seeded:
        rates = [row.rate_ratio for row in seeded]
        theirs = [row.most_per_s / row.system.scheduled_per_s for row in seeded]
        chance = [max(row.seeds_p99_s) / min(row.seeds_p99_s) for row in seeded]
        print(
            f"{'':{len(what)}s}  rate over the published one {min(rates):.3f} to {max(rates):.3f}, missed by "
            f"{missed(rates):.1%}, with their arrivals by {missed(theirs):.1%}; "
            f"P99 of one seed over another's {np.median(chance):.1f}, at most {max(chance):.1f}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print it all; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="table of what was published")
    parser.add_argument("--only", default="", help="systems whose name or hardware contains this")
    parser.add_argument("--seeds", type=int, default=5, help="other arrivals of every system near the bound")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args(arguments)
    every = read_systems(asked.results)
    systems = [each for each in every if asked.only.lower() in f"{each.name} {each.hardware}".lower()]
    if not systems:
        raise BadInput(f"--only {asked.only!r}: none of the {len(every)} systems of {asked.results}")
    with Parallel(n_jobs=asked.workers) as pool:
        assumed, took = choose(systems, pool)
        rows = pool(delayed(predict)(each, assumed, took[each], asked.seeds if each.near else 0) for each in systems)
    chosen_on, _ = halves(systems)
    for near, what in ((True, f"P99 above {NEAR_S:g} s"), (False, "The rest: their rates were set far from the bound")):
        group = [row for row in rows if row.system.near == near]
        print(f"\n{what} ({BOUND_S:g} s for {SHARE:.0%})")
        table(group, chosen_on)
        summary([row for row in group if row.system in chosen_on], "chosen on these*")
        summary([row for row in group if row.system not in chosen_on], "the others")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadInput as error:
        sys.exit(f"error: {error}")
