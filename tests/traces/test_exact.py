"""Whole numbers and names come through every file and importer as they were written, also beside empty cells."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples_tried import examples
from traces.errors import BadInput
from traces.importers.dit import import_dit
from traces.importers.source import Source
from traces.importers.table import import_table
from traces.request import Request
from traces.trace import Trace

SUFFIXES = (".csv", ".jsonl", ".parquet")
SEEDS = st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=1, max_size=5)
SIGNED = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)
NAMES = st.lists(
    st.none()
    | st.integers(0, 10**19).map(str)
    | st.from_regex(r"0{0,3}[0-9]{1,18}", fullmatch=True)
    | st.from_regex(r"[0-9]e[0-9]{1,3}", fullmatch=True)
    | st.sampled_from(["1.0", "+5", "1_000", "inf", "NA", "true", "0x1f"]),
    min_size=1,
    max_size=5,
)
WHOLE = {"height": 64, "width": 64, "steps": 4}


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    """A file as other programs write it: an empty field, a missing key, a null."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue())
    elif path.suffix == ".jsonl":
        filled = [{name: value for name, value in row.items() if value is not None} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in filled))
    else:
        arrays = {name: pa.array(values, _arrow_type(values)) for name, values in columns.items()}
        pq.write_table(pa.table(arrays), path)
    return path


def _arrow_type(values: list[Any]) -> pa.DataType | None:
    return pa.uint64() if any(isinstance(value, int) and value >= 2**63 for value in values) else None


def table(count: int, **columns: list[Any]) -> dict[str, list[Any]]:
    fixed = {name: [value] * count for name, value in WHOLE.items()}
    return {"arrival_s": [float(i) for i in range(count)], **fixed, **columns}


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=examples(4), deadline=None)
@given(seeds=SEEDS | SIGNED, names=NAMES)
def test_seeds_and_names_come_through_every_file(
    suffix: str, seeds: list[int | None], names: list[str | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    count = min(len(seeds), len(names))
    columns = table(count, seed=seeds[:count], checkpoint=names[:count], users_own=seeds[:count])
    path = write(folder / f"given{suffix}", columns)
    expected = [(seed or 0, name or "") for seed, name in zip(columns["seed"], columns["checkpoint"], strict=True)]
    for trace in (Trace.load(path), import_table(path, {}).trace):
        assert [(request.seed, request.checkpoint) for request in trace] == expected
        for again in SUFFIXES:
            trace.save(folder / f"again{again}")
            back = Trace.load(folder / f"again{again}")
            assert back.requests() == trace.requests()
            if "users_own" in back.frame:  # JSON lines that leave a column out everywhere do not know it
                own = [None if pd.isna(value) else int(value) for value in back.frame["users_own"]]
                assert own == columns["users_own"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_of_other_names_keep_their_digits(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"t{suffix}", table(3, noise=[2**53 + 1, None, 2**64 - 1], user=["00012", None, "1e5"]))
    imported = import_table(path, {"seed": Source("noise"), "request_id": Source("user")}).trace
    assert [(request.request_id, request.seed) for request in imported] == [
        ("00012", 2**53 + 1),
        ("2", 0),
        ("1e5", 2**64 - 1),
    ]


def test_other_importers_keep_seeds_too(tmp_path: Path) -> None:
    lines = [f"Request(timestamp={i}.0, height=64, width=64, num_inference_steps=4{more})" for i, more in
             enumerate((", seed=9007199254740993", "", ", seed=18446744073709551615"))]  # fmt: skip
    (tmp_path / "t.txt").write_text("\n".join(lines))
    assert [request.seed for request in import_dit(tmp_path / "t.txt").trace] == [2**53 + 1, 0, 2**64 - 1]


def test_seeds_as_text_and_beside_numbers_with_a_point_are_exact() -> None:
    frame = pd.DataFrame(table(3, seed=["9007199254740993", None, "1.0"]))
    assert [request.seed for request in Trace.from_frame(frame)] == [2**53 + 1, 0, 1]


def test_whole_numbers_that_a_file_has_made_floats_name_things_as_whole_numbers() -> None:
    frame = pd.DataFrame(table(2, checkpoint=[12.0, None], tenant=[7.5, 1]))
    assert [(request.checkpoint, request.tenant) for request in Trace.from_frame(frame)] == [("12", "7.5"), ("", "1")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"seed": [1.0, 2.0**60]}, "row 3 .*: seed is .*, written as one .a float has lost its last digits"),
        ({"seed": [0, 2**64]}, "row 3 .*: seed is .*, expected a whole number of 64 bits, from 0 to 2.64 - 1"),
        ({"seed": [-1, 2**64 - 1]}, "row 3 .*: seed is .*where one is negative"),
        ({"seed": ["1", "1.5"]}, "row 3 .*: seed is 1.5, expected a whole number"),
        ({"seed": ["1", "0x1f"]}, "row 3 .*: seed is '0x1f', expected a number"),
        ({"priority": [1, 2**31]}, "row 3 .*: priority is 2147483648, expected a whole number of -2,147,483,648"),
        ({"checkpoint": [None, 1.2e17]}, "row 3 .*: checkpoint is 1.2e.17, expected text or a whole number"),
    ],
)
def test_what_cannot_be_exact_is_refused(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Trace.from_frame(pd.DataFrame(table(2, **columns)))


def test_traces_of_seeds_with_and_without_a_sign_are_merged_exactly() -> None:
    first = Trace.from_requests([Request("a", 0.0, 64, 64, 4, seed=2**53 + 1)])
    second = Trace.from_requests([Request("b", 1.0, 64, 64, 4, seed=2**64 - 1)])
    with_extra = Trace.from_frame(second.frame.assign(user=[2**53 + 1]))
    merged = first.merge(with_extra)
    assert [request.seed for request in merged] == [2**53 + 1, 2**64 - 1]
    assert merged.frame["user"].tolist() == [pd.NA, 2**53 + 1]
    assert merged.head(1).requests()[0].seed == 2**53 + 1


def test_names_that_pandas_has_written_as_an_index_are_a_column(tmp_path: Path) -> None:
    pd.DataFrame(table(2), index=pd.Index(["a", "b"], name="request_id")).to_parquet(tmp_path / "t.parquet")
    assert [request.request_id for request in Trace.load(tmp_path / "t.parquet")] == ["a", "b"]


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    twice = pa.table([pa.array([1]), pa.array([2])], names=["steps", "steps"])
    pq.write_table(twice, tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("arrival_s,height,width,steps,steps\n0,8,8,1,2\n")
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(BadInput, match="column 'steps' is there twice"):
            Trace.load(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_traces_from_before_have_the_defaults_of_newer_fields(suffix: str, tmp_path: Path) -> None:
    newer = {"negative_prompt", "true_cfg_scale", "strength", "schedule_steps", "mask", "reference_pixels"}
    older = [field.name for field in fields(Request) if field.name not in newer]
    request = Request("a", 0.5, 64, 64, 4, seed=-3, prompt="a cat", priority=2, adapters="style:0.5", slo_s=3.0)
    write(tmp_path / f"t{suffix}", {name: [getattr(request, name)] for name in older})
    assert Trace.load(tmp_path / f"t{suffix}").requests() == [request]


@pytest.mark.parametrize("seed", [-(2**63) - 1, 2**64])
def test_a_request_has_a_seed_of_64_bits(seed: int) -> None:
    with pytest.raises(BadInput, match=r"seed is .*, expected a whole number of 64 bits"):
        Request("a", 0.0, 64, 64, 4, seed=seed)
