"""What a run log says of itself: the gravest first, wherever it is shown."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from reports.checks import checked
from reports.comparison import Comparison
from reports.drift import drift, stalls
from reports.fidelity import Answer, Fidelity, NoiseRange
from reports.figures import summary
from reports.markdown import markdown
from reports.notes import run_notes
from reports.page import page
from reports.terminal import show
from reports.validate import Validation
from traces.notes import Note, Severity, grave, ordered, remark


def told(run) -> dict[str, list[str]]:
    """Notes of a run by severity."""
    found: dict[str, list[str]] = {severity: [] for severity in Severity}
    for note in run_notes(run, checked(run), summary(checked(run))):
        found[note.severity].append(note.text)
    return found


def finish(requests: pd.DataFrame, _: object) -> None:
    """All six requests finish."""
    late = requests["finish_s"].isna() | (requests["status"] != "finished")
    requests.loc[late, ["status", "reason"]] = "finished", ""
    requests["first_start_s"] = requests["first_start_s"].fillna(requests["arrival_s"])
    requests["standalone_s"] = requests["standalone_s"].fillna(4.0)


@pytest.fixture
def overloaded(make_run):
    """200 requests, one every half second, each served for a second."""
    one = make_run("one", edit=finish).requests.iloc[[0]]
    requests = pd.concat([one] * 200, ignore_index=True)
    requests["request_id"] = [f"r{at}" for at in range(200)]
    requests["arrival_s"], requests["finish_s"] = np.arange(200) / 2, np.arange(200) + 1.0
    requests["first_start_s"], requests["standalone_s"] = requests["finish_s"] - 1, 1.0
    return make_run("flood", requests=requests, steps=make_run("none").steps.head(0))


def test_an_overload_is_the_first_thing_said_everywhere(overloaded):
    [said] = told(overloaded)["grave"]
    assert said.startswith("OVERLOADED: requests arrive 2 times as fast as they are served")
    assert "every figure depends on how long the trace is" in said
    comparison, out = Comparison.of([overloaded]), io.StringIO()
    show(comparison, Console(file=out, width=300))
    assert out.getvalue().startswith("! OVERLOADED")
    assert markdown(comparison).startswith("- **flood: OVERLOADED")
    text = page(comparison)
    assert text.index("OVERLOADED") < text.index("<h1>")


def test_percentiles_say_how_many_never_finished(make_run):
    run = make_run()
    [said] = told(run)["grave"]
    assert said.startswith("50.0 % of the requests never finished (1 dropped, 1 failed, 1 cancelled); percentiles")
    assert "means are of the 50.0 % that finished; mostly: " in said
    assert summary(checked(run))["latency_p95_s"] == np.inf
    out = io.StringIO()
    show(Comparison.of([run]), Console(file=out, width=120))
    assert "∞" in out.getvalue()
    assert told(make_run("all", edit=finish))["grave"] == []


def test_nothing_finished_is_said_first(lost_run):
    assert told(lost_run)["grave"] == ["NOTHING FINISHED: all 6 requests are lost (6 dropped, mostly: queue full)."]


def test_drift_from_the_profile_is_said_of_real_runs(make_run):
    assert (
        "DRIFT: the steps of this run took 14 % longer"
        in told(make_run("real", edit=finish, kind="replay", drift=0.14))["grave"][0]
    )
    assert any("took 7 % shorter" in note for note in told(make_run("near", kind="replay", drift=-0.07))["caution"])
    assert not any("profile" in note for note in told(make_run("sim", drift=0.5))["grave"])
    assert not any("profile" in note for note in told(make_run("same", kind="replay", drift=0.01))["caution"])


def test_a_stopped_process_leaves_a_note_and_is_no_drift(make_run):
    def stop(requests, steps):
        finish(requests, steps)
        steps.loc[2, ["end_s", "predicted_s"]] = 18, 0.32  # 50 times as long as predicted, the others as predicted
        steps["predicted_s"] = steps["predicted_s"].where(steps.index == 2, steps["end_s"] - steps["start_s"])

    run = make_run("stopped", edit=stop, kind="replay")
    still = stalls(checked(run))
    assert (still.launches, round(still.times)) == (1, 50)
    [said] = [note for note in told(run)["caution"] if "stood still" in note]
    assert said.startswith("1 launch stood still (up to 50 times as long as usual, 15.7 s more in all)")
    assert drift(np.array([1.0, 1.1, 1.0, 50.0]), np.ones(4)) == pytest.approx(0.1 / 3)
    assert np.isnan(drift(np.zeros(0), np.zeros(0)))


def test_figures_that_are_not_defined_are_named(make_run):
    run = make_run(edit=lambda requests, _: requests.__setitem__("standalone_s", float("nan")))
    assert any("Slowdown, mean of finished" in note for note in told(run)["caution"])


def test_that_nothing_is_wrong_is_no_caution(make_run):
    def inside(requests, steps):
        finish(requests, steps)
        steps["extrapolated"] = False

    found = told(make_run("inside", edit=inside))
    assert found == {"grave": [], "caution": [], "remark": ["all predictions lie within the measured range."]}
    out = io.StringIO()
    show(Comparison.of([make_run("shown", edit=inside)]), Console(file=out, width=120))
    assert "!" not in out.getvalue()


def test_the_gravest_comes_first_and_each_once():
    notes = ["a", remark("b"), grave("c"), Note("a"), grave("d")]
    assert [note.text for note in ordered(notes)] == ["c", "d", "a", "b"]
    assert [Note.of(json.loads(json.dumps(note.document()))) for note in ordered(notes)] == ordered(notes)


def test_a_note_of_the_profile_comes_before_other_warnings(make_run):
    warnings = ["odd size", grave("the profile's own note: do not compare").document()]
    comparison = Comparison.of([make_run("all", edit=finish, warnings=warnings)])
    assert [note.text for note in comparison.notes()][:2] == [
        "all: the profile's own note: do not compare",
        "all: odd size",
    ]


def figures(**errors: float) -> pd.DataFrame:
    names = {"p50": "latency_p50_s", "p95": "latency_p95_s", "p99": "latency_p99_s", "met": "slo_attainment"}
    sims = {name: 1.0 + errors.get(short, 0.0) for short, name in names.items()}
    return pd.DataFrame({"sim": sims, "real": dict.fromkeys(sims, 1.0)})


def judged(frame: pd.DataFrame, noise: float = 0.0, requests: int = 1000, **more) -> Fidelity:
    """The verdict where every difference is known but for so much on either side."""
    errors = frame["sim"] - frame["real"]
    lies = {str(name): NoiseRange(error - noise, error + noise) for name, error in errors.fillna(0.0).items()}
    return Fidelity.of(frame, lies, requests, **more)


def test_the_verdict_names_what_missed_its_limit_and_why():
    near = judged(figures(p50=0.039, p95=-0.069, met=-0.009), noise=0.01)
    assert near.answer is Answer.FAITHFUL
    assert near.verdict.startswith("FAITHFUL: P50 +3.9 % (+2.9 to +4.9, limit 5 %), P95 -6.9 % (-7.9 to -5.9, limit ")
    far = judged(figures(p50=0.99, met=-0.04), noise=0.01, drift=0.14)
    assert far.answer is Answer.NOT_FAITHFUL
    assert far.verdict == (
        "NOT FAITHFUL: P50 +99.0 % (+98.0 to +100.0, limit 5 %), attainment -4.0 points (-5.0 to -3.0, limit 2 points);"
        " real steps took 14 % longer than simulated ones (drift): profile again."
    )
    other = judged(figures(), parity={"decisions": 3, "reproduced": "decision 2 differs"})
    assert other.answer is Answer.NOT_FAITHFUL
    assert judged(figures(), parity={"decisions": 3, "reproduced": "all the same"}).faithful


def test_what_noise_leaves_on_both_sides_of_a_limit_is_not_told():
    unsure = judged(figures(p95=0.04), noise=0.08, requests=100)
    assert unsure.answer is Answer.TOO_SHORT
    assert unsure.wanted == pytest.approx(100 * (0.08 / 0.02) ** 2)  # attainment, the smallest limit
    assert unsure.verdict.endswith(
        "attainment +0.0 points (-8.0 to +8.0, limit 2 points); 100 requests leave room for noise on both sides of a "
        "limit: take a trace of about 1,600 requests."
    )
    assert unsure.document()["answer"] == "TOO SHORT TO TELL"
    sure = judged(figures(p50=0.5, p95=0.04), noise=0.08, requests=100)
    assert sure.answer is Answer.NOT_FAITHFUL  # one figure is enough
    assert math.isnan(sure.wanted)
    border = judged(figures(p50=0.05), noise=0.01)
    assert "take a much longer trace" in border.verdict  # nobody knows how long


def test_what_never_comes_in_one_run_alone_is_not_foretold():
    never = figures()
    never.loc["latency_p95_s"] = np.inf
    assert judged(never).faithful  # in both
    never.loc["latency_p95_s", "real"] = 3.0
    assert "P95 +∞ % (+∞ to +∞, limit 8 %)" in judged(never).verdict


def test_validation_finds_the_drift_itself(make_run):
    def slow(requests, steps):
        steps.loc[1, "end_s"] = steps.loc[3, "start_s"] = 7  # denoising of a and b took a second less
        steps.loc[3, "end_s"] = 8
        requests.loc[[0, 1], "finish_s"] = 8

    found = Validation.of(make_run("sim"), make_run("real", edit=slow, kind="replay")).fidelity
    assert found.drift == pytest.approx(-1 / 24)


@pytest.mark.parametrize(
    ("executor", "composition", "notes"),
    [("whole", "1@512x512+1@768x768", 1), ("whole", "2@512x512", 0), ("patched", "1@512x512+1@768x768", 0)],
)
def test_a_scheduler_that_mixes_sizes_is_told_where_they_take_turns(make_run, executor, composition, notes):
    def mix(_: object, steps: pd.DataFrame) -> None:
        steps.loc[steps["stage"] == "denoise", "composition"] = composition

    run = make_run("paired", edit=mix, predictor={"executor": executor})
    said = [note for note in told(run)["caution"] if "one size after another" in note]
    assert len(said) == notes
    assert all("fcfs gains nothing by them" in note for note in said)
