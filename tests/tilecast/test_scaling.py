"""Scenarios whose replicas come and go."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import tilecast as tc
from traces.errors import BadInput
from traces.request import Request
from traces.trace import Trace

BURST = [Request(f"r{i}", 0.0, 512, 512, 20) for i in range(8)]
LATER = [Request("later", 600.0, 512, 512, 20)]


def scenario(requests: list[Request], **keys: Any) -> tc.Scenario:
    given: dict[str, Any] = {"slo": {"scale": 3.0}, "cluster": {"replicas": 4, "price_per_hour": 3.6}, **keys}
    return tc.Scenario(model="sdxl", hardware="h100-sxm", trace=Trace.from_requests(requests), **given)


def test_replicas_start_for_a_burst_and_are_paid_for_while_they_are_there(tmp_path: Path) -> None:
    scaling = {"least": 1, "provisioning_s": 1.0, "load_s": 0.5, "warm_up_s": 0.25}
    queue = {"name": "queue", "waiting": 1.0, "keep_alive_s": 10.0}
    ran = tc.simulate(scenario(BURST + LATER, policies={"scaling": queue}, scaling=scaling), tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["initial"], info["start_s"]) == ([0], {"all": 1.75})
    lifetimes = info["lifetimes"]
    assert [(ordered, ready) for _, ordered, ready, _ in lifetimes if ordered is not None] == [(0.0, 1.75)] * 3
    gone = [until for _, ordered, _, until in lifetimes if ordered is not None]
    assert all(until is not None and 11.0 < until < 20.0 for until in gone)
    figures = ran.summary()
    end_s = figures["span_s"]
    paid_s = end_s + sum(gone)
    assert figures["replicas_mean"] == pytest.approx(paid_s / end_s)
    assert figures["cost"] == pytest.approx(paid_s * 3.6 / 3600)
    assert figures["saved"] == pytest.approx(1 - paid_s / (4 * end_s))
    assert figures["starts"] == 3
    assert figures["starting"] == pytest.approx(3 * 1.75 / paid_s)
    assert figures["device_s_per_image"] == pytest.approx(paid_s / 9)
    assert dict(tc.read(tmp_path / "run").summary().dropna()) == dict(figures.dropna())


def test_what_is_not_said_of_scaling_leaves_its_figures_out() -> None:
    figures = tc.simulate(scenario(BURST)).summary()
    assert all(math.isnan(figures[name]) for name in ("replicas_mean", "saved", "starts", "starting"))
    assert figures["cost"] == pytest.approx(4 * figures["span_s"] * 3.6 / 3600)


def test_all_of_a_fixed_cluster_are_there_from_the_beginning() -> None:
    always = tc.simulate(scenario(BURST)).summary()
    fixed = tc.simulate(scenario(BURST, policies={"scaling": "fixed"})).summary()
    assert (fixed["starts"], fixed["saved"]) == (0, pytest.approx(0))
    assert fixed["latency_p99_s"] == always["latency_p99_s"]


def test_quanta_and_steps_give_the_same_beside_failures() -> None:
    keys = {
        "policies": {"scaling": {"name": "slo", "keep_alive_s": 5.0}, "scheduling": "mixed-fcfs"},
        "scaling": {"least": 0, "initial": 2, "provisioning_s": 2.0, "load_s": 0.0},
        "faults": {"outages": ("3:0:5", "4:1:600", "12:2:5")},
        "predictor": {"hardware": "h100-sxm", "online": False},
    }
    runs = [tc.simulate(scenario(BURST + LATER, **keys), per_step=per_step) for per_step in (False, True)]
    assert runs[0].log.info["lifetimes"] == runs[1].log.info["lifetimes"]
    assert runs[0].requests["finish_s"].tolist() == runs[1].requests["finish_s"].tolist()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"scaling": {"least": 5}}, r"scaling.least is 5, but there are at most 4 \(cluster.replicas\)"),
        ({"scaling": {"least": 2, "initial": 1}}, "scaling.initial is 1, but there are at least 2"),
        ({"policies": {"scaling": "quene"}}, "unknown scaling policy 'quene'; did you mean 'queue'"),
        ({"policies": {"scaling": {"name": "queue", "waiting": 0}}}, "waiting is 0, expected a number of 0.01"),
        ({"scaling": {"provisioning": 3}}, "unknown key 'scaling.provisioning'"),
        ({"policies": {"scaling": {"name": "schedule", "hours": "8"}}}, "hours has '8', expected times with replicas"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        tc.simulate(scenario(BURST, **keys))


def test_a_start_loads_what_is_preloaded() -> None:
    weights = {"memory_gb": 10.0, "weights_gb": 5.0, "disk_gb_per_s": 2.0, "preload": "most-used"}
    ran = tc.simulate(scenario(BURST, policies={"scaling": "queue"}, weights=weights))
    assert ran.log.info["start_s"] == {"all": 32.5}
