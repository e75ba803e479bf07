"""A trace holds what its requests hold, in memory and in files, and names the first cell that is wrong."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples_tried import examples
from traces.errors import BadInput
from traces.geometry import ModelGeometry, geometry_of
from traces.limits import LABEL
from traces.request import Request
from traces.trace import Trace

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
LINE = TEXT.filter(LABEL.holds)


@st.composite
def requests(draw: st.DrawFn, request_id: str) -> Request:
    arrival = draw(st.floats(0, 1e9))
    late = draw(st.sampled_from(["none", "slo", "deadline"]))
    span = draw(st.floats(1e-3, 1e6))
    return Request(
        request_id=request_id,
        arrival_s=arrival,
        height=draw(st.integers(1, 4096)),
        width=draw(st.integers(1, 4096)),
        steps=draw(st.integers(1, 100)),
        frames=draw(st.integers(1, 129)),
        images=draw(st.integers(1, 8)),
        model=draw(LINE),
        prompt=draw(TEXT),
        seed=draw(st.integers(-(2**63), 2**63 - 1)),
        guidance_scale=draw(st.floats(0, 20)),
        deadline_s=max(arrival + span, np.nextafter(arrival, np.inf)) if late == "deadline" else None,
        slo_s=span if late == "slo" else None,
        priority=draw(st.integers(-5, 5)),
        tenant=draw(LINE),
        negative_prompt=draw(TEXT),
        true_cfg_scale=draw(st.none() | st.floats(0, 20)),
        strength=draw(st.none() | st.floats(0, 1, exclude_min=True)),
    )


REQUESTS = st.integers(0, 6).flatmap(lambda n: st.tuples(*(requests(f"r{i}") for i in range(n)))).map(list)


def simple(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"arrival_s": [0.0, 1.0], "height": 512, "width": 768, "steps": 30} | columns)


@settings(max_examples=examples(12), deadline=None)
@given(REQUESTS)
def test_requests_come_back_sorted_by_arrival(made: list[Request]) -> None:
    trace = Trace.from_requests(made)
    assert trace.requests() == sorted(made, key=lambda request: request.arrival_s)
    assert list(trace) == trace.requests()
    assert len(trace) == len(made)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@settings(max_examples=examples(6), deadline=None)
@given(made=REQUESTS.filter(bool))
def test_files_give_back_what_was_saved(suffix: str, made: list[Request]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"trace{suffix}")
        trace = Trace.from_requests(made)
        trace.save(path)
        assert Trace.load(path).requests() == trace.requests()
        first = path.read_bytes()
        trace.save(path)
        assert path.read_bytes() == first
        assert list(Path(folder).iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_packed_files_load(suffix: str, tmp_path: Path) -> None:
    trace = Trace.from_frame(simple())
    trace.save(tmp_path / f"t{suffix}")
    packed = tmp_path / f"t{suffix}.gz"
    packed.write_bytes(gzip.compress((tmp_path / f"t{suffix}").read_bytes()))
    assert Trace.load(packed).requests() == trace.requests()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_extra_columns_survive_files_and_transformations(suffix: str, tmp_path: Path) -> None:
    trace = Trace.from_frame(simple(note=["M1", "M2"], exec_s=[0, 2]))
    path = tmp_path / f"t{suffix}"
    trace.scale_rate(2).head(2).with_model("sdxl").save(path)
    frame = Trace.load(path).frame
    assert frame["note"].tolist() == ["M1", "M2"]
    assert frame["exec_s"].tolist() == [0, 2]
    assert frame["arrival_s"].tolist() == [0.0, 0.5]


def test_defaults_are_those_of_a_request() -> None:
    [first, second] = Trace.from_frame(simple()).requests()
    assert first == Request("1", 0.0, 512, 768, 30)
    assert second == Request("2", 1.0, 512, 768, 30)


def test_ties_keep_their_order_and_ids_are_rows_of_the_file() -> None:
    trace = Trace.from_frame(simple(arrival_s=[5.0, 5.0]).iloc[[1, 0]])
    assert [request.request_id for request in trace] == ["1", "2"]
    frame = pd.concat([simple(arrival_s=[9.0, 2.0]), simple(arrival_s=[2.0, 0.0])])
    assert [request.request_id for request in Trace.from_frame(frame)] == ["4", "2", "3", "1"]


def test_text_is_never_taken_for_a_number_or_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("request_id,arrival_s,height,width,steps,prompt,tenant\n007,0,8,8,1,NA,1e3\n")
    [request] = Trace.load(path).requests()
    assert (request.request_id, request.prompt, request.tenant) == ("007", "NA", "1e3")


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        ({"height": [512, 0]}, 3, "height is 0, expected a whole number of 1 to 65,536 pixels"),
        ({"height": ["512", "tall"]}, 3, "height is 'tall', expected a number"),
        ({"steps": [30, 2.5]}, 3, "steps is 2.5, expected a whole number of 1 to 10,000 steps"),
        ({"steps": [30, None]}, 3, "steps is empty, expected a whole number of 1 to 10,000 steps"),
        ({"width": [2.0**31, 8]}, 2, "width is 2147483648.0, expected a whole number"),
        ({"arrival_s": [0.0, -1.0]}, 3, "arrival_s is -1.0, expected a number of 0 to 10,000,000,000 s"),
        ({"arrival_s": [np.inf, 1.0]}, 2, "arrival_s is inf, expected a number of 0 to 10,000,000,000 s"),
        ({"arrival_s": [0.0, 1e300]}, 3, "arrival_s is 1e+300, expected a number of 0 to"),
        ({"steps": [30, 2**31 - 1]}, 3, "steps is 2147483647, expected a whole number of 1 to 10,000 steps"),
        ({"images": [1, 10**6]}, 3, "images is 1000000, expected a whole number of 1 to 1,000 images"),
        ({"frames": [1, 10**5], "height": 65536, "width": 65536}, 3, "frames is 100000, expected height x"),
        ({"request_id": ["", "b"]}, 2, "request_id is '', expected text without control characters, of 1"),
        ({"request_id": ["a", "b" * 301]}, 3, "request_id is 'bbb"),
        ({"request_id": ["a", "b\x1b[2J"]}, 3, "request_id is 'b\\x1b[2J'"),
        ({"prompt": ["a\nb", "a\0b"]}, 3, "prompt is 'a\\x00b', expected text, of 0 to 100,000 characters"),
        ({"seed": [1, 0.5]}, 3, "seed is 0.5, expected a whole number of 64 bits"),
        ({"guidance_scale": [1, -1]}, 3, "guidance_scale is -1"),
        ({"true_cfg_scale": [None, -1]}, 3, "true_cfg_scale is -1.0, expected a number of 0 to 1,000 (or"),
        ({"strength": [None, 0]}, 3, "strength is 0.0, expected a number above 0 and at most 1"),
        ({"deadline_s": [None, 1.0]}, 3, "deadline_s is 1.0, expected a time after the arrival"),
        ({"slo_s": [0, 1.0]}, 2, "slo_s is 0.0, expected a number of 0.001 to 1,000,000,000 s"),
        ({"slo_s": [None, 1], "deadline_s": [None, 9]}, 3, "slo_s is 1.0, expected nothing"),
        ({"request_id": ["a", "a"]}, 3, "request_id is 'a', expected an id that no earlier row"),
        ({"steps": [0, 0], "height": [8, 0]}, 2, "steps is 0"),
        ({"arrival_s": pd.to_datetime(["2024-01-01", "2024-01-02"])}, 2, "arrival_s is '2024"),
        ({"height": [[1], [2]]}, 2, "height is [1], expected a number"),
    ],
)
def test_the_first_bad_cell_is_named(columns: dict[str, object], row: int, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        Trace.from_frame(simple(**columns), "t.csv")
    assert str(caught.value).startswith(f"t.csv: row {row} counting the header: {message}")
    assert "\n" not in str(caught.value)


def test_messages_use_the_users_rows_and_columns() -> None:
    with pytest.raises(BadInput, match=r"row 10 counting the header: slo_s \(column 'slo_ms'\) is -1"):
        Trace.from_frame(simple(slo_s=[1, -1]), "t", rows=[4, 9], columns={"slo_s": "slo_ms"})


@pytest.mark.parametrize("column", ["arrival_s", "height", "width", "steps"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(BadInput, match=f"no column '{column}'; the file has: "):
        Trace.from_frame(simple().drop(columns=column))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.csv", None),
        ("empty.csv", b""),
        ("header.csv", b"arrival_s,height,width,steps\n"),
        ("wide.csv", b"arrival_s,height\n1,2,3\n"),
        ("ragged.csv", b"arrival_s,height\n1,2\n1,2,3\n"),
        ("binary.csv", b"\xff\xfe\x00"),
        ("broken.jsonl", b'{"arrival_s": 0\n'),
        ("list.jsonl", b"[1]\n"),
        ("broken.parquet", b"PAR1"),
        ("cut.csv.gz", gzip.compress(b"arrival_s\n" * 99, mtime=0)[:-9]),
        ("trace.xlsx", b"x"),
        ("trace.parquet.gz", b"x"),
        ("trace", b"x"),
    ],
)
def test_a_file_that_is_no_trace_is_named_in_one_line(name: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        Trace.load(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_trace_and_a_bad_suffix_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        Trace.load(tmp_path.joinpath("f.csv").mkdir() or tmp_path / "f.csv")
    with pytest.raises(BadInput, match=r"unknown file type '\.txt'"):
        Trace.from_frame(simple()).save(tmp_path / "t.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["f.csv"]


def test_check_names_the_first_request_of_an_impossible_size() -> None:
    trace = Trace.from_frame(simple(height=[512, 500]), "t.csv")
    trace.check(ModelGeometry("any", 1, 1, 1, (8, 8)))
    with pytest.raises(BadInput, match=r"t.csv: request '2': height 500 is not a multiple of 8"):
        trace.check(geometry_of("sdxl"))
    with pytest.raises(BadInput, match=r"frames 2 is not 1 plus a multiple of 4"):
        Trace.from_frame(simple(frames=[2, 1])).check(geometry_of("wan-1.3b"))


def test_the_frame_is_a_copy() -> None:
    trace = Trace.from_frame(simple())
    frame = trace.frame
    frame.loc[0, "height"] = 1
    assert trace.frame["height"].tolist() == [512, 512]


def test_summary_counts_what_is_asked() -> None:
    frame = simple(images=[1, 4], slo_s=[None, 3.0], tenant=["a", ""])
    summary = Trace.from_frame(frame).summary()
    assert (summary.requests, summary.images, summary.span_s, summary.rate) == (2, 5, 1.0, 1.0)
    assert summary.sizes == {(512, 768, 1): 2}
    assert summary.steps == {30: 2}
    assert summary.with_deadline == 1
    assert summary.tenants == {"a": 1, "": 1}
    assert np.isnan(summary.dispersion)
    assert np.isnan(Trace.from_frame(simple()).head(0).summary().rate)


def test_dispersion_is_of_whole_minutes() -> None:
    arrival = [0.0, 1.0, 2.0, 60.0, 120.0]
    frame = pd.DataFrame({"arrival_s": arrival, "height": 8, "width": 8, "steps": 1})
    assert Trace.from_frame(frame).summary().dispersion == pytest.approx(np.var([3, 1]) / 2)
