"""Load and utilisation over time."""

from __future__ import annotations

import numpy as np
import pytest

from reports.checks import checked
from reports.series import load, mean_load, replicas, spread, utilisation


def test_load_by_hand(make_run):
    counts = load(make_run()).set_index("time_s")
    assert counts["waiting"].to_dict() == {
        0: 2,
        1: 0,
        2: 0,
        3: 1,
        4: 2,
        5: 1,
        6: 2,
        9: 1,
        12: 1,
        18: 1,
        20: 0,
    }
    assert counts["running"].to_dict() == {
        0: 0,
        1: 2,
        2: 3,
        3: 3,
        4: 3,
        5: 3,
        6: 3,
        9: 2,
        12: 1,
        18: 0,
        20: 0,
    }


def test_a_request_that_never_arrived_does_not_wait(interrupted_run):
    assert load(interrupted_run)["waiting"].iloc[-1] == 0


def test_mean_load_by_hand(make_run, empty_run):
    waiting, running = mean_load(make_run(), np.array([0.0, 2.0, 6.0, 20.0, 40.0]))
    assert waiting.tolist() == pytest.approx([2 / 2, (1 + 2 + 1) / 4, (3 * 2 + 11 * 1) / 14, 0])
    assert running.tolist() == pytest.approx([2 / 2, 3, (3 * 3 + 3 * 2 + 6 * 1) / 14, 0])
    assert mean_load(empty_run, np.array([0.0, 1.0]))[0].tolist() == [0]


def test_utilisation_counts_devices(make_run):
    def shared(_, steps):
        steps.loc[steps["replica"] == 1, "device_s"] = 24.0  # of 2 devices x 16 s

    share = utilisation(make_run(edit=shared, devices=2), np.array([2.0, 10.0, 18.0]))
    assert share[1].tolist() == pytest.approx([0.75, 0.75])


def test_utilisation_by_hand(make_run):
    share = utilisation(make_run(replicas=3), np.linspace(0, 20, 6))
    assert share == pytest.approx(np.array([[0.75, 1, 1, 0, 0], [0.5, 1, 1, 1, 0.5], [0, 0, 0, 0, 0]]))


def test_spread():
    assert spread(3, 10).tolist() == [0, 1, 2]
    assert spread(101, 3).tolist() == [0, 50, 100]
    assert spread(0, 5).tolist() == []


def test_nothing_waits_less_than_never(make_run):
    def early(requests, _):
        requests["first_start_s"] -= 1e-13  # as rounding may leave it
        requests.loc[requests["request_id"] == "c", "first_start_s"] = 2 - 1e-13

    assert load(make_run(edit=early))[["waiting", "running"]].min().tolist() == [0, 0]


def test_replicas_by_hand(make_run):
    """The first is there always, the second is ready from 3 to 11 s, and again to the end; the third never came."""
    lifetimes = [[0, None, None, None], [1, 1.0, 3.0, 11.0], [1, 16.0, 17.0, None], [2, 2.0, None, 4.0]]
    found = replicas(checked(make_run(lifetimes=lifetimes, replicas=3))).set_index("time_s")
    assert found["paid"].to_dict() == {0: 1, 1: 2, 2: 3, 3: 3, 4: 2, 11: 1, 16: 2, 17: 2, 20: 0}
    assert found["ready"].to_dict() == {0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 11: 1, 16: 1, 17: 2, 20: 0}
    assert found["cost"].iloc[-1] == pytest.approx((20 + 10 + 4 + 2) / 3600)
    assert found["cost_of_most"].iloc[-1] == pytest.approx(60 / 3600)


def test_replicas_that_are_always_there(make_run):
    found = replicas(checked(make_run()))
    assert found["paid"].tolist() == found["ready"].tolist() == [2, 0]
    assert found["cost"].tolist() == pytest.approx([0, 40 / 3600])
