"""What the speed of the simulator is measured on."""

from __future__ import annotations

import pytest

from benchmarks.simulator import CASES, SHOWN, Case, measure, workload
from predictors.latency_model import LatencyModel
from predictors.profile import Profile


@pytest.fixture(scope="module")
def table() -> LatencyModel:
    return LatencyModel.fit(Profile.load("profiles/cpu-1core.parquet"), "tiny-image")


def test_a_case_is_measured_end_to_end_and_bare() -> None:
    found = measure(Case(replicas=2, load=1000.0, requests=20, drops=False), "lookahead", 0)
    assert (found.requests, sum(found.shares.values())) == (20, pytest.approx(1.0))
    assert 0 < found.bare_s < found.whole_s
    assert found.launches > 1
    assert found.event_s < 1e-3
    assert found.peak_mb > 10
    assert set(found.shares) == set(SHOWN)


def test_every_case_has_the_requests_sizes_and_load_that_it_says(table: LatencyModel) -> None:
    many = workload(CASES["400-sizes"], table, 4000).requests()
    assert len(many) == 4000
    assert len({request.size for request in many}) > 390
    backlog = CASES["backlog-2000"]
    at_once = workload(backlog, table, 2000).requests()
    busy_s = sum(table.standalone_s(request) for request in at_once) / backlog.replicas
    assert len(at_once) == 2000
    assert at_once[-1].arrival_s < 0.01 * busy_s
