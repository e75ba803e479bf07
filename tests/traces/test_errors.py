"""What is offered for a name that is not known: what was begun, what is in it, and only then what looks like it."""

from __future__ import annotations

import pytest

from predictors.hardware import shipped_hardware
from tilecast.sections import ClusterSection, WeightsSection
from traces.errors import did_you_mean


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a100", "did you mean 'a100-80gb' or 'a100-40gb' or 'a100-80gb-pcie'?"),
        ("H100", "did you mean 'h100-sxm' or 'h100-nvl' or 'h100-pcie'?"),
        ("4090", "did you mean 'rtx-4090'?"),
        ("l4s", "did you mean 'l40s'?"),
    ],
)
def test_hardware_is_offered_that_begins_with_what_was_typed(name: str, hint: str) -> None:
    assert did_you_mean(name, shipped_hardware()) == hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("devices_per_replica", "did you mean 'devices'?"),
        ("replica", "did you mean 'replicas'?"),
        ("price", "did you mean 'price_per_hour'?"),
        ("per_hour", "did you mean 'price_per_hour'?"),
        ("exeuctor", "did you mean 'executor'?"),
    ],
)
def test_a_key_is_offered_only_where_it_is_likely(name: str, hint: str) -> None:
    assert did_you_mean(name, ClusterSection.model_fields) == hint
    assert did_you_mean("nodes", ClusterSection.model_fields).startswith("known: replicas, devices, ")
    assert did_you_mean("host", WeightsSection.model_fields) == "did you mean 'host_gb' or 'host_gb_per_s'?"
