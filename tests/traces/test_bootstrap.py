"""Replications of a demand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples_tried import examples
from traces.bootstrap import DAY_S, Bootstrap, Fitted, draws_at
from traces.errors import BadInput
from traces.sizes import parse_sizes
from traces.streams import stream
from traces.trace import Trace
from traces.workload import Workload, fit, generate

SIZES = parse_sizes("512x512:3,768x512:1")


def recorded(days: float, rate: float = 0.002, seed: int = 0) -> Trace:
    trace = generate(rate, days * DAY_S, SIZES, arrivals="gamma:3+diurnal:0.8", steps="20:1,30:1", seed=seed)
    frame = trace.frame
    return Trace.from_frame(frame.assign(slo_s=stream(seed, "slo").uniform(1, 9, len(frame)), checkpoint=frame.index))


MADE = {"days": Bootstrap(recorded(4.5)), "runs": Bootstrap(recorded(1.5)), "fitted": Fitted(fit(recorded(4.5)))}


@given(how=st.sampled_from(sorted(MADE)), few=st.integers(1, 700), more=st.integers(0, 700), seed=st.integers(0, 9))
@settings(max_examples=examples(15), deadline=None)
def test_a_shorter_replication_is_the_beginning_of_a_longer_one(how: str, few: int, more: int, seed: int) -> None:
    demand = MADE[how]
    short, long = demand.draw(few, seed).frame, demand.draw(few + more, seed).frame
    assert len(long) == few + more
    pd.testing.assert_frame_equal(short, long.head(few))
    assert (np.diff(long["arrival_s"]) >= 0).all()
    assert long["arrival_s"].iloc[0] >= 0


@pytest.mark.parametrize("how", MADE)
def test_seeds_differ_and_have_the_rate_that_is_said(how: str) -> None:
    demand = MADE[how]
    frames = [demand.draw(2000, seed).frame for seed in range(20)]
    assert not frames[0]["arrival_s"].equals(frames[1]["arrival_s"])
    rates = [len(frame) / frame["arrival_s"].iloc[-1] for frame in frames]
    error = np.std(rates, ddof=1) / np.sqrt(len(rates))
    assert abs(np.mean(rates) - demand.rate_rps) < 4 * error + 0.02 * demand.rate_rps


@pytest.mark.parametrize("how", ["days", "runs"])
def test_what_belongs_to_a_request_travels_with_it(how: str) -> None:
    demand = MADE[how]
    recorded = demand.trace.frame
    drawn = demand.draw(500, 3).frame
    columns = ["height", "width", "steps", "slo_s", "checkpoint"]
    origin = recorded.set_index("checkpoint", drop=False).loc[drawn["checkpoint"]]
    pd.testing.assert_frame_equal(drawn[columns], origin[columns].reset_index(drop=True))
    assert drawn["request_id"].tolist() == [str(row) for row in range(1, 501)]


def test_days_keep_the_course_of_the_day() -> None:
    demand = MADE["days"]
    assert demand.days == 4
    drawn = demand.draw(3000, 1).frame
    recorded = demand.trace.frame.set_index("checkpoint")
    of_day = drawn["arrival_s"] % DAY_S
    np.testing.assert_allclose(of_day, recorded.loc[drawn["checkpoint"], "arrival_s"] % DAY_S, atol=1e-6)


def test_runs_keep_intervals_and_deadlines_on_the_clock() -> None:
    recorded = MADE["runs"].trace.frame
    with_deadlines = recorded.assign(deadline_s=recorded["arrival_s"] + recorded["slo_s"], slo_s=np.nan)
    demand = Bootstrap(Trace.from_frame(with_deadlines))
    drawn = demand.draw(300, 0).frame
    row = drawn["checkpoint"].astype(int).to_numpy()
    np.testing.assert_allclose(drawn["deadline_s"] - drawn["arrival_s"], recorded["slo_s"].to_numpy()[row], atol=1e-6)
    gaps = np.diff(recorded["arrival_s"])
    inside = np.diff(row) == 1
    assert inside.mean() > 0.9
    np.testing.assert_allclose(np.diff(drawn["arrival_s"])[inside], gaps[row[:-1][inside]], atol=1e-6)


def test_a_profile_of_the_day_survives_a_fit() -> None:
    workload = MADE["fitted"].workload
    assert workload.arrivals.profile is not None
    of_day = MADE["fitted"].draw(4000, 0).frame["arrival_s"] % DAY_S
    by_hour = np.bincount((of_day // 3600).astype(int), minlength=24)
    assert by_hour.max() > 2.5 * by_hour.min()


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_a_draw_at_another_rate_has_it_and_noon_stays_noon(factor: float) -> None:
    demand = MADE["days"]
    parts = list(draws_at(demand, factor * demand.rate_rps, 2 * DAY_S, 3))
    assert len(parts) == math.ceil(factor)
    arrival = np.concatenate([part.frame["arrival_s"].to_numpy() for part in parts])
    assert 0 <= arrival.min() <= arrival.max() < 2 * DAY_S
    assert len(arrival) == pytest.approx(2 * DAY_S * factor * demand.rate_rps, rel=0.15)
    (faster,) = draws_at(MADE["runs"], factor * MADE["runs"].rate_rps, 1000.0, 3)
    (usual,) = draws_at(MADE["runs"], MADE["runs"].rate_rps, 1000.0 * factor, 3)
    np.testing.assert_allclose(faster.frame["arrival_s"] * factor, usual.frame["arrival_s"])
    by_hour = np.bincount((arrival % DAY_S // 3600).astype(int), minlength=24)
    recorded = np.bincount((demand.trace.frame["arrival_s"] % DAY_S // 3600).astype(int), minlength=24)
    assert np.corrcoef(by_hour, recorded)[0, 1] > 0.5


def test_bad_demands_are_refused() -> None:
    with pytest.raises(BadInput, match="two times or more"):
        Bootstrap(recorded(1.5).head(1))
    for demand in (*MADE.values(), Fitted(Workload(1.0, SIZES))):
        with pytest.raises(BadInput, match="cannot draw 0 requests"):
            demand.draw(0, 0)
