"""Tenants and priorities in a scenario."""

from __future__ import annotations

from typing import Any

import pytest

import tilecast as tc
from tilecast.setup import prepare
from traces.errors import BadInput
from traces.request import Request
from traces.trace import Trace


def trace(**more: Any) -> Trace:
    """A flood of tenant a, and three requests each of two others."""
    flood = [Request(f"a{n}", 0.0, 512, 512, 10, tenant="a", priority=n % 2, **more) for n in range(30)]
    others = [Request(f"{name}{n}", 1.0, 512, 512, 10, tenant=name, **more) for n in range(3) for name in "bc"]
    return Trace.from_requests([*flood, *others])


def scenario(asked: Trace | None = None, **more: Any) -> tc.Scenario:
    return tc.Scenario(
        model="flux", hardware="h100-sxm", scheduler="fcfs", trace=trace() if asked is None else asked, **more
    )


def test_a_flood_of_one_tenant_keeps_no_other_waiting() -> None:
    def last_s(**more: Any) -> dict[str, float]:
        ended: dict[str, float] = tc.simulate(scenario(**more)).requests.groupby("tenant")["finish_s"].max().to_dict()
        return ended

    without, equal = last_s(), last_s(tenants={"depth": 1})
    assert max(equal["b"], equal["c"]) < 0.5 * without["b"]
    assert equal["a"] == pytest.approx(max(without.values()), rel=0.05)
    more_for_b = last_s(tenants={"depth": 1, "shares": {"b": 4, "c": 0.5}})
    assert more_for_b["b"] < equal["b"]
    assert more_for_b["c"] > equal["c"]


def test_a_trace_without_the_tenants_that_a_scenario_names_is_told() -> None:
    one = Trace.from_requests([Request("r0", 0.0, 512, 512, 10)])
    told = [note.text for note in prepare(scenario(one, tenants={"shares": {"alice": 2, "bob": 1}})).notes]
    assert "the trace names no two tenants: [tenants] shares the devices among one" in told
    assert "tenants.shares: the trace has no requests of alice, bob" in told


@pytest.mark.parametrize(
    ("tenants", "message"),
    [
        ({"shares": {"a": 0}}, r"tenants\.shares\.a is 0: expected "),
        ({"depth": 0}, r"tenants\.depth is 0: expected "),
        ({"share": {"a": 1}}, r"unknown key 'tenants\.share'; did you mean 'shares'"),
    ],
)
def test_what_is_wrong_with_shares_is_told(tenants: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        scenario(tenants=tenants)


def test_deadlines_are_nearer_by_the_priority_of_a_request() -> None:
    ready = prepare(scenario(slo={"absolute_s": 12.0, "priority_factor": 3.0}))
    assert {(request.priority, request.slo_s) for request in ready.requests} == {(0, 12.0), (1, 4.0)}
    own = prepare(scenario(trace(slo_s=7.0), slo={"scale": 5.0, "priority_factor": 3.0}))
    assert {request.slo_s for request in own.requests} == {7.0}
    scaled = prepare(scenario(slo={"scale": 5.0, "priority_factor": 2.0})).requests
    assert scaled[0].slo_s == pytest.approx(2 * scaled[1].slo_s)


def test_a_priority_that_leaves_no_deadline_is_refused() -> None:
    for priority, spelled in ((2**30, "0 s"), (-(2**30), "inf s")):
        asked = Trace.from_requests([Request("mine", 0.0, 512, 512, 10, priority=priority)])
        with pytest.raises(
            BadInput, match=rf"'mine': its SLO of 5 s over 2 to the power of its priority, .* is {spelled}"
        ):
            prepare(scenario(asked, slo={"absolute_s": 5.0, "priority_factor": 2.0}))
    with pytest.raises(BadInput, match="expected scale or absolute_s beside priority_factor"):
        scenario(slo={"priority_factor": 2.0})
