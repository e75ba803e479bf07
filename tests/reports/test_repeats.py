"""Several simulated runs held against several real ones."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from reports.fidelity import format_difference
from reports.repeats import Repeats, held_against
from reports.terminal import sims_against_reals
from traces.errors import BadInput


def test_errors_beside_the_spread_of_the_real_runs():
    sims = [{"latency_p50_s": 1.0, "slo_attainment": 0.9}, {"latency_p50_s": 1.4, "slo_attainment": 0.8}]
    reals = [{"latency_p50_s": 0.9, "slo_attainment": 0.8}, {"latency_p50_s": 1.1, "slo_attainment": 0.7}]
    compared = held_against(sims, reals)
    expected = {"sim": 1.2, "sim_sd": math.sqrt(0.08), "real": 1.0, "error": 0.2, "spread": 0.2}
    assert compared.loc["latency_p50_s"].to_dict() == pytest.approx(expected)
    assert compared.loc["slo_attainment", "error"] == pytest.approx(0.1)  # points, not a share of 0.75
    assert compared.loc["slo_attainment", "spread"] == pytest.approx(0.1)


def test_one_run_of_a_kind_has_no_spread():
    compared = held_against([{"latency_p50_s": 2.0}], [{"latency_p50_s": 4.0, "latency_p99_s": math.nan}])
    assert compared.loc["latency_p50_s", ["sim", "real", "error"]].tolist() == [2.0, 4.0, -0.5]
    assert compared.loc["latency_p50_s", ["sim_sd", "spread"]].isna().all()
    assert math.isnan(compared.loc["latency_p99_s", "error"])
    with pytest.raises(BadInput, match="1 simulated and 0 real runs"):
        held_against([{"latency_p50_s": 2.0}], [])


def test_differences_are_spelled_by_their_unit():
    assert format_difference(-0.0123, "s") == "-1.2 %"
    assert format_difference(0.02, "%") == "+2.0 points"
    assert format_difference(0.02, "%", signed=False) == "2.0 points"
    assert format_difference(math.nan, "s") == "–"


@pytest.fixture
def runs(make_run):
    def later(seconds):
        def edit(requests, steps):
            requests.loc[2, "finish_s"] = 18 + seconds
            requests.loc[3, ["height", "width"]] = 512, 768  # d, which was dropped
            steps.loc[2, "end_s"] = 18 + seconds

        return edit

    settings = {"scenario": {"cluster": {"executor": "patched"}}}
    return [
        make_run("r1", edit=later(4), kind="replay", **settings),
        make_run("s1", edit=later(0)),
        make_run("r2", edit=later(2), kind="replay", **settings),
        make_run("s2", edit=later(1)),
    ]


def test_the_logs_say_which_runs_are_simulations(runs, tmp_path):
    repeats = Repeats.of(runs, {"decisions": 7})
    assert (repeats.sims, repeats.reals) == (("s1", "s2"), ("r1", "r2"))
    assert repeats.figures.loc["latency_p50_s:1024x1024", ["sim", "real"]].tolist() == [16.5, 19.0]
    assert repeats.figures.loc["latency_p50_s:1024x1024", "spread"] == pytest.approx(2 / 19)
    assert repeats.cautions == ["cluster.executor differs: None simulated, patched real."]
    repeats.write(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["figures"]["latency_p50_s:1024x1024"]["real"] == 19.0
    assert document["figures"]["latency_p50_s:512x768"] | {"sim_sd": None} == {
        "sim": None, "sim_sd": None, "real": None, "error": 0.0, "spread": None,
    }  # fmt: skip
    assert document["verdict"]["answer"] == "TOO SHORT TO TELL"  # six requests cannot tell of attainment
    assert document["verdict"]["ranges"]["latency_p99_s"][1] == 0.0  # most draws have some that never finish
    out = io.StringIO()
    Console(file=out, width=140).print(sims_against_reals(repeats, every=True))
    for needle in ("sim, mean of 2", "Latency, P50, 1024x1024", "-13.2 %", "10.5 %", "patched real", "decisions"):
        assert needle in out.getvalue()


def test_runs_of_other_requests_are_refused(runs, make_run):
    def rename(requests, _):
        requests.loc[3, "request_id"] = "x"

    with pytest.raises(BadInput, match="served different requests"):
        Repeats.of([*runs, make_run("other", edit=rename)])
    with pytest.raises(BadInput, match="0 real runs"):
        Repeats.of(runs[1::2])
