"""The page of a plan for pools that share models."""

from __future__ import annotations

import io
import math
from dataclasses import replace

from rich.console import Console

from reports.plan.joint import JointPlan, markdown
from reports.plan.joint_page import document, kept_by_price
from reports.plan.page import PLAN
from reports.plan.terminal import show_joint_plan
from reports.plan.write import write_joint_plan
from tests.reports import plans


def test_the_page_says_what_to_buy_and_what_each_model_gets(tmp_path):
    plan = plans.joint_plan()
    page = document(plan)
    assert page.answer == plan.sentence
    assert (page.key[0].label, page.key[0].value) == ("Buy", "2 of large, 7 of small")
    assert [figure.label for figure in page.key[2:4]] == ["flux, in time", "wan-1.3b, in time"]
    assert page.trust == "ESTIMATED"  # the weakest of both pools
    assert [chart.title for chart in page.charts()] == ["Deadlines kept by price", "Replicas of the two pools"]
    nearest, everything = page.sections[0].tables[0], page.sections[0].folds[0].tables[0]
    assert [table.rows[next(iter(table.chosen))][:2] for table in (nearest, everything)] == [("2", "7")] * 2
    written = write_joint_plan(plan, tmp_path)
    assert [path.name for path in written] == ["plan.html", "plan.md", "plan.json"]
    assert all(PLAN.wrote(path) for path in written)


def test_without_an_answer_the_page_says_why():
    plan = replace(plans.joint_plan(), answer=None, checked=None)
    page = document(plan)
    assert page.answer.startswith("None of the 20 clusters simulated is known to keep")
    assert not page.key
    nothing = document(replace(plan, considered=(), labels={}))
    assert not list(nothing.charts())
    assert "small: even alone" in nothing.answer


def test_without_prices_nothing_is_said_of_them():
    free = tuple([replace(each, price_per_hour=math.nan) for each in plans.joint_plan().considered])
    plan = replace(plans.joint_plan(), considered=free, answer=next(each for each in free if each.keeps))
    page = document(plan)
    assert [chart.title for chart in page.charts()] == ["Deadlines kept by replicas", "Replicas of the two pools"]
    assert page.sections[0].tables[0].title == "Clusters about it, the fewest devices first"
    assert "an hour" not in plan.heads
    assert {len(row) for row in plan.rows()} == {len(plan.heads)}
    out = io.StringIO()
    show_joint_plan(plan, Console(file=out, width=80))
    assert "cheapest" not in out.getvalue()


def test_the_marks_of_one_model_say_whether_the_promise_is_kept():
    plan = plans.joint_plan()
    (one, *_) = plan.rates_rps
    figure = kept_by_price(replace(plan, rates_rps={one: 0.9}))
    assert len(set(figure.data[0].marker.color)) > 1
    assert figure.data[0].x[0] == plan.considered[0].price_per_hour


def test_it_is_said_how_far_off_times_may_be_that_were_not_measured():
    plan = plans.joint_plan()
    assert plan.caution == ""
    plan = replace(plan, error_factors={"large": 1.25})
    assert "may be wrong by ×/÷ 1.25 on large (80 %)" in plan.caution
    assert [note.text for note in document(plan).notes] == [plan.caution]
    assert "world.slowdown=1.25" in markdown(plan).replace("\\", "")
    assert JointPlan.from_json(plan.to_json()).error_factors == {"large": 1.25}
