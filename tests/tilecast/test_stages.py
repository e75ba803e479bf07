"""Pools that serve some stages each, from the scenario to the run's log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tilecast as tc
from predictors.link import Link
from reports.breakdown import by_pool
from tilecast.setup import prepare
from traces.errors import BadInput
from traces.request import Request
from traces.trace import Trace

WAN: dict[str, Any] = {"model": "wan-1.3b", "frames": 33}
DIT = {"name": "dit", "models": ["wan-1.3b"], "hardware": "h100-sxm", "replicas": 2, "stages": ["encode", "denoise"]}
VAE = {"name": "vae", "models": ["wan-1.3b"], "hardware": "l40s", "stages": ["decode"]}


def trace(count: int = 8, every_s: float = 3.0) -> Trace:
    return Trace.from_requests([Request(f"r{at}", every_s * at, 480, 832, 5, **WAN) for at in range(count)])


def scenario(*pools: Mapping[str, Any], **more: Any) -> tc.Scenario:
    given: dict[str, Any] = {"scheduler": "lookahead", "slo": {"scale": 4.0}, "trace": trace(), **more}
    return tc.Scenario(model="wan-1.3b", pool=list(pools or (DIT, VAE)), **given)


def test_requests_go_through_the_pools_and_the_log_says_so(tmp_path: Path) -> None:
    made = tc.simulate(scenario(), tmp_path / "run")
    assert set(made.requests["status"]) == {"finished"}
    assert set(made.requests["replicas"]) <= {"0 2", "1 2"}
    assert set(made.requests["replica"]) == {2}
    ran = made.steps.groupby("replica")["stage"].agg(set)
    assert ran[0] == {"encode", "denoise"}
    assert ran[2] == {"receive", "decode"}
    latents = 4 * 16 * 9 * 60 * 104
    received = made.steps[made.steps["stage"] == "receive"]
    assert (received["moved_bytes"] == latents * received["requests"]).all()
    assert received["moved_bytes"].sum() == 8 * latents
    seconds = (received["end_s"] - received["start_s"]).to_numpy()
    assert seconds == pytest.approx(1e-4 + received["moved_bytes"].to_numpy() / 1.25e9, abs=2e-9)
    assert [pool.get("stages") for pool in made.info["pools"]] == [["encode", "denoise"], ["decode"]]
    table = by_pool(made.comparison.arrays[0])
    assert table["requests"].to_dict() == {"dit": 8.0, "vae": 8.0}
    assert table["slo_attainment"].to_dict() == {"dit": 1.0, "vae": 1.0}
    arrays = prepare(scenario())
    from tilecast.simulation import run_simulation

    assert by_pool(arrays.arrays(run_simulation(arrays))).equals(table)


def test_a_request_alone_takes_its_stages_where_each_is_fastest_and_what_moves() -> None:
    ready = prepare(scenario())
    dit, vae = (pool.costs for pool in ready.pools)
    request = ready.requests[0]
    batch = tc.simulate(scenario()).requests  # alone in the beginning
    moved = Link(1e-4, 1.25e9).seconds(4 * 16 * 9 * 60 * 104, 1)
    alone_s = dit.standalone_s(request) + vae.standalone_s(request) + moved
    assert batch["standalone_s"].iloc[0] == pytest.approx(alone_s)
    assert request.slo_s == pytest.approx(4 * alone_s)


def test_a_faster_network_is_a_key_of_cluster_or_pool() -> None:
    def receive_s(*pools: Mapping[str, Any], **more: Any) -> float:
        steps = tc.simulate(scenario(*pools, **more)).steps
        row = steps[steps["stage"] == "receive"].iloc[0]
        return float(row["end_s"] - row["start_s"])

    latents = 4 * 16 * 9 * 60 * 104
    assert receive_s(cluster={"network_latency_s": 0.5, "network_bytes_per_s": 1e6}) == pytest.approx(
        0.5 + latents / 1e6
    )
    assert receive_s(DIT, {**VAE, "network_bytes_per_s": 1e8}) == pytest.approx(1e-4 + latents / 1e8, abs=2e-9)
    assert receive_s(DIT, {**VAE, "hardware": "h100-sxm"}) == pytest.approx(1e-4 + latents / 50e9, abs=2e-9)


def test_a_pool_for_text_and_pixels_is_come_to_twice() -> None:
    ends = {**VAE, "stages": ["encode", "decode"]}
    for per_step in (False, True):
        made = tc.simulate(
            scenario({**DIT, "stages": ["denoise"]}, ends, predictor={"online": False}), per_step=per_step
        )
        assert set(made.requests["replicas"]) <= {"2 0 2", "2 1 2"}
        assert set(made.requests["status"]) == {"finished"}
        received = made.steps[made.steps["stage"] == "receive"]
        assert set(received["replica"]) == {0, 1, 2}


def test_failures_tenants_and_scaling_go_with_stages() -> None:
    failing = scenario(faults={"outages": ["6:2:4", "9:0:3"]}, tenants={}, scheduler="edf")
    made = tc.simulate(failing)
    assert set(made.requests["status"]) == {"finished"}
    assert made.requests["attempts"].max() > 1
    policies = {"scaling": "queue", "scheduling": "edf"}
    scaled = scenario(scaling={"provisioning_s": 1.0, "load_s": 1.0}, policies=policies, scheduler=None)
    made = tc.simulate(scaled)
    assert set(made.requests["status"]) == {"finished"}


@pytest.mark.parametrize(
    ("pools", "more", "said"),
    [
        ([DIT], {}, "no pool serves the stage decode of 'wan-1.3b': of it there are 'dit' encode and denoise"),
        (
            [DIT, {**VAE, "stages": []}],
            {},
            "pools 'dit' and 'vae' both serve denoise and encode of 'wan-1.3b'",
        ),
        ([DIT, {**VAE, "stages": ["decode", "decode"]}], {}, "pool 'vae': stages names decode twice"),
        ([DIT, {**VAE, "stages": ["paint"]}], {}, "pool.1.stages.0"),
        ([DIT, VAE], {"weights": {"memory_gb": 80.0, "weights_gb": 24.0}}, r"\[weights\] load whole checkpoints"),
        ([DIT, VAE], {"tiling": {}}, r"\[tiling\] is of one model on one pool"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(pools: list[Mapping[str, Any]], more: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said) as found:
        prepare(scenario(*pools, **more))
    assert "\n" not in str(found.value)


def test_pools_of_stages_are_planned_together() -> None:
    rates = {"seeds": 2, "max_seeds": 2, "requests": 60, "max_requests": 60, "attainment": 0.8}
    priced = [{**DIT, "price_per_hour": 3.0}, {**VAE, "price_per_hour": 1.0}]
    made = tc.plan_pools(scenario(*priced, trace=trace(60), scheduler="edf", plan=rates), workers=1)
    joint = made.joint["dit+vae"]
    assert joint.answer is not None
    assert min(joint.answer.replicas.values()) >= 1
    assert joint.answer.price_per_hour >= joint.least_price > 0
