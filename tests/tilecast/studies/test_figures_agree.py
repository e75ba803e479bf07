"""One run, three ways to ask: what a report prints, what a sweep tabulates and what a plan's replication says are the
same numbers to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tilecast as tc
from policies.runlog import read_run
from reports.breakdown import by_replica, by_size
from reports.comparison import Comparison
from reports.figures import FIGURES
from tilecast.results import simulated
from tilecast.setup import prepare
from tilecast.simulation import run_simulation
from tilecast.studies.replication import FIELDS, observe

TILES = {
    "cluster.devices": 2,
    "tiling.refine": 0.5,
    "tiling.mode": "clamp",
    "tiling.overlap": 48,
    "policies.tile_caching": {"name": "region-aware", "threshold": 0.5, "warmup": 1},
}
CACHE = {"cluster.executor": "patched", "policies.caching": "first-block", "cluster.cache_patch": 48}
FAULTS = {"faults.mtbf_s": 4.0, "faults.repair_s": 1.0, "faults.in_flight": "resume"}
WORLDS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "batch_denoise"),
    "drops": ({"policies.scheduling": {"name": "edf", "drop_late": True}, "cluster.replicas": 1}, "dropped"),
    "faults": (FAULTS, "restarts"),
    "tiles": (TILES, "reuse"),
    "cache": (CACHE, "reuse"),
    "checkpoints": ({"weights.memory_gb": 20, "weights.weights_gb": 7, "weights.load_s": 0.3}, "loads"),
}
"""Keys of a scenario, and a figure that shows that they did something."""


@pytest.mark.parametrize("world", WORLDS)
def test_a_report_a_sweep_and_a_plan_say_the_same_of_a_run(world: str, tmp_path: Path) -> None:
    keys, telling = WORLDS[world]
    side = 256 if world == "tiles" else 128
    requests = [
        tc.Request(
            f"r{at}", 0.1 * at, *((96, 96) if at % 3 else (side, side)), 12,
            checkpoint=f"M{at % 4}" if world == "checkpoints" else "",
        )
        for at in range(60)
    ]  # fmt: skip
    predictor = {"profile": "cpu-1core", "latency_model": "linear"}
    given = {"model": "tiny-image", "trace": tc.Trace.from_requests(requests), "predictor": predictor}
    scenario = tc.Scenario(**given, seed=3, slo={"scale": 1.5}, cluster={"replicas": 2}).replaced(keys)  # type: ignore[arg-type]

    prepared = prepare(scenario)
    controller = run_simulation(prepared)
    simulated(prepared, controller).save(tmp_path / "log")
    compared = Comparison.of([read_run(tmp_path / "log")])
    [reported] = compared.summaries
    assert 0 < reported[telling] < 1e9

    row = tc.sweep(scenario, {"grid": {"seed": [3]}}, workers=1).frame.iloc[0]
    same({name: row[name] for name in reported}, reported)

    run = prepared.arrays(controller)
    replication = observe(controller, run, run.end_s, demand_start_s=run.start_s, warm_up=0.0)
    same(
        {name: getattr(replication, field) for field, name in FIELDS.items()}, {n: reported[n] for n in FIELDS.values()}
    )
    assert set(FIELDS.values()) <= set(FIGURES)
    assert (replication.requests, replication.finished) == (reported["requests"], reported["finished"])
    for status in ("dropped", "failed", "cancelled"):
        assert getattr(replication, status) == reported[status] / reported["requests"]
    [arrays] = compared.arrays
    assert list(replication.replica_utilisation) == by_replica(arrays)["utilisation"].tolist()
    sizes = pd.DataFrame(
        {
            of_size.size: [of_size.requests, of_size.attainment, of_size.latency_s[2], of_size.latency_s[4]]
            for of_size in replication.sizes
        },
        ["requests", "slo_attainment", "latency_p50_s", "latency_p95_s"],
    ).T
    of_sizes = by_size(arrays)
    assert len(of_sizes) == 2
    for name in sizes:
        same(sizes[name].to_dict(), of_sizes[name].to_dict())


def same(found: dict[str, float], expected: dict[str, float]) -> None:
    assert set(found) == set(expected)
    unlike = {
        name: (found[name], value)
        for name, value in expected.items()
        if not np.array_equal(found[name], value, equal_nan=True)
    }
    assert not unlike
