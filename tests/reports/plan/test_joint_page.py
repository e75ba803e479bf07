"""The page of a plan for pools that share models."""

from __future__ import annotations

from dataclasses import replace

from reports.plan import write_joint_plan
from reports.plan.joint_page import document
from reports.plan.page import PLAN
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
