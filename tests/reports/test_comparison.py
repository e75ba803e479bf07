"""The answer, the cautions, and the tables that carry them."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from reports.comparison import Comparison
from reports.figures import KEY
from reports.markdown import markdown
from reports.page import page
from reports.terminal import show


def hasten(requests, _):
    requests.loc[1, "deadline_s"] = 9.0


def test_the_answer_names_the_best_run(make_run):
    comparison = Comparison.of([make_run("slow"), make_run("fast", edit=hasten)])
    assert comparison.answer() == (
        "fast met most deadlines: 3 of 6 requests in time (50.0 %), 16.7 points more than slow, which is within chance "
        "(95 % interval -45.5 to +64.1 points)."
    )
    attainment = next(row for row in comparison.rows() if row.label == "SLO attainment")
    assert attainment.cells == ("33.3 %", "50.0 %")
    assert attainment.best == {1}


def test_a_difference_beyond_chance_is_not_called_one(make_run):
    one = make_run("one").requests.iloc[[0]]
    requests = pd.concat([one] * 200, ignore_index=True).assign(request_id=[f"r{at}" for at in range(200)])
    none = make_run("none").steps.head(0)
    slow = make_run("slow", requests=requests.assign(deadline_s=np.where(np.arange(200) % 2, 8.0, 10.0)), steps=none)
    fast = make_run("fast", requests=requests, steps=none)
    answer = Comparison.of([slow, fast]).answer()
    assert answer.startswith(
        "fast met most deadlines: 200 of 200 requests in time (100.0 %), 50.0 points more than slow (95"
    )
    assert "within chance" not in answer
    other = make_run("other", requests=requests.assign(request_id=[f"s{at}" for at in range(200)]), steps=none)
    assert "interval" not in Comparison.of([slow, other]).answer()


def test_a_simulation_is_no_rival_of_the_real_run(make_run):
    answer = Comparison.of([make_run("real", kind="replay"), make_run("simulated", edit=hasten)]).answer()
    assert answer.startswith(
        "simulated, a simulation, has 16.7 points more requests in time than real, which really ran: 3 of 6 requests "
        "in time (50.0 %) against 2 of 6 requests in time (33.3 %)"
    )
    assert answer.endswith("How good the simulation is, tilecast validate says.")


def test_an_infinite_percentile_says_how_many_never_finished(make_run):
    rows = {row.label: row.cells for row in Comparison.of([make_run("one"), make_run("two")]).leading()}
    assert rows["Latency, P99"] == ("∞ (3 never)",) * 2


def test_the_answer_admits_a_draw(make_run):
    answer = Comparison.of([make_run("one"), make_run("two")]).answer()
    assert answer == "one and two met equally many deadlines: 2 of 6 requests in time (33.3 %) each."


def test_the_answer_without_deadlines(make_run):
    run = make_run(edit=lambda requests, _: requests.__setitem__("deadline_s", float("nan")))
    assert Comparison.of([run]).answer() == "hand: 3 of 6 requests finished (50.0 %)."


@pytest.mark.parametrize(("promised", "said"), [(0.3, "30.0 % kept"), (0.5, "50.0 % broken")])
def test_a_run_leads_with_the_promise_of_its_deadlines(make_run, promised, said):
    run = make_run(scenario={"plan": {"attainment": promised}})
    comparison = Comparison.of([run])
    assert comparison.answer() == f"hand: 2 of 6 requests in time (33.3 %); promise of {said}."
    first = comparison.leading()[0]
    assert (first.label, first.cells) == ("Promise", (said,))
    assert f"promise of {said}" in markdown(comparison)
    assert f'<dd class="hint">promise of {said}'.replace(" %", "\u00a0%") in page(comparison)
    other = make_run("other", scenario={"trace": "burst.csv"})
    rows = {row.label: row.cells for row in Comparison.of([run, other]).leading()}
    assert rows["Promise"] == (said, "–")


@pytest.mark.parametrize(
    "scenario", [{}, {"plan": None}, {"plan": {"attainment": "all"}}, {"plan": {"attainment": 7.0}}]
)
def test_where_no_promise_is_made_none_is_kept(make_run, scenario):
    assert "promise" not in Comparison.of([make_run(scenario=scenario)]).answer()


def test_without_deadlines_there_is_no_promise(make_run):
    def never(requests, _):
        requests["deadline_s"] = float("nan")

    run = make_run(edit=never, scenario={"plan": {"attainment": 0.95}})
    assert "romise" not in "".join([row.label for row in Comparison.of([run]).leading()])


FITTED = {"encode": "linear", "decode": "linear", "denoise": "floor-gaussian"}


@pytest.mark.parametrize(
    ("predictor", "line"),
    [
        (
            {"basis": "MEASURED", "fitted_models": dict.fromkeys(FITTED, "floor")},
            "MEASURED, h100, floor, executor whole",
        ),
        ({"fitted_models": FITTED}, "h100, linear (encode and decode), floor-gaussian (denoise), executor whole"),
        (
            {"basis": "ESTIMATED", "latency_model": "roofline", "fitted_models": {}},
            "ESTIMATED, h100, roofline, executor whole",
        ),
        (
            {"basis": "MEASURED", "divided": "by the roofline of an H100", "fitted_models": {"denoise": "linear"}},
            "MEASURED of whole requests, divided between their stages by the roofline of an H100, h100, linear, "
            "executor whole",
        ),
        (
            {"oracle": True, "fitted_models": {"tiles": "floor", "unheard": "floor"}},
            "h100, floor, executor whole, oracle",
        ),
    ],
)
def test_the_predictor_is_what_was_fitted(make_run, predictor, line):
    run = make_run(predictor={"profile": "h100", "latency_model": "auto", "executor": "whole"} | predictor)
    assert [row.cells for row in Comparison.of([run]).setup() if row.label == "Predictor"] == [(line,)]


def test_the_few_figures_that_answer_come_first(make_run):
    comparison = Comparison.of([make_run("one"), make_run("two", edit=hasten, scheduler="edf")])
    assert [row.label for row in comparison.leading()] == [
        "Scheduler",  # what they differ in
        "SLO attainment",
        "SLO attainment, worst size",
        "Latency, P50",
        "Latency, P95",
        "Latency, P99",
        "Throughput",
        "Cost, device time per image",
    ]
    assert "Model: sd3" in comparison.alike()
    assert "Scheduler" not in comparison.alike()
    shown = [row.label for _, rows in comparison.topics() for row in rows]
    assert sorted(shown) == sorted(row.label for row in comparison.rows())
    written, read = markdown(comparison), page(comparison)
    places = [written.index(row.label) for row in comparison.leading()]
    assert places == sorted(places)
    assert places[-1] < written.index("<details><summary>Requests") < written.index("Goodput")
    places = [read.index(f">{row.label}</th>") for row in comparison.leading(KEY)]
    assert places == sorted(places)
    assert places[-1] < read.index("Every figure") < read.index("Prediction error (MAPE)")


def test_the_terminal_shows_every_figure_where_it_is_asked_to(make_run):
    comparison = Comparison.of([make_run()])
    printed = []
    for every in (False, True):
        out = io.StringIO()
        show(comparison, Console(file=out, width=140), every=every)
        printed.append(out.getvalue())
    assert ["SLO attainment, worst size" in text for text in printed] == [False, True]
    assert all("Goodput" in text for text in printed)
    assert ["By replica" in text for text in printed] == [False, True]
    assert all(row.label in printed[1] for row in comparison.rows())


def test_the_worst_size_is_named(make_run):
    comparison = Comparison.of([make_run()])
    [worst] = [row for row in comparison.leading() if "worst" in row.label]
    assert worst.cells == ("0.0 % (512x768)",)


def test_what_looks_alike_is_not_best(make_run):
    def nearly(requests, _):
        requests["finish_s"] = requests["finish_s"] * (1 + 1e-7)  # fewer a second, by less than is shown

    runs = [make_run("one"), make_run("two", edit=nearly), make_run("fast", edit=hasten)]
    rows = {row.label: row for row in Comparison.of(runs).rows()}
    assert rows["SLO attainment"].best == {2}
    assert rows["Throughput"].best == frozenset()


def test_cautions(make_run, interrupted_run):
    other = make_run("other", edit=lambda requests, _: requests.replace("f", "g", inplace=True), hardware="L4")
    notes = " ".join(map(str, Comparison.of([other, interrupted_run]).notes()))
    assert "did not serve the same requests" in notes
    assert "different hardware: 2x H200, L4" in notes
    assert "interrupted: the run was interrupted" in notes
    assert "20 % of the launches (59 % of launch time) were predicted by extrapolation" in notes


def test_notes_on_requests_are_counted(make_run):
    def noted(requests, _):
        requests["note"] = ["the prompt was cut", "", "the prompt was cut; blacked out", "", "", ""]

    run = make_run("run", edit=noted)
    notes = [str(note) for note in Comparison.of([run]).notes()]
    assert "run: 2 requests: the prompt was cut." in notes
    assert "run: 1 request: blacked out." in notes
    printed = io.StringIO()
    show(Comparison.of([run]), Console(file=printed, width=200))
    assert "! 2 requests: the prompt was cut." in printed.getvalue()


def test_equal_names_are_told_apart(make_run):
    runs = [make_run("x/run"), make_run("y/run"), make_run("z")]
    assert Comparison.of(runs).names == ("x/run", "y/run", "z")
    assert Comparison.of([runs[2], runs[2]]).names[0] != Comparison.of([runs[2], runs[2]]).names[1]


@pytest.mark.parametrize("fixture", ["empty_run", "lost_run", "interrupted_run", "loading_run"])
def test_tables_of_odd_runs(fixture, request):
    comparison = Comparison.of([request.getfixturevalue(fixture)])
    out = io.StringIO()
    show(comparison, Console(file=out, width=100))
    assert comparison.answer() in out.getvalue()
    assert "nan" not in out.getvalue() + markdown(comparison)


def test_terminal_shows_markup_as_text(make_run):
    out = io.StringIO()
    run = make_run(scheduler="[bold]mine[/x]")
    show(Comparison.of([run]), Console(file=out, width=140), every=True)
    show(Comparison.of([run, make_run("other", scheduler="[red]yours")]), Console(file=out, width=140))
    assert out.getvalue().count("[bold]mine[/x]") == 2
    assert "[red]yours" in out.getvalue()
    assert "out of memory" in out.getvalue()


def shown_everywhere(comparison):
    """As the terminal, Markdown and the page show it."""
    out = io.StringIO()
    show(comparison, Console(file=out, width=160), every=True)
    return out.getvalue(), markdown(comparison), page(comparison)


def test_tables_by_model_pool_and_tenant_are_shown_where_there_are_several(make_run):
    def parted(requests, _):
        requests["tenant"], requests["model"] = ["<b>", "", "<b>", "<b>", "", ""], ["sd3"] * 5 + ["flux|1"]

    pools = [{"name": name, "replicas": 1, "devices": 1, "price_per_hour": 2.0} for name in ("large", "small")]
    one, two = make_run(), make_run("parted", edit=parted, pools=pools)
    for told in shown_everywhere(Comparison.of([one])):
        assert not [part for part in ("By model", "By pool", "By tenant", "Jain") if part in told]
    several = shown_everywhere(Comparison.of([two]))
    for told in several:
        assert all(part in told for part in ("By model", "By pool", "By tenant", "(none)", "large", "Jain"))
    printed, written, read = several
    assert "<b>" in printed
    assert r"| \<b\> | 3 | 2 | 66.7 % |" in written
    assert r"| flux\|1 | 1 | 0 | 0.0 % | ∞ | ∞ | – |" in written
    assert "&lt;b&gt;</th>" in read
    assert "<b>" not in read
    both = markdown(Comparison.of([one, two]))
    assert "| tenant | run | requests | finished | in time |" in both
    assert "| (none) | hand | 6 | 3 | 33.3 % |" in both
    assert "| (none) | parted | 3 | 1 | 0.0 % |" in both
    assert "| large | parted | 1 | 3 | 33.3 % |" in both


def test_of_many_tenants_those_with_the_most_requests_are_shown(make_run):
    rows = pd.concat([make_run().requests.iloc[[0]]] * 60, ignore_index=True)
    rows["request_id"] = [str(at) for at in range(60)]
    rows["tenant"] = [f"t{max(at, 30)}" for at in range(60)]
    table = Comparison.of([make_run("many", requests=rows, steps=make_run("no").steps.head(0))]).breakdowns()[-1]
    assert table.title == "By tenant, the 20 of 30 with the most requests"
    assert "t30" in [cells[0] for cells in table.rows]
    assert len(table.rows) == 20


def test_markdown_table(make_run):
    text = markdown(Comparison.of([make_run("slow", scheduler="a|b <i>"), make_run("fast", edit=hasten)]))
    lines = text.splitlines()
    table = lines.index("|  | slow | fast |")
    assert lines[table + 1] == "|:--|--:|--:|"
    assert "| SLO attainment | 33.3 % | **50.0 %** |" in lines
    assert r"| Scheduler | a\|b \<i\> | fcfs |" in lines
    assert text.count("<details>") == text.count("</details>") > 1
