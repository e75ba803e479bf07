"""What other programs write: every cell is what it says, or is named; nothing is taken for something else."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from traces.errors import BadInput
from traces.files import row_at
from traces.importers.dit import import_dit
from traces.importers.gentd26 import import_gentd26
from traces.importers.mixfusion import import_mixfusion
from traces.importers.table import import_table, parse_mapping
from traces.sizes import load_sizes, parse_sizes
from traces.trace import Trace

Reader = Callable[[Path], object]

REQUEST = {"request_id": "a", "arrival_s": 0.5, "height": 96, "width": 96, "steps": 2, "prompt": "x", "slo_s": 9.0}
DATED = {"id": "a", "t": "2024-11-15 16:57:50", "height": 96, "width": 96, "steps": 2, "prompt": "x"}
DIT = {"request_id": "a", "timestamp": 0.5, "height": 96, "width": 96, "num_inference_steps": 2, "slo_ms": 9000}
GENTD = {
    "gmt_create": "2024-11-15 16:57:50",
    "predict_type": "T",
    "predict_status": "SUCCEED",
    "exec_time_seconds": 3.0,
    "groupId": "G0",
    "num_images_per_prompt": 1.0,
    "num_inference_steps": 30.0,
    "checkpoint_model_version_id": "M0",
    "num_lora": 0,
}
MIX = {"arrival time(ms)": 500.0, "resolution": 512, "steps": 3}
SIZES = {"height": 512, "width": 512, "weight": 1.0}


def dated(path: Path) -> object:
    return import_table(path, parse_mapping(["arrival_s=t:date", "request_id=id"]))


READERS: dict[str, tuple[dict[str, Any], Reader]] = {
    "trace": (REQUEST, Trace.load),
    "table": (DATED, dated),
    "dit": (DIT, import_dit),
    "gentd26": (GENTD, lambda path: import_gentd26(path, parse_sizes("96x96"))),
    "mixfusion": (MIX, import_mixfusion),
    "sizes": (SIZES, load_sizes),
}
CELLS = [(reader, column) for reader, (row, _) in READERS.items() for column in row]
NUMBERS = [(reader, column) for reader, column in CELLS if not isinstance(READERS[reader][0][column], str)]
TEXTS = [(reader, column) for reader, column in CELLS if isinstance(READERS[reader][0][column], str)]


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "t.jsonl"
    path.write_text("".join([json.dumps(row) + "\n" for row in rows]))
    return path


def parquet(folder: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return folder / "t.parquet"


@pytest.mark.parametrize(("reader", "column"), NUMBERS)
@pytest.mark.parametrize("wrong", [True, False, [5], {"a": 5}, "5 px", "true"])
def test_a_number_is_no_truth_value_and_nothing_nested(reader: str, column: str, wrong: object, tmp_path: Path) -> None:
    row, read = READERS[reader]
    second = {**row, column: wrong} | ({"request_id": "b"} if "request_id" in row else {})
    with pytest.raises(BadInput, match=r"record 2: .* is .*, expected a number") as caught:
        read(jsonl(tmp_path, row, second))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("reader", "column"), TEXTS)
@pytest.mark.parametrize("wrong", [True, ["x"], {"a": "x"}])
def test_a_text_is_nothing_nested_and_no_truth_value(reader: str, column: str, wrong: object, tmp_path: Path) -> None:
    row, read = READERS[reader]
    with pytest.raises(BadInput, match=r"record 2: .* is .*, expected (text|a date)"):
        read(jsonl(tmp_path, row, {**row, column: wrong}))


@pytest.mark.parametrize(
    "wrong",
    ["now", "today", "2024-11", "2024", "yesterday", "NaT", "16:57:50", "2024-W46-5", "2024-02-30", "x", "1e999"],
)
@pytest.mark.parametrize(("reader", "column"), [("table", "t"), ("gentd26", "gmt_create")])
def test_a_date_is_a_whole_one(reader: str, column: str, wrong: str, tmp_path: Path) -> None:
    row, read = READERS[reader]
    with pytest.raises(BadInput, match=r"record 2: arrival_s \(column .*\) is .*, expected a date like"):
        read(jsonl(tmp_path, row, {**row, column: wrong}))


@pytest.mark.parametrize(
    ("cells", "arrival_s"),
    [
        (["2024-11-15 16:57:50", "2024-11-15T16:57:51.5"], [0.0, 1.5]),
        (["2024-11-15T16:57:50Z", "2024-11-15 18:57:51+02:00"], [0.0, 1.0]),
        (["20241115T165750", " 2024/11/15 16:58 "], [0.0, 10.0]),
        (["2024-11-15", "2024-11-16"], [0.0, 86400.0]),
        ([datetime.datetime(2024, 11, 15, 1), datetime.datetime(2024, 11, 15, 2)], [0.0, 3600.0]),
        (
            [
                datetime.datetime(2024, 11, 15, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
                datetime.datetime(2024, 11, 15, 2, tzinfo=datetime.UTC),
            ],
            [0.0, 10800.0],
        ),
        ([datetime.date(2024, 11, 15), datetime.date(2024, 11, 16)], [0.0, 86400.0]),
    ],
)
def test_dates_are_read_whoever_wrote_them(cells: list[Any], arrival_s: list[float], tmp_path: Path) -> None:
    path = parquet(tmp_path, {"t": cells, "height": [96, 96], "width": [96, 96], "steps": [2, 2]})
    trace = import_table(path, parse_mapping(["arrival_s=t:date"])).trace
    assert [request.arrival_s for request in trace] == arrival_s


@pytest.mark.parametrize("reader", READERS)
def test_a_key_twice_is_named(reader: str, tmp_path: Path) -> None:
    row, read = READERS[reader]
    key, text = list(row)[-1], json.dumps(row)
    (tmp_path / "t.jsonl").write_text(f'{text}\n{text[:-1]}, "{key}": 1}}\n')
    with pytest.raises(BadInput, match=rf"t\.jsonl: line 2 gives '{key}' twice"):
        read(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "Request(timestamp=0.0, height=96, width=96, num_inference_steps=2, height=128)",
            "line 1 gives 'height' twice",
        ),
        (
            "Request(timestamp=0.0, height=True, width=96, num_inference_steps=2)",
            "record 1: height is True, expected a",
        ),
        ("Request(timestamp=0.0, height=96, width=96, num_inference_steps=2, **{'seed': 1})", "line 1 is 'Request"),
    ],
)
def test_a_line_of_the_benchmark_says_each_thing_once(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(line + "\n")
    with pytest.raises(BadInput, match=words):
        import_dit(tmp_path / "t.txt")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fields", [-1, 1])
def test_a_row_has_as_many_fields_as_the_header(reader: str, fields: int, tmp_path: Path) -> None:
    row, read = READERS[reader]
    line = [str(value) for value in row.values()]
    other = [*line, "1"] if fields > 0 else line[:-1]
    (tmp_path / "t.csv").write_text("\n".join([",".join(row), ",".join(line), "", ",".join(other)]) + "\n")
    with pytest.raises(BadInput, match=rf"t\.csv: row 3 .* has {len(other)} fields, expected {len(line)}"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("unseen", ["\0", "\x1b", "\ufeff\ufeff", "\u200b"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_name_of_a_column_has_nothing_unseen(unseen: str, kind: str, tmp_path: Path) -> None:
    path, name = tmp_path / f"t.{kind}", f"{unseen}request_id"
    row = {name: "a", **{key: value for key, value in REQUEST.items() if key != "request_id"}}
    csv = f"{','.join(row)}\n{','.join(map(str, row.values()))}\n"
    path.write_text(csv if kind == "csv" else json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"column '.*request_id' has a character in its name that cannot be seen"):
        Trace.load(path)


def test_spaces_around_the_names_of_columns_are_none_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("request_id, arrival_s , height, width, steps, slo_s\na, 0.5, 96, 96, 2, 9\n")
    [request] = Trace.load(tmp_path / "t.csv").requests()
    assert (request.request_id, request.arrival_s, request.slo_s) == ("a", 0.5, 9.0)


@pytest.mark.parametrize("wrong", [b"12", datetime.time(3), datetime.timedelta(seconds=3), [5.0]])
def test_a_number_of_parquet_is_one(wrong: object, tmp_path: Path) -> None:
    columns = {name: [value] for name, value in REQUEST.items()} | {"height": [wrong]}
    with pytest.raises(BadInput, match=r"row 2 .*: height is .*, expected a"):
        Trace.load(parquet(tmp_path, columns))


@pytest.mark.parametrize("wrong", [b"x", datetime.date(2024, 1, 2), ["x"], {"a": 1}, True])
def test_a_text_of_parquet_is_one(wrong: object, tmp_path: Path) -> None:
    columns = {name: [value] for name, value in REQUEST.items()} | {"prompt": [wrong]}
    with pytest.raises(BadInput, match=r"row 2 .*: prompt is .*, expected text"):
        Trace.load(parquet(tmp_path, columns))


@pytest.mark.parametrize("column", REQUEST)
@pytest.mark.parametrize("kind", ["dictionary", "decimal", "float16", "int8", "large_string", "string_view"])
@pytest.mark.filterwarnings("error")
def test_the_type_of_a_parquet_column_changes_nothing(column: str, kind: str, tmp_path: Path) -> None:
    plain = {name: pa.array([value]) for name, value in REQUEST.items()}
    types = {"decimal": pa.decimal128(20, 4), "dictionary": None}
    wanted = types[kind] if kind in types else getattr(pa, kind)()
    try:
        cell = plain[column].dictionary_encode() if wanted is None else plain[column].cast(wanted)
    except pa.ArrowException:
        return  # text is no decimal, and 0.5 no whole number
    if pa.types.is_decimal(cell.type) or pa.types.is_floating(cell.type):
        assert cell[0].as_py() == REQUEST[column]
    assert (
        Trace.load(parquet(tmp_path, plain | {column: cell})).requests()
        == Trace.load(parquet(tmp_path, plain)).requests()
    )


@pytest.mark.parametrize("column", GENTD)
def test_categories_are_counted_as_what_they_stand_for(column: str, tmp_path: Path) -> None:
    columns = {name: pa.array([value, value]) for name, value in GENTD.items()}
    read = READERS["gentd26"][1]
    plain: Any = read(parquet(tmp_path, columns))
    encoded: Any = read(parquet(tmp_path, columns | {column: columns[column].dictionary_encode()}))
    assert encoded.report == plain.report
    assert encoded.trace.requests() == plain.trace.requests()


@pytest.mark.parametrize("cell", ["1e27", "-1e300", "inf"])
def test_times_that_no_clock_shows_are_not_counted_from_the_first(cell: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"arrival_s,height,width,steps\n1,96,96,2\n{cell},96,96,2\n")
    with pytest.raises(BadInput, match=r"row 3 .*: arrival_s is .*, expected a number of 0 to 10,000,000,000 s"):
        import_table(tmp_path / "t.csv", {}, rebase=True)


def test_a_time_for_all_rows_is_a_number_where_times_are_rebased(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("height,width,steps\n96,96,2\n96,96,2\n")
    trace = import_table(tmp_path / "t.csv", {}, constants={"arrival_s": "5", "deadline_s": "9"}, rebase=True).trace
    assert [(request.arrival_s, request.deadline_s) for request in trace] == [(0.0, 4.0), (0.0, 4.0)]
    with pytest.raises(BadInput, match="arrival_s is 'x', expected a number"):
        import_table(tmp_path / "t.csv", {}, constants={"arrival_s": "x"}, rebase=True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("t.csv", "row 2 counting the header"),
        ("t.CSV.gz", "row 2 counting the header"),
        ("t.parquet", "row 2 counting the header"),
        ("", "row 2 counting the header"),
        ("t.jsonl", "record 1"),
        ("t.jsonl.gz", "record 1"),
        ("log.txt", "record 1"),
    ],
)
def test_a_row_has_the_number_that_a_spreadsheet_shows(source: str, said: str) -> None:
    assert row_at(0, source) == said
