"""The page of a sweep: settings are compared by what may be chosen, over conditions that may not."""

from __future__ import annotations

import pytest

from reports.document import render
from reports.sweep_page import document
from tests.reports.pages import SCHEDULERS, SWEEP, points, sweep, sweep_of_names


def test_no_setting_wins_by_having_been_asked_for_less() -> None:
    page = sweep()
    assert page.answer.startswith("First of 6 settings is replicas 2, scheduling fcfs, with SLO attainment ")
    assert "in the mean over 4 conditions; next is replicas 2, scheduling same-size-continuous, with " in page.answer
    assert page.context.startswith("48 simulations: 6 settings over 4 conditions (trace.rate_scale), 2 seeds each.")
    settings = next(section for section in page.sections if section.title == "Settings, the best first")
    assert [row[:2] for row in settings.tables[0].rows][:2] == [("2", "fcfs"), ("2", "same-size-continuous")]
    assert len(settings.folds[-1].tables[0].rows) == 24


def test_where_only_conditions_differ_they_are_compared() -> None:
    frame = points(**{"trace.rate_scale": (0.5, 1.0, 1.5)})
    page = document(frame, ["trace.rate_scale"], "slo_attainment")
    assert page.answer.startswith("First of 3 settings is rate_scale 0.5, with SLO attainment 95.5 %; next is ")


def test_there_is_a_chart_for_each_value_of_a_third_key_and_a_line_for_each_of_a_second() -> None:
    drawn = list(sweep().charts())
    assert [chart.title.partition(", ")[2] for chart in drawn] == ["cluster.replicas 1", "cluster.replicas 2"]
    named = [trace.name for trace in drawn[0].figure.data if trace.showlegend]
    assert named == ["fcfs", "same-size-continuous", "lookahead margin=0.1<br>horizon=12"]
    above = drawn[0].figure.data[0]
    assert list(above.x) == [0.5, 1.0, 1.5, 3.0]
    assert above.y[1] == pytest.approx(1 - 0.4**2 - 0.005)


def test_without_numbers_settings_stand_one_below_the_other() -> None:
    (chart,) = sweep_of_names().charts()
    assert chart.figure.layout.yaxis.ticktext[0] == "scheduling fcfs"
    assert list(chart.figure.data[0].x) == sorted(chart.figure.data[0].x)  # of seconds the least comes first
    assert len(chart.figure.data[0].x) == len(SCHEDULERS)


def test_settings_that_are_level_are_not_said_to_lose() -> None:
    frame = points(**{"policies.scheduling": SCHEDULERS}).assign(slo_attainment=1.0, slo_attainment_worst_size=1.0)
    page = document(frame, ["policies.scheduling"], "slo_attainment")
    assert "SLO attainment 100.0 %, level with 2 others; its Latency, P95 is 3.33 s." in page.answer


def test_what_failed_is_said_and_words_stay_words() -> None:
    frame = points(**{"policies.scheduling": ("<b>", "fcfs")})
    frame.loc[0, "error"] = "<img src=x>"
    text = render(document(frame, ["policies.scheduling"], "slo_attainment"), SWEEP)
    assert "1 failed: &lt;img src=x&gt;" in text
    assert "<b>" not in text
    assert "<img" not in text
