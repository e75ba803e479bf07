"""A simulation held against a real run."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from reports.terminal import sim_against_real
from reports.validate import VALIDATION, Validation, compare_figures, per_request
from reports.validation_page import document, write_validation_page
from tests.reports.pages import many
from traces.errors import BadInput


@pytest.fixture
def real(make_run):
    """Like the simulation, but c finishes at 22 s and b has until 9 s."""

    def slow(requests, steps):
        requests.loc[2, "finish_s"] = 22
        requests.loc[1, "deadline_s"] = 9
        steps.loc[2, "end_s"] = 22

    return make_run("real", edit=slow, kind="replay")


def test_errors_of_figures(make_run, real):
    figures = compare_figures(make_run("sim"), real)
    attainment = figures.loc["slo_attainment"]
    assert (attainment["sim"], attainment["real"]) == pytest.approx((100 / 3, 50))
    assert attainment["absolute"] == pytest.approx(-100 / 6)
    assert figures.loc["latency_mean_s", "absolute"] == pytest.approx(-4 / 3)
    assert figures.loc["latency_mean_s", "relative"] == pytest.approx(-4 / 38)
    assert figures.loc["slo_attainment:512x512", "real"] == pytest.approx(200 / 3)
    assert np.isnan(compare_figures(real, real).loc["prediction_mape:encode", "relative"])


def test_errors_of_sizes(make_run):
    def smaller(requests, _):
        requests.loc[3, ["height", "width"]] = 512, 768  # d, which was dropped

    def slower(requests, steps):
        smaller(requests, steps)
        requests.loc[2, "finish_s"] = steps.loc[2, "end_s"] = 22

    figures = compare_figures(make_run("sim", edit=smaller), make_run("slow", edit=slower, kind="replay"))
    row = figures.loc["latency_p50_s:1024x1024"]
    assert (row["sim"], row["real"], row["relative"]) == pytest.approx((16, 20, -0.2))
    assert figures.loc["latency_p95_s:512x512", "relative"] == 0
    never = figures.loc["latency_p50_s:512x768"]  # nothing of that size finished, in neither run
    assert (never["sim"], never["real"], never["absolute"]) == (np.inf, np.inf, 0)
    assert {"latency_p99_s", "latency_p95_s"} <= set(figures.index)


def test_settings_that_differ_are_cautioned_against(make_run, real):
    def settings(executor, floor, caching, **more):
        cluster = {"executor": executor, "patch_floor": floor, "replicas": 2, "link_latency_s": floor}
        return {"cluster": cluster, "policies": {"caching": {"name": caching}, "scheduling": {"name": "fcfs", **more}}}

    sim = make_run("sim", scenario=settings("patched", 4, "none", max_batch=4))
    asked = make_run("asked", kind="replay", scenario=settings("patched", 8, "forest", max_batch=8))
    assert Validation.of(sim, asked).cautions == [
        "cluster.patch_floor differs: 4 simulated, 8 real.",
        "policies.caching.name differs: none simulated, forest real.",
        "policies.scheduling.max_batch differs: 4 simulated, 8 real.",
    ]
    assert Validation.of(sim, make_run("like", kind="replay", scenario=sim.info["scenario"])).cautions == []


def test_errors_of_requests(make_run, real):
    joined = per_request(make_run("sim"), real)
    assert joined["error_s"].dropna().to_dict() == {"a": 0, "b": 0, "c": -4}
    assert joined.loc["c", "relative"] == pytest.approx(-0.2)
    assert joined["same_end"].to_dict() == {"a": True, "b": False, "c": True, "d": True, "e": True, "f": True}


def test_order_of_requests_does_not_matter(make_run, real):
    shuffled = make_run("sim", requests=make_run("seed").requests.iloc[::-1])
    assert per_request(shuffled, real)["error_s"].dropna().to_dict() == {"a": 0, "b": 0, "c": -4}


def test_different_requests_are_refused(make_run, real):
    def rename(requests, _):
        requests.loc[[3, 5], "request_id"] = ["x", "y"]

    with pytest.raises(BadInput, match="2 only in the first, 2 only in the second"):
        per_request(make_run("sim", edit=rename), real)

    def resize(requests, _):
        requests.loc[3, "height"] = 64

    with pytest.raises(BadInput, match="1 requests differ in size, steps or images, the first is 'd'"):
        per_request(make_run("resized", edit=resize), real)


def test_swapped_runs_are_refused(make_run, real):
    with pytest.raises(BadInput, match="name the simulation first"):
        Validation.of(real, make_run("sim"))


def test_document_and_table(make_run, real, tmp_path):
    parity = {"decisions": 12, "equal": 11}
    validation = Validation.of(make_run("sim", scheduler="edf"), real, parity)
    validation.write(tmp_path / "v.json")
    document = json.loads((tmp_path / "v.json").read_text())
    assert document["parity"] == parity
    assert document["figures"]["slo_attainment"]["unit"] == "%"
    assert document["requests"] | {"latency_error": None} == {
        "total": 6,
        "ended_alike": 5,
        "finished_in_both": 3,
        "latency_error": None,
    }
    assert document["requests"]["latency_error"]["mean"]["error_s"] == pytest.approx(-4 / 3)
    assert document["cautions"] == ["The scheduler differs: edf simulated, fcfs real."]
    out = io.StringIO()
    Console(file=out, width=120).print(sim_against_real(validation))
    for needle in (
        "-16.7 points",
        "Decision parity",
        "decisions",
        "5 of 6 requests ended alike",
        "edf simulated",
    ):
        assert needle in out.getvalue()
    assert "Slowdown" not in out.getvalue()
    whole = io.StringIO()
    Console(file=whole, width=120).print(sim_against_real(validation, every=True))
    assert "Slowdown, P50" in whole.getvalue()


def test_runs_without_requests(empty_run, tmp_path):
    validation = Validation.of(empty_run, empty_run)
    validation.write(tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text())["figures"]["slo_attainment"]["sim"] is None
    assert validation.fidelity.verdict.startswith("TOO SHORT TO TELL: nothing to compare; 0 requests leave")


def test_the_page_opens_with_whether_to_trust_the_simulation(make_run, tmp_path):
    """Steps that took longer are the cause, and told first."""
    sim = many("sim", 1, 0.5)
    page = document(Validation.of(sim, many("real", 1, 0.57, kind="replay")))
    assert re.fullmatch(r"Do not trust .*: real steps took \d.* % longer than it says; profile again.", page.answer)
    assert page.context.startswith("NOT FAITHFUL: ")
    assert page.key[0].label == "Latency, P50, error"
    same = document(Validation.of(sim, sim))
    assert same.answer == "Trust the simulation: everything that is judged lies within its limit."
    few = document(Validation.of(make_run("few"), make_run("real", kind="replay", edit=_later)))
    assert few.answer.startswith("Not sure yet whether to trust the simulation: a ")
    write_validation_page(Validation.of(sim, sim), tmp_path / "v.html")
    assert VALIDATION.wrote(tmp_path / "v.html")


def _later(requests, steps):
    requests.loc[2, "finish_s"] = steps.loc[2, "end_s"] = 19


def test_decisions_that_come_out_otherwise_are_no_fault_of_the_profile(make_run):
    run = make_run("run")
    page = document(Validation.of(run, run, {"decisions": 12, "reproduced": "decision 3: a, not b"}))
    assert page.answer == "Do not trust the simulation: the policy decides otherwise when it is told the same."
