"""Tables for people and tables of numbers."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from html import unescape

import pandas as pd
import pytest
from rich.console import Console

from predictors.basis import CALIBRATED, ESTIMATED, MEASURED
from reports.formatting import Unit, about, format_interval, percent
from reports.output_analysis import Interval
from reports.plan import charts, tables
from reports.plan.engines import as_engines_decide
from reports.plan.formatting import money, trust
from reports.plan.frames import frames
from reports.plan.markdown import markdown
from reports.plan.page import page
from reports.plan.result import DegreeFigures, Plan
from reports.plan.terminal import show_plan
from reports.plan.write import write_plan
from reports.table import Table
from tests.reports import plans
from traces.notes import grave

ODD = [plans.plan, plans.no_answer, plans.asked_about, plans.one_replication, plans.nothing_simulated]


def cells(table: Table, row: int) -> dict[str, str]:
    return dict(zip(table.heads, table.rows[row], strict=True))


def test_considered_marks_the_answer():
    table = tables.considered(plans.plan())
    (chosen,) = table.chosen
    row = cells(table, chosen)
    assert (row["Cluster"], row["Policy"], row["Keeps its promise"]) == ("3 × h100-sxm", "lookahead", "yes")
    assert (row["Per hour"], row["Stable, and its limit"], row["Trust"]) == ("8.97", "STABLE", "MEASURED")
    assert cells(tables.reasons(plans.plan()), chosen)["Extrapolated"] == "3.4 %"


def test_the_answer_is_found_again_in_a_plan_that_was_read_back():
    plan = Plan.from_json(plans.one_replication().to_json())
    assert tables.considered(plan).chosen == {0}
    assert frames(plan)["candidates"]["chosen"].all()
    assert "the answer" in [trace.name for trace in charts.cost_against_attainment(plan).data]


def test_a_column_that_says_nothing_is_left_out():
    assert "Per hour" not in tables.considered(plans.one_replication()).heads
    assert "Per hour" in tables.considered(plans.plan()).heads


def test_policies_say_what_they_cost_more():
    table = tables.policies(plans.plan())
    assert [row[table.heads.index("More than the least")] for row in table.rows] == [
        "–",
        "+2.99 (+33 %)",
        "+5.98 (+67 %)",
        "–",
    ]
    assert table.rows[3][1] == "none of those considered"


def test_what_if_begins_with_the_plan_and_the_lost_replica():
    table = tables.what_if(plans.plan())
    assert [row[0] for row in table.rows[:3]] == ["as planned", "one replica less", "20 % more load"]
    assert tables.what_if(plans.no_answer()).rows == ()
    assert len(tables.what_if(plans.asked_about()).rows) == len(table.rows)


def test_memory_is_told_once_a_kind():
    assert [row[0] for row in tables.memory(plans.plan()).rows] == ["h100-sxm", "h100-sxm", "l40s", "a100-80gb"]


def test_values_are_written_with_their_uncertainty():
    assert format_interval(Interval(0.9523, 0.0061, 5), "%") == "95.2 ± 0.6 %"
    assert format_interval(Interval(0.9523, math.inf, 1), "%") == "95.2 %"
    assert format_interval(Interval(math.nan, math.nan, 5), "%") == "–"
    assert format_interval(Interval(12.34, 0.44, 5), "s") == "12.3 ± 0.4 s"


@pytest.mark.parametrize(
    ("mean", "half_width", "unit", "shown"),
    [
        (0.703, 1.645, "%", "70.3 (0–100) %"),
        (0.995, 0.007, "%", "99.5 (98.8–100) %"),
        (0.004, 0.01, "%", "0.4 (0–1.4) %"),
        (1.0, 0.0, "%", "100.0 ± 0.0 %"),
        (12.34, 40.0, "s", "12.3 (0–52.3) s"),
        (1.18, 2.5, "x", "1.18 (0–3.68)"),
        (1.0, 2.0, "", "1 (0–3)"),
    ],
)
def test_an_interval_reaches_no_further_than_is_possible(
    mean: float, half_width: float, unit: Unit, shown: str
) -> None:
    assert format_interval(Interval(mean, half_width, 5), unit) == shown
    assert (percent(0.95), percent(0.999)) == ("95 %", "99.9 %")
    assert [money(value) for value in (1234.5, 8.97, 0.15, 0.0086, 0.0, math.nan)] == [
        "1,234.50", "8.97", "0.15", "0.0086", "0.00", "–",
    ]  # fmt: skip
    assert (about(0.0001), about(0.123)) == ("< 0.1 %", "12 %")


def test_the_weakest_label_wins():
    found = [plans.evaluation(kind, 9) for kind in ("h100-sxm", "a100-80gb", "l40s")]
    plan = plans.plan()
    assert [trust(plan, found[:n]) for n in range(4)] == ["", MEASURED, CALIBRATED, ESTIMATED]


def test_a_profile_with_a_note_is_not_trusted_blindly():
    """Of a profile that was measured with a cache on, no table, page or paragraph says MEASURED alone."""
    plan = plans.plan()
    own = plan.answer.candidate.hardware
    noted = replace(plan, noted=(own,), notes=(grave("The profile's own note: do not compare."), *plan.notes))
    label = f"{plan.answer.label}, with a note"
    rows = [row for row in tables.considered(noted).rows if own in row[0]]
    assert rows
    assert all(row[-1].endswith(", with a note") for row in rows)
    assert f"Trust: {label}" in markdown(noted)
    assert markdown(noted).startswith("- **The profile's own note: do not compare.**")
    text = page(noted)
    assert label in text
    assert text.index("do not compare") < text.index("<h1>")
    assert "with a note" not in page(plan)


def test_frames_hold_the_plan():
    plan = plans.plan()
    made = frames(plan)
    assert set(made) == {
        "candidates",
        "load_curve",
        "growth",
        "policies",
        "speeds",
        "sensitivity",
        "by_size",
        "over_time",
        "by_degree",
    }
    candidates = made["candidates"]
    assert candidates["chosen"].sum() == 1
    first, row = plan.considered[0], candidates.iloc[0]
    assert (row["hardware"], row["replicas"]) == (first.candidate.hardware, first.candidate.replicas)
    assert row["attainment_half_width"] == first.figures.attainment.half_width
    assert row["memory_max_batch"] == 9
    assert candidates.loc[candidates["hardware"] == "b200", "memory_max_batch"].isna().all()
    assert made["growth"]["rate_scale"].tolist() == [month.rate_scale for month in plan.growth]
    assert made["growth"]["hardware"].isna().sum() == 2
    assert made["sensitivity"]["what"].iloc[0] == "one replica less"
    assert made["by_size"]["latency_p99_s"].tolist() == [size.latency_s[5] for size in plan.by_size]


def test_columns_do_not_depend_on_what_is_known():
    full, empty = frames(plans.plan()), frames(plans.nothing_simulated())
    for name, frame in full.items():
        assert empty[name].dtypes.to_dict() == frame.dtypes.to_dict()


def test_files_are_the_same_every_time(tmp_path):
    first = write_plan(plans.plan(), tmp_path / "one")
    second = write_plan(plans.plan(), tmp_path / "two")
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].name == "plan.html"
    assert set(pd.read_parquet(tmp_path / "one/growth.parquet")["month"]) == set(range(13))


@pytest.mark.parametrize("make", ODD)
def test_terminal_and_markdown_of_any_plan(make):
    out = io.StringIO()
    show_plan(make(), Console(file=out, width=80))
    written = markdown(make())
    for text in (out.getvalue(), written):
        assert "nan" not in text
        assert "inf" not in text
        assert "promise" in text


def test_terminal_keeps_within_the_window():
    out = io.StringIO()
    show_plan(plans.plan(), Console(file=out, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "99.5 (98.8–100) %" in out.getvalue()


def test_markdown_holds_the_scenario_and_the_labels():
    text = markdown(plans.plan())
    assert "    tilecast plan plan_sdxl.toml --attainment 0.95 -o plans/sdxl" in text
    assert '    path = "gentd26.parquet"' in text
    assert "- **ESTIMATED**:" in text
    assert "| **3 × h100-sxm** | **lookahead** | **yes** |" in text


@pytest.mark.parametrize(
    ("devices", "guided", "commands"),
    [
        (1, True, ["vllm serve MODEL --omni", "sglang serve --model-path MODEL --num-gpus 1", "xdit --model MODEL"]),
        (
            4,
            False,
            [
                "vllm serve MODEL --omni --usp 4",
                "sglang serve --model-path MODEL --num-gpus 4 --ulysses-degree 4",
                "xdit --model MODEL --ulysses_degree 4",
            ],
        ),
        (
            8,
            True,
            [
                "vllm serve MODEL --omni --usp 4 --cfg-parallel-size 2",
                "sglang serve --model-path MODEL --num-gpus 8 --ulysses-degree 4 --cfg-parallel-size 2",
                "xdit --model MODEL --ulysses_degree 4 --use_cfg_parallel",
            ],
        ),
    ],
)
def test_the_answer_is_started_in_the_engines_that_people_have(devices: int, guided: bool, commands: list[str]):
    plan = plans.plan()
    assert plan.answer is not None
    answer = replace(plan.answer, candidate=replace(plan.answer.candidate, devices=devices))
    plan = replace(plan, answer=answer, demand=replace(plan.demand, guided=guided))
    table = tables.engines(plan)
    assert [cells(table, row)["Command"] for row in range(3)] == commands
    assert {cells(table, row)["Times, with lookahead"] for row in range(3)} == {"3"}
    assert commands[1] in page(plan)
    assert not tables.engines(replace(plan, demand=replace(plan.demand, tiled=True))).rows
    for without in (plans.no_answer(), plans.asked_about()):  # what keeps no promise is not started
        assert not tables.engines(without).rows
        assert as_engines_decide(without) == ""


def test_every_form_says_that_an_engine_as_it_is_decides_otherwise():
    plan = plans.plan()
    table = tables.engines(plan)
    assert {cells(table, row)["as it is (fcfs)"] for row in range(3)} == {"5"}
    alone = replace(plan, policies=())
    said = "an engine as it is decides like fcfs: `--policies fcfs` says how many that takes."
    for made, sentence in ((plan, "decides like fcfs, which takes 5 × h100-sxm."), (alone, said)):
        out = io.StringIO()
        show_plan(made, Console(file=out, width=200))
        assert sentence in out.getvalue()
        assert sentence in markdown(made).replace("\\", "")
        assert as_engines_decide(made).endswith(sentence)
        assert sentence in unescape(page(made)).replace("\u00a0", " ")
    plain = replace(alone, answer=plans.evaluation("h100-sxm", 5, scheduler="fcfs"))
    assert as_engines_decide(plain) == ""


def test_it_is_said_when_parallelism_and_batching_pay():
    def row(devices: int, images: int, best_for: str) -> DegreeFigures:
        return DegreeFigures("512x512", devices, f"ulysses{devices}", images, 0.25, 12.5, 0.5, 2.0, best_for)

    plan = replace(
        plans.plan(), by_degree=(row(2, 1, "latency"), row(4, 1, ""), row(2, 8, ""), row(4, 8, "throughput"))
    )
    whole, brief = tables.by_degree(plan), tables.by_degree_alone(plan)
    assert (len(whole.rows), whole.chosen) == (4, {0, 3})
    assert [cells(brief, at)["Batch"] for at in range(3)] == ["1", "1", "8"]
    assert cells(brief, 2)["Best for"] == "throughput"
    assert cells(brief, 0)["a replica"] == "2.00"
    assert tables.WHEN_IT_PAYS in page(plan)
    assert tables.WHEN_IT_PAYS in markdown(plan)
    assert tables.WHEN_IT_PAYS not in page(plans.plan())
    assert frames(plan)["by_degree"]["images"].tolist() == [1, 1, 8, 8]
    assert Plan.from_json(plan.to_json()).by_degree == plan.by_degree
