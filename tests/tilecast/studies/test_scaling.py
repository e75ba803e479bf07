"""Which scaling policy keeps the promise for least."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import tilecast as tc
from tilecast.sections import PolicySection
from tilecast.studies.result_store import read_points
from tilecast.studies.scaling import candidates, plan_scaling
from traces.errors import BadInput
from traces.request import Request
from traces.trace import Trace


def scenario(days: int, **plan: Any) -> tc.Scenario:
    """Every day eight requests at noon, a few at night."""
    times = [
        day * 86_400 + at for day in range(days) for at in (0.0, 20_000.0, *[43_200.0 + i for i in range(8)], 86_399)
    ]
    return tc.Scenario(
        model="flux",
        hardware="l40s",
        trace=Trace.from_requests([Request(f"r{i}", at, 1024, 1024, 50) for i, at in enumerate(times)]),
        slo={"scale": 5.0},
        cluster={"replicas": 3, "price_per_hour": 1.0},
        scaling={"least": 1, "load_s": 10.0},
        plan={"attainment": 0.7, "seeds": 2, "max_seeds": 4, "scaling": ["queue"], **plan},
    )


def test_the_cheapest_that_keeps_the_promise_comes_first_beside_fixed_sizes(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    asked = scenario(3)
    found = plan_scaling(
        asked, tmp_path / "plan", workers=1, progress=lambda what, total, done: told.append((total, done))
    )
    assert found.how == "4 days drawn from the 2 whole days of the trace"
    assert found.answer is not None
    assert found.answer.name == "queue"
    kept_first = [each.keeps is True for each in found.choices]
    assert kept_first == sorted(kept_first, reverse=True)
    cost = {each.name: each.cost.mean for each in found.choices}
    assert 24 < cost["queue"] < cost["fixed, 2"] == pytest.approx(48, rel=0.01)
    assert cost["fixed, 3"] == pytest.approx(72, rel=0.01)
    kept = {each.name: each.attainment.mean for each in found.choices}
    assert kept["fixed, 3"] == 1.0
    assert told[-1][1] == told[-1][0]
    kept_points = len(read_points(tmp_path / "plan"))
    assert plan_scaling(asked, tmp_path / "plan", workers=1) == found
    assert len(read_points(tmp_path / "plan")) == kept_points
    assert found.rows()[0][:2] == ("yes", "queue")


def test_of_one_day_there_is_no_interval() -> None:
    found = plan_scaling(scenario(1), workers=1)
    assert "without an interval" in found.how
    assert all(math.isnan(each.cost.half_width) or math.isinf(each.cost.half_width) for each in found.choices)


def test_lists_of_parameters_stand_for_each_of_their_values() -> None:
    named = [PolicySection(name="queue", waiting=[1.0, 2.0], buffer=[0, 1]), PolicySection(name="slo")]
    assert [name for name, _ in candidates(named)] == [
        "queue, waiting 1, buffer 0",
        "queue, waiting 1, buffer 1",
        "queue, waiting 2, buffer 0",
        "queue, waiting 2, buffer 1",
        "slo",
    ]


def test_what_is_not_named_is_not_planned() -> None:
    with pytest.raises(BadInput, match=r"plan.scaling names no policies"):
        plan_scaling(scenario(1, scaling=[]))
