"""A day with replicas that come and go, against clusters of fixed size: what it costs, and who is served in time.

python examples/scaling.py [REPORT.html]
"""

import sys
from math import pi, sin
from pathlib import Path
from random import Random

import tilecast as tc

HOUR_S = 3600.0
SCALING: dict[str, dict[str, object]] = {
    "three, always": {"name": "fixed", "replicas": 3},
    "six, always": {"name": "fixed"},
    "by the hour": {"name": "schedule", "hours": "00:00=1 05:00=2 08:00=4 16:00=2 21:00=1", "ahead_s": 64.0},
    "by the queue": {"name": "queue", "waiting": 1.0, "keep_alive_s": 120.0},
    "by the deadlines": {"name": "slo", "keep_alive_s": 120.0},
}


def day(rng: Random) -> tc.Trace:
    """A quiet night and a busy noon, with a burst now and then."""
    requests: list[tc.Request] = []
    at_s, until_s, burst = 0.0, 0.0, 1.0
    while at_s < 24 * HOUR_S:
        if at_s >= until_s:
            burst, until_s = rng.choice((0.5, 0.5, 2.0)), at_s + rng.expovariate(1 / 600)
        rate = 0.02 * burst * (1 + 0.9 * sin(2 * pi * (at_s / HOUR_S - 6) / 24))
        at_s += rng.expovariate(rate)
        requests.append(tc.Request(f"r{len(requests)}", at_s, 1024, 1024, 50))
    return tc.Trace.from_requests(requests)


def main(report: Path | None = None) -> None:
    scenario = tc.Scenario(
        model="flux",
        trace=day(Random(0)),
        hardware="l40s",
        slo={"scale": 3.0},
        cluster={"replicas": 6, "price_per_hour": 0.99},
        scaling={"least": 1, "provisioning_s": 30.0, "load_s": 24.0, "warm_up_s": 10.0},
    )
    runs = [tc.simulate(scenario.replaced({"policies.scaling": policy})) for policy in SCALING.values()]
    for name, run in zip(SCALING, runs, strict=True):
        in_time, cost, replicas, starts = run.summary()[["slo_attainment", "cost", "replicas_mean", "starts"]]
        print(f"{name:>17}: {in_time:6.1%} in time, cost {cost:6.2f}, {replicas:.2f} replicas, {starts:.0f} starts")
    if report is not None:
        runs[-1].report(report)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
