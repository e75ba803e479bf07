"""The page of a plan: whole without a network, true to the plan, and nothing in a plan taken for markup."""

from __future__ import annotations

import io
import json
import math
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from reports.output_analysis import Interval
from reports.plan import chart_style, charts
from reports.plan.formatting import TRUST
from reports.plan.frames import frames
from reports.plan.markdown import markdown
from reports.plan.page import document, page
from reports.plan.result import NEAR_KNEE, STABLE, UNSTABLE, Plan, SizeFigures
from reports.plan.terminal import show_plan
from tests.examples_tried import examples
from tests.reports import plans

EVIL = "</script><img src=x onerror=alert(1)><b>\"'&amp; | `x` [bold]"
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    float: st.floats() | st.sampled_from([0.0, 1.0, math.nan, math.inf]),
    int: st.integers(0, 10**6),
    str: st.sampled_from(["", EVIL, "512x768", "h100"]),
    bool: st.booleans(),
    NoneType: st.none(),
}
KNOWN = {
    "label": st.sampled_from(list(TRUST)),
    "state": st.sampled_from([STABLE, NEAR_KNEE, UNSTABLE]),
    "latency_s": st.tuples(*[PLAIN[float]] * 6),
}


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type of a plan, with any numbers and hostile words."""
    if kind in PLAIN:
        return PLAIN[kind]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [each.name for each in fields(kind)]
        return st.builds(kind, **{name: KNOWN[name] if name in KNOWN else any_of(hints[name]) for name in names})
    inner = get_args(kind)
    if get_origin(kind) is not tuple:
        return st.one_of(*map(any_of, inner))
    return st.lists(any_of(inner[0]), max_size=3).map(tuple) if inner[-1] is ... else st.tuples(*map(any_of, inner))


class Reader(HTMLParser):
    """Collects elements, and text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (["script"], ["style"]):
            self.text += data


def test_the_page_says_what_matters_and_needs_no_network():
    reader = Reader(page(plans.plan()))
    assert reader.links == []
    assert "link" not in reader.tags
    for needle in (
        "3 × h100-sxm with lookahead keep 95\u00a0% of deadlines",
        "ESTIMATED, 3.4 % extrapolated",
        "The model does not fit: 31.2 of 24 GB",
        "tilecast plan plan_sdxl.toml",
        "212 simulations in 184 s",
        *(section.title for section in document(plans.plan()).sections),
        *TRUST.values(),
    ):
        assert needle in reader.text


def test_every_group_of_figures_says_how_far_to_trust_it():
    labels = {section.title: section.trust for section in document(plans.plan()).sections}
    assert labels["What each cluster costs"] == "ESTIMATED"
    assert labels["How long requests take"] == labels["When the demand grows"] == "MEASURED"
    assert [title for title, label in labels.items() if not label] == [
        "Does the model fit",  # each row has its own
        "To start it in your engine",  # of flags, not of figures
        "More figures of the answer",  # the answer has one
        "The demand",
        "Labels of trust",
        "To run it again",
    ]


@pytest.mark.parametrize("make", [plans.no_answer, plans.asked_about, plans.one_replication, plans.nothing_simulated])
def test_odd_plans_show_what_there_is(make):
    text = page(make())
    data = json.loads(text.split('type="application/json">')[1].split("</script>")[0])
    assert len(data) == len(list(document(make()).charts()))
    assert "nan" not in Reader(text).text


def test_nothing_is_drawn_where_there_is_nothing_to_draw():
    assert not list(document(plans.nothing_simulated()).charts())
    drawn = {section.title: bool(section.charts) for section in document(plans.no_answer()).sections}
    assert drawn["When the demand grows"] is False
    assert drawn["What each cluster costs"] is True
    assert "What if" not in drawn


@settings(max_examples=examples(10), deadline=None)
@given(any_of(Plan))
def test_any_plan_is_shown_and_its_words_stay_words(plan):
    reader = Reader(page(plan))
    assert not {"img", "b"} & set(reader.tags)
    assert reader.tags.count("script") == 3
    show_plan(plan, Console(file=io.StringIO(), width=100))
    assert "\n<" not in markdown(plan)
    assert len(frames(plan)["candidates"]) == len(plan.considered)


@pytest.mark.parametrize("draw", [charts.cost_against_attainment, charts.latency_by_size, charts.what_if])
def test_charts_escape_names(draw):
    plan = plans.plan()
    best = plan.answer
    hostile = replace(best, candidate=replace(best.candidate, hardware=EVIL, scheduler=EVIL))
    plan = replace(
        plan,
        answer=hostile,
        considered=(hostile,),
        growth=(replace(plan.growth[0], evaluation=hostile),),
        by_size=(replace(plan.by_size[0], size=EVIL),),
        sensitivity=(replace(plan.sensitivity[0], what=EVIL),),
    )
    text = draw(plan).to_json().encode().decode("unicode-escape")
    assert "<img" not in text
    assert "&lt;" in text


def test_a_band_is_clipped_to_what_a_share_can_be():
    curve = replace(plans.what_if("", 0.5), figures=replace(plans.figures(0.5), attainment=Interval(0.99, 0.05, 3)))
    figure = charts.attainment_against_load(replace(plans.plan(), load_curve=(curve,)))
    assert list(figure.data[0].y) == [1.0, pytest.approx(0.94)]


def test_points_tell_whether_the_promise_is_kept_by_their_shape():
    figure = charts.attainment_against_load(plans.plan())
    kept = [case.keeps for case in plans.plan().load_curve]
    assert list(figure.data[1].marker.symbol) == [chart_style.KEPT[keeps][1] for keeps in kept]
    assert {True, False} < set(kept) | {None}


def test_whether_a_cluster_is_stable_is_told_apart_from_whether_it_keeps_its_promise():
    plan = plans.plan()
    traces = {trace.name: trace for trace in charts.cost_against_attainment(plan).data if trace.name}
    priced = [row for row in plan.considered if not math.isnan(row.price_per_hour)]
    for state, name in ((UNSTABLE, "its queue grows"), (NEAR_KNEE, "near its limit")):
        assert len(traces[name].x) == sum(row.state == state for row in priced)
    assert {"keeps its promise", "does not", "undecided"} < set(traces)
    assert {row.keeps for row in priced if row.state == NEAR_KNEE} == {True, False, None}


def test_the_least_of_each_kind_is_shown_and_all_are_folded():
    shown = next(section for section in document(plans.plan()).sections if section.title == "What each cluster costs")
    least, folded = shown.tables[0], shown.folds[0].tables[0]
    assert least.rows[next(iter(least.chosen))][0] == "3 × h100-sxm"
    assert len(least.rows) == 7 < len(folded.rows)
    assert ["5 × a100-80gb", "lookahead", "yes"] in [list(row[:3]) for row in least.rows]


def test_costs_fall_back_on_devices_where_no_price_is_known():
    figure = charts.cost_against_attainment(plans.one_replication())
    assert figure.layout.xaxis.title.text == "devices"
    assert charts.cost_against_attainment(plans.plan()).layout.xaxis.title.text == "price per hour"


def test_a_size_of_which_some_requests_never_finish_is_drawn_as_far_as_it_is_known():
    sizes = (
        SizeFigures("64x64", 9, 0.97, (1.0, 2.0, 3.0, 4.0, 5.0, math.inf)),
        SizeFigures("128x128", 9, 0.5, (1.0, 2.0, 3.0, math.inf, math.inf, math.inf)),
    )
    figure = charts.latency_by_size(replace(plans.plan(), by_size=sizes))
    assert [note.text for note in figure.layout.annotations] == ["P99 ∞", "P75 to P99 ∞"]
    assert (3.0, 0) in [point for trace in figure.data for point in zip(trace.x, trace.y, strict=True)]


def test_rare_sizes_are_left_to_the_table_and_stand_in_their_order():
    many = tuple(SizeFigures(f"{64 * at}x64", at, 1.0, (1.0,) * 6) for at in range(1, 41))
    plan = replace(plans.plan(), by_size=many[::-1])
    names = charts.latency_by_size(plan).layout.yaxis.ticktext
    assert len(names) == charts.SIZES
    assert names[-1] == "2560x64"
    section = next(section for section in document(plan).sections if "long" in section.title)
    assert [row[0] for row in section.tables[0].rows] == list(names)
    assert [row[0] for row in section.folds[-1].tables[0].rows] == [size.size for size in many]
