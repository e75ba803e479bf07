"""Everything from Python, without a file: two schedulers on one trace, how many replicas, the least that keeps 95 %.

python examples/library.py
"""

from pathlib import Path

import tilecast as tc

HERE = Path(__file__).parent


def main() -> None:
    trace = tc.Trace.load(HERE / "traces" / "tiny_image.csv")
    scenario = tc.Scenario(
        model="tiny-image",
        trace=trace,
        profile="cpu-1core",
        scheduler="lookahead",
        slo={"scale": 5.0},
        plan={"seeds": 3, "max_seeds": 3, "requests": 300, "max_requests": 300},
    )
    ours = tc.simulate(scenario)
    theirs = tc.simulate(scenario.replaced({"policies.scheduling": "fcfs"}))
    print(tc.compare([ours, theirs], ["lookahead", "fcfs"]).answer())
    print(ours.summary()[["slo_attainment", "latency_p95_s", "utilisation"]])

    swept = tc.sweep(scenario, {"grid": {"cluster.replicas": [1, 2, 3]}}, workers=1)
    print(swept.frame[["cluster.replicas", "slo_attainment"]])

    plan = tc.plan(scenario.replaced({"trace.rate_scale": 2.0}), workers=1)
    print("at twice the load:", plan.answer.candidate if plan.answer else "nothing keeps it")


if __name__ == "__main__":
    main()
