"""The clock of a run starts at its first request, whatever the file counts from."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples_tried import examples
from traces.clock import LONGEST_WAIT_S, format_start, on_run_clock
from traces.errors import BadInput
from traces.importers.dit import import_dit
from traces.importers.imported import Imported
from traces.importers.mixfusion import import_mixfusion
from traces.importers.table import import_table, parse_mapping
from traces.trace import Trace

EPOCH_S = 1_787_000_000


def trace_of(arrivals: list[float], **columns: object) -> Trace:
    return Trace.from_frame(pd.DataFrame({"arrival_s": arrivals, "height": 64, "width": 64, "steps": 4} | columns))


@settings(max_examples=examples(16), deadline=None)
@given(start=st.floats(LONGEST_WAIT_S + 1, 9e9), gaps=st.lists(st.floats(0, 1e4), min_size=1, max_size=5))
def test_late_starts_are_taken_off_with_all_spans_as_they_are(start: float, gaps: list[float]) -> None:
    given_s = [start + sum(gaps[:i]) for i in range(len(gaps))]
    given_trace = trace_of(given_s, deadline_s=[s + 8 for s in given_s])
    trace, taken_s = on_run_clock(given_trace)
    assert taken_s == given_trace.requests()[0].arrival_s
    for was, now in zip(given_trace, trace, strict=True):
        assert now.arrival_s == was.arrival_s - taken_s
        assert now.deadline - now.arrival_s == pytest.approx(was.deadline - was.arrival_s, abs=1e-9)


@pytest.mark.parametrize("first", [0.0, 0.37, 3.0, LONGEST_WAIT_S])
def test_an_ordinary_first_interval_is_part_of_the_trace(first: float) -> None:
    trace = trace_of([first, first + 1])
    assert on_run_clock(trace) == (trace, 0.0)


def test_a_start_is_said_with_its_date_if_it_has_one() -> None:
    assert format_start(EPOCH_S) == (
        "the clock starts at the first request: 1787000000 s were taken off all times, 2026-08-17 20:53:20 UTC"
    )
    assert "taken off all times" in format_start(7200.5)
    assert "UTC" not in format_start(7200.5)


def test_every_importer_counts_times_since_1970_from_the_first_arrival(tmp_path: Path) -> None:
    ms = EPOCH_S * 1000
    (tmp_path / "s.csv").write_text(
        f"arrival_s,height,width,steps,deadline_s\n{EPOCH_S + 2},8,8,1,\n{EPOCH_S},8,8,1,{EPOCH_S + 9}\n"
    )
    (tmp_path / "m.csv").write_text(f"arrival time(ms),resolution,steps\n{ms},64,4\n{ms + 2000},64,4\n")
    (tmp_path / "d.txt").write_text("\n".join(
        f"Request(timestamp={s}, height=64, width=64, num_inference_steps=4)" for s in (EPOCH_S, EPOCH_S + 2)
    ))  # fmt: skip
    imports = [
        import_table(tmp_path / "s.csv", {}),
        import_mixfusion(tmp_path / "m.csv"),
        import_dit(tmp_path / "d.txt"),
    ]
    for imported in imports:
        assert [request.arrival_s for request in imported.trace] == [0.0, 2.0]
        assert format_start(EPOCH_S) in imported.report.notes
    assert [len(imported.report.notes) for imported in imports] == [2, 1, 1]  # the first one was not in order
    assert imports[0].trace.requests()[0].deadline_s == 9.0


def test_an_importer_keeps_other_clocks(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,height,width,steps\n7200,8,8,1\n7201,8,8,1\n")
    imported = import_table(path, {})
    assert [request.arrival_s for request in imported.trace] == [7200.0, 7201.0]
    assert imported.report.notes == ()


def dated(folder: Path, texts: list[str], unit: str = "date") -> Imported:
    path = folder / "t.csv"
    path.write_text("t,height,width,steps\n" + "".join(f"{text},96,96,2\n" for text in texts))
    return import_table(path, parse_mapping([f"arrival_s=t:{unit}"]))


@pytest.mark.parametrize(
    ("texts", "right"),
    [
        (["1715299200009", "1715299201009"], "row 2 .*a number needs its unit, like --map arrival_s=t:ms"),
        (["1715299200", "1715299201"], "row 2 .*--map arrival_s=t:s"),
        (["1715299200.25", "1715299201"], "row 2 .*--map arrival_s=t:s"),
        (["1715299200000000000", "1715299201000000000"], "row 2 .*--map arrival_s=t:ns"),
        (["2024-05-10 00:00:00", "1715299201009"], "row 3 .*--map arrival_s=t:ms"),
        (["45422.5", "45423.5"], "row 2 .*days since 1900: have the spreadsheet write dates"),
        (
            ["2024-05-10T00:00:00+02:00", "2024-05-10T00:00:01"],
            "row 3 .*expected a time zone, like Z or .02:00, as other rows",
        ),
        (["2024-05-10 00:00:00", "10/05/2024 00:00:01"], "row 3 .*'10/05/2024 00:00:01', expected a date like"),
        (["2024-05-10 00:00:00", " "], "row 3 .*: arrival_s .column 't'. is ' ', expected a date like"),
    ],
)
def test_numbers_and_mixtures_are_no_dates(texts: list[str], right: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=right) as caught:
        dated(tmp_path, texts)
    assert "\n" not in str(caught.value)


def test_dates_are_counted_from_the_first_and_zones_are_heeded(tmp_path: Path) -> None:
    imported = dated(tmp_path, ["2024-05-10T00:00:00Z", "2024-05-10T02:00:01+02:00", "2024-05-09T20:00:03.5-0400"])
    assert [request.arrival_s for request in imported.trace] == [0.0, 1.0, 3.5]
    [note] = imported.report.notes
    assert "2024-05-10 00:00:00 UTC" in note


@pytest.mark.parametrize(
    "texts",
    [
        ["02/Nov/2026:09:30:00 +0100", "02/Nov/2026:08:30:07 +0000"],
        ["[02/Nov/2026:09:30:00 +0100]", "[02/Nov/2026:09:30:07 +0100]"],
        ["2026-11-02T08:30:00Z", "02/Nov/2026:09:30:07 +0100"],
    ],
)
def test_dates_of_access_logs_are_read(texts: list[str], tmp_path: Path) -> None:
    imported = dated(tmp_path, texts)
    assert [request.arrival_s for request in imported.trace] == [0.0, 7.0]
    assert "2026-11-02 08:30:00 UTC" in imported.report.notes[0]


@pytest.mark.parametrize("wrong", ["31/Feb/2026:09:30:00 +0100", "02/Now/2026:09:30:00 +0100", "02/Nov/2026"])
def test_a_wrong_date_of_an_access_log_is_said_as_it_is_written(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"row 3 .*'{re.escape(wrong)}', expected a date like"):
        dated(tmp_path, ["02/Nov/2026:09:30:00 +0100", wrong])


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        ("date", ["2026-11-02T09:30:00.391Z", "2026-11-02T09:30:01.440Z"]),
        ("ms", ["1793611800391", "1793611801440"]),
        ("s", ["1793611800.391", "1793611801.440"]),
    ],
)
def test_times_since_1970_keep_their_digits(unit: str, texts: list[str], tmp_path: Path) -> None:
    trace = dated(tmp_path, texts, unit).trace
    assert [request.arrival_s for request in trace] == [0.0, 1.049]


def test_deadlines_keep_their_digits_too(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [("1793611800.391", "1793611802.1"), ("1793611801.440", "")]
    path.write_text("arrival_s,deadline_s,height,width,steps\n" + "".join(f"{a},{d},8,8,1\n" for a, d in rows))
    assert [request.deadline_s for request in import_table(path, {}).trace] == [1.709, None]


def test_dates_without_a_time_begin_their_day(tmp_path: Path) -> None:
    trace = dated(tmp_path, ["2024-05-10", "2024-05-10 01:00", "2024-05-10T02:00:00Z"]).trace
    assert [request.arrival_s for request in trace] == [0.0, 3600.0, 7200.0]


def test_milliseconds_under_their_unit_are_seconds(tmp_path: Path) -> None:
    trace = dated(tmp_path, ["1715299200009", "1715299201009", "1715899201009"], "ms").trace
    assert [request.arrival_s for request in trace] == [0.0, 1.0, 600001.0]


def test_milliseconds_that_are_called_seconds_are_refused() -> None:
    with pytest.raises(BadInput, match=r"row 2 .*: arrival_s is 1715299200009.*milliseconds are named: .*:ms"):
        trace_of([1715299200009, 1715299201009])
