"""What does not fit on the devices of a pool is said before its figures."""

from __future__ import annotations

from typing import Any

import pytest

import tilecast as tc
from reports.comparison import Comparison
from tilecast.setup import prepare
from traces.errors import BadInput
from traces.notes import Severity
from traces.request import Request
from traces.trace import Trace


def scenario(models: tuple[str, ...], hardware: str, sides: int = 1024, **more: Any) -> tc.Scenario:
    asked = [Request(f"r{at}", 20.0 * at, sides, sides, 10, model=models[at % len(models)]) for at in range(6)]
    pool = {"name": "only", "models": list(models), "hardware": hardware, "replicas": 4}
    given: dict[str, Any] = {"pool": [pool], "slo": {"scale": 9.0}, **more}
    return tc.Scenario(model=models[0], trace=Trace.from_requests(asked), **given)


def graves(given: tc.Scenario) -> list[str]:
    return [note.text for note in prepare(given).notes if note.severity is Severity.GRAVE]


def test_a_model_that_does_not_fit_is_the_first_thing_said_of_a_run() -> None:
    given = scenario(("flux",), "l4")
    [said] = graves(given)
    assert said.startswith("DOES NOT FIT: flux takes 36.5 GB for 1024x1024, a device has 24.0 (NVIDIA L4 24GB)")
    notes = Comparison.of([tc.simulate(given).log]).notes()
    assert said in notes[0].text
    assert graves(scenario(("flux",), "h100-sxm")) == []


def test_so_is_one_that_fits_in_a_smaller_size_alone() -> None:
    assert graves(scenario(("sdxl",), "l4")) == []
    assert graves(scenario(("sdxl",), "l4", sides=8192))[0].startswith("DOES NOT FIT: sdxl")


def test_models_of_a_pool_lie_there_together_unless_they_come_and_go() -> None:
    both = ("flux", "sdxl", "sd3.5-medium")
    assert [graves(scenario((model,), "l40s")) for model in both] == [[], [], []]
    [said] = graves(scenario(both, "l40s"))
    assert said.startswith("DOES NOT FIT: flux and sdxl and sd3.5-medium take ")
    weights = {"memory_gb": 40.0, "weights_gb": 10.0}
    assert graves(scenario(both, "l40s", weights=weights)) == []


def test_replicas_of_the_cluster_beside_pools_are_refused_by_the_name_of_what_is_meant() -> None:
    with pytest.raises(BadInput, match=r"cluster\.replicas is of a cluster without pools; expected pool\.only\.repl"):
        scenario(("flux",), "h100-sxm").replaced({"cluster.replicas": 8})


def test_a_scenario_with_tables_can_be_looked_up() -> None:
    """Plans keep what they have prepared by the scenario."""
    given = scenario(("flux",), "h100-sxm", tenants={"shares": {"a": 2.0, "b": 1.0}})
    again = scenario(("flux",), "h100-sxm", tenants={"shares": {"b": 1.0, "a": 2.0}})
    assert given == again
    assert {given: "found"}[again] == "found"
