"""A tenant that floods two replicas, and two that do not: who is in time, first come or by shares of the devices.

python examples/tenants.py [REPORT.html]
"""

import sys
from pathlib import Path
from random import Random

import tilecast as tc

HOUR_S = 3600.0
SHARING: dict[str, dict[str, object]] = {
    "first come, first served": {},
    "equal shares": {"tenants": {"depth": 2}},
    "carol ten times as much": {"tenants": {"depth": 2, "shares": {"carol": 10.0}}},
}


def hour(rng: Random) -> tc.Trace:
    """Alice and bob ask now and then; carol asks for forty pictures at once, every ten minutes."""
    asked = [(at_s, "carol") for at_s in range(0, 3600, 600) for _ in range(40)]
    for tenant in ("alice", "bob"):
        at_s = rng.expovariate(1 / 60)
        while at_s < HOUR_S:
            asked.append((at_s, tenant))
            at_s += rng.expovariate(1 / 60)
    return tc.Trace.from_requests(
        [
            tc.Request(f"{tenant}{number}", at_s, 1024, 1024, 28, tenant=tenant)
            for number, (at_s, tenant) in enumerate(sorted(asked))
        ]
    )


def main(report: Path | None = None) -> None:
    scenario = tc.Scenario(
        model="flux", trace=hour(Random(0)), hardware="l40s", scheduler="fcfs", replicas=2, slo={"scale": 4.0}
    )
    for name, sharing in SHARING.items():
        run = tc.simulate(scenario.replaced(sharing))
        requests = run.requests
        in_time = (requests["finish_s"] <= requests["deadline_s"]).groupby(requests["tenant"]).mean()
        said = ", ".join([f"{tenant} {share:.0%}" for tenant, share in in_time.items()])
        print(f"{name:>24}: in time {said}; Jain's index {run.summary()['jain_attainment']:.2f}")
    if report is not None:
        run.report(report)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
