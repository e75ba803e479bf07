"""Every figure against values worked out by hand (see conftest)."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from reports.breakdown import by_batch, by_replica, by_size
from reports.checks import checked
from reports.figures import FIGURES, LEADING, TOPICS, figure, summary, worst_size
from reports.formatting import format_value
from reports.reasons import reasons
from traces.errors import BadInput

EXPECTED = {
    "slo_attainment": 2 / 6,
    "slo_attainment_worst_size": 0,  # the only one of 512x768
    "jain_attainment": math.nan,  # all of one tenant
    "goodput_rps": 2 / 20,
    "throughput_rps": 3 / 20,
    "images_per_s": 3 / 20,
    "requests": 6,
    "with_deadline": 5,
    "finished": 3,
    "dropped": 1,
    "failed": 1,
    "cancelled": 1,
    "span_s": 20,
    "latency_mean_s": 34 / 3,
    "latency_p50_s": math.inf,  # half of them never finished
    "latency_p90_s": math.inf,
    "latency_p95_s": math.inf,
    "latency_p99_s": math.inf,
    "slowdown_mean": 6.5 / 3,
    "slowdown_p50": 2.25,
    "slowdown_p95": math.inf,
    "jain_slowdown": math.nan,
    "queueing_mean_s": 1.75,
    "queueing_p50_s": 3,  # of 0, 1, 1, 5 and two that never started
    "queueing_p95_s": math.inf,
    "launches": 5,
    "batch_mean": 8 / 5,
    "batch_denoise": 31 / 25,
    "utilisation": 27 / 40,
    "device_s_per_image": 2 * 20 / 3,
    "cost": math.nan,  # no price is known
    "replicas_mean": math.nan,  # none comes or goes
    "saved": math.nan,
    "starts": math.nan,
    "starting": math.nan,
    "reuse": 5 / 45,
    "loads": math.nan,
    "loading": math.nan,
    "resident": math.nan,
    "availability": math.nan,
    "restarts": math.nan,
    "extrapolated_launches": 1 / 5,
    "extrapolated_requests": 1 / 6,
    "extrapolated_time": 16 / 27,
    "prediction_mape": 0.375,
    "prediction_mape_by_time": 4 / 24,
    "prediction_bias": 0.125,
    "prediction_bias_by_time": -2 / 24,
    "prediction_mape:encode": 0,
    "prediction_mape_by_time:encode": 0,
    "prediction_bias:encode": 0,
    "prediction_bias_by_time:encode": 0,
    "prediction_mape:denoise": 0.25,
    "prediction_mape_by_time:denoise": 3 / 22,
    "prediction_bias:denoise": -0.25,
    "prediction_bias_by_time:denoise": -3 / 22,
    "prediction_mape:decode": 1,
    "prediction_mape_by_time:decode": 1,
    "prediction_bias:decode": 1,
    "prediction_bias_by_time:decode": 1,
}


def test_summary_by_hand(make_run):
    assert summary(checked(make_run())) == pytest.approx(EXPECTED, nan_ok=True)


def test_every_figure_is_described_in_order(make_run):
    names = [name for name in summary(checked(make_run())) if ":" not in name]
    assert names == list(FIGURES)


def test_every_figure_has_one_topic():
    assert sorted(name for names in TOPICS.values() for name in names) == sorted(FIGURES)
    assert set(LEADING) <= set(FIGURES)


def test_the_worst_size_is_a_frequent_one(make_run):
    first = make_run().requests

    def many(count):
        rows = pd.concat([first.iloc[[0]]] * count + [first.iloc[[4]]], ignore_index=True)  # one failed, of 512x768
        rows["request_id"] = [str(at) for at in range(count + 1)]
        return make_run(f"of-{count}", requests=rows, steps=make_run(f"no-{count}").steps.head(0))

    assert worst_size(checked(many(98))) == (0.0, (512, 768, 1))
    assert worst_size(checked(many(200))) == (1.0, (512, 512, 1))


def test_jains_index_over_tenants(make_run):
    def two(requests, _):
        requests["tenant"] = ["x", "y", "x", "y", "y", "y"]  # a and c are in time, of b, d, e and f none is

    values = summary(checked(make_run("two", edit=two)))
    assert values["jain_attainment"] == 1 / 2
    x, y = (4 / 9 + 8 / 16) / 2, (4 / 9 + 0 + 0) / 3  # of e it is not known what it takes alone
    assert values["jain_slowdown"] == pytest.approx((x + y) ** 2 / (2 * (x**2 + y**2)))

    def alike(requests, _):
        requests["tenant"] = ["x", "x", "y", "x", "y", "y"]  # one of three in time

    assert summary(checked(make_run("alike", edit=alike)))["jain_attainment"] == pytest.approx(1)


def test_by_size(make_run):
    frame = by_size(checked(make_run()))
    assert list(frame.index) == ["512x512", "512x768", "1024x1024"]
    assert frame["slo_attainment"].tolist() == pytest.approx([1 / 3, 0, 1 / 2])
    assert frame.loc["512x512", "latency_p50_s"] == 9
    assert frame.loc["512x768", "latency_p50_s"] == math.inf  # nothing of that size finished


def test_clips_are_sizes_of_their_own(make_run):
    run = make_run(edit=lambda requests, _: requests.__setitem__("frames", [1, 81, 1, 1, 1, 1]))
    assert list(by_size(checked(run)).index) == ["512x512", "512x512x81", "512x768", "1024x1024"]


def test_by_batch(make_run):
    def mix(_, steps):
        steps.loc[2, ["composition", "requests", "request_ids"]] = ["1@512x512+1@1024x1024", 2, ["c", "f"]]

    assert list(by_batch(checked(make_run())).index) == ["one request", "one size"]
    frame = by_batch(checked(make_run("mixed", edit=mix)))
    assert list(frame.index) == ["one request", "one size", "mixed sizes"]
    assert frame["launches"].tolist() == [1, 1, 1]
    assert frame["busy_s"].tolist() == [3, 6, 16]
    assert math.isnan(frame.loc["one request", "prediction_mape"])  # it failed before its first step
    assert frame["prediction_mape"].tolist()[1:] == [0.5, 0]
    assert frame["prediction_bias_by_time"].tolist()[1:] == [-0.5, 0]


def test_utilisation_is_that_of_all_devices(make_run):
    def shared(_, steps):
        steps["stage"] = steps["stage"].replace("denoise", "refine")
        steps.loc[steps["replica"] == 1, "device_s"] = 24.0  # of 2 devices x 16 s

    run = make_run(edit=shared, devices=2)
    assert summary(checked(run))["utilisation"] == pytest.approx((11 + 24) / (20 * 2 * 2))
    frame = by_replica(checked(run))
    assert frame["utilisation"].tolist() == pytest.approx([11 / 40, 24 / 40])
    assert frame["busy_s"].tolist() == [11, 16]
    assert by_batch(checked(run)).index.tolist() == ["tiled"]


def test_devices_must_be_a_number(make_run):
    with pytest.raises(BadInput, match="devices is 0"):
        summary(checked(make_run(devices=0)))


def test_by_replica(make_run):
    frame = by_replica(checked(make_run(replicas=3)))
    assert frame["busy_s"].tolist() == [11, 16, 0]
    assert frame["utilisation"].tolist() == pytest.approx([0.55, 0.8, 0])
    assert frame["launches"].tolist() == [4, 1, 0]


def test_reasons(make_run):
    assert reasons(make_run()).to_numpy().tolist() == [
        ["cancelled", "client left", 1],
        ["dropped", "hopeless", 1],
        ["failed", "out of memory", 1],
    ]


def test_reasons_that_differ_in_seconds_are_one(make_run):
    run = make_run()
    late = run.requests["status"] == "cancelled"
    requests = pd.concat([run.requests] + [run.requests[late]] * 2, ignore_index=True)
    again = requests["status"] == "cancelled"
    requests.loc[again, "reason"] = [f"late by {seconds} s even alone" for seconds in ("7.4", "0.25", "1.2e+02")]
    assert reasons(replace(run, requests=requests)).to_numpy().tolist() == [
        ["cancelled", "late by up to 120 s even alone", 3],
        ["dropped", "hopeless", 1],
        ["failed", "out of memory", 1],
    ]


def test_run_without_requests(empty_run):
    figures = summary(checked(empty_run))
    assert figures["requests"] == 0
    assert math.isnan(figures["slo_attainment"])
    assert math.isnan(figures["latency_p99_s"])
    assert by_size(checked(empty_run)).empty
    assert by_batch(checked(empty_run)).empty
    assert len(by_replica(checked(empty_run))) == 2


def test_run_that_dropped_everything(lost_run):
    figures = summary(checked(lost_run))
    assert figures["slo_attainment"] == figures["goodput_rps"] == figures["utilisation"] == 0
    assert figures["dropped"] == 6
    assert math.isnan(figures["latency_mean_s"])


def test_request_that_never_arrived_misses(interrupted_run):
    figures = summary(checked(interrupted_run))
    assert figures["slo_attainment"] == pytest.approx(2 / 6)
    assert figures["span_s"] == 18


def test_finishing_at_the_deadline_is_in_time(make_run):
    def shift(requests, _):
        requests.loc[1, "deadline_s"] = 9.0 - 1e-12

    assert summary(checked(make_run(edit=shift)))["slo_attainment"] == pytest.approx(3 / 6)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.9312, "%", "93.1 %"),
        (1234.0, "", "1,234"),
        (0.00123, "s", "0.00123 s"),
        (12.345, "s", "12.3 s"),
        (45678.9, "s", "45,679 s"),
        (0.5, "1/s", "0.500 /s"),
        (math.nan, "s", "–"),
        (0.0, "x", "0"),
        (1.0, "%", "100.0 %"),
        (1.0 - 1e-12, "%", "100.0 %"),
        (47_146 / 47_151, "%", "99.99 %"),
        (1.0 - 1e-7, "%", "99.999 %"),
        (-1e-12, "%", "0.0 %"),
        (5 / 47_151, "%", "0.01 %"),
        (1e-7, "%", "0.001 %"),
        (-3e-4, "%", "-0.03 %"),
        (1.25, "%", "125.0 %"),
    ],
)
def test_formatting(value, unit, text):
    assert format_value(value, unit) == text


def test_figure_of_a_part():
    assert figure("prediction_mape:decode").label == "Prediction error (MAPE), decode"


def test_loading_counts_as_busy_and_not_as_a_batch(loading_run, make_run):
    loading, plain = summary(checked(loading_run)), summary(checked(make_run()))
    assert (loading["loads"], loading["loading"]) == (1, pytest.approx(0.5 / 40))
    assert loading["utilisation"] == pytest.approx(27.5 / 40)
    assert loading["batch_mean"] == plain["batch_mean"]
    of_replicas = [by_replica(checked(run))["batch_mean"].tolist() for run in (loading_run, make_run("again"))]
    assert of_replicas[0] == of_replicas[1]
    assert by_batch(checked(loading_run)).index.tolist() == by_batch(checked(make_run("thrice"))).index.tolist()


def test_outages_and_restarts(make_run):
    def restart(requests, _):
        requests.loc[requests["request_id"] == "c", "attempts"] = 3

    figures = summary(checked(make_run(edit=restart, outages=[[0, 12.0, 16.0], [1, 18.0, None]])))
    assert figures["availability"] == pytest.approx(1 - 6 / 40)
    assert figures["restarts"] == 2


def test_who_waited_for_a_load_did_not_find_its_weights(loading_run):
    loading_run.requests.loc[loading_run.requests["request_id"] == "c", "checkpoint"] = "anime-xl"
    assert summary(checked(loading_run))["resident"] == 1.0  # they came before it did
    loading_run.requests.loc[loading_run.requests["request_id"] == "c", "arrival_s"] = 1.2
    assert summary(checked(loading_run))["resident"] == 3 / 4
