"""Importers account for every row, and carry over what it says."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples_tried import examples
from traces.errors import BadInput
from traces.importers.dit import import_dit
from traces.importers.gentd26 import import_gentd26
from traces.importers.imported import ImportReport, spread_ties
from traces.importers.mixfusion import import_mixfusion
from traces.importers.table import import_table, parse_mapping
from traces.sizes import load_sizes, parse_sizes
from traces.streams import stream
from traces.trace import Trace

SIZES = parse_sizes("512x512:2,768x512:1")
HEADER = (
    "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,prompt_length,negative_prompt_length,"
    "num_images_per_prompt,num_inference_steps,checkpoint_model_version_id,num_lora"
)
ROWS = (
    "2024-11-15 16:57:52,TXT_2_IMG,SUCCEED,32.0,G0,63.0,26.0,1.0,30.0,M0,0",
    "2024-11-15 16:57:50,IMG_2_IMG,FAILED,5.0,G1,93.0,,8.0,40.0,M1,2",
    "2024-11-15 16:57:52,INPAINTING,SUCCEED,9.0,G2,93.0,,4.0,20.0,,1",
    "2024-11-15 16:57:51,TXT_2_IMG,PENDING,0.0,G3,,,,,,0",
    "2024-11-15 16:57:55,TXT_2_IMG,SUCCEED,1.0,G3,,,1.0,,M0,0",
    "2024-11-15 16:57:56,TXT_2_IMG,SUCCEED,1.0,G3,,,,30.0,M0,0",
)


def published(folder: Path, rows: tuple[str, ...] = ROWS) -> Path:
    path = folder / "lora_request_trace.csv"
    path.write_text("\n".join((HEADER, *rows)) + "\n")
    return path


def test_gentd26_rows_become_requests(tmp_path: Path) -> None:
    trace, report = (imported := import_gentd26(published(tmp_path), SIZES)).trace, imported.report
    first, second, third = trace.requests()
    assert [request.arrival_s for request in trace] == [0.0, 2.0, 2.0]
    assert [request.request_id for request in trace] == ["2", "1", "3"]
    assert (first.steps, first.images, first.tenant, first.model) == (40, 8, "G1", "sdxl")
    assert (second.steps, third.steps) == (30, 20)
    assert {request.size for request in trace} <= set(SIZES.values)
    frame = trace.frame
    assert frame["checkpoint"].tolist() == ["M1", "M0", ""]
    assert frame["adapters"].tolist() == ["lora1+lora2", "", "lora1"]
    assert frame["status_recorded"].tolist() == ["FAILED", "SUCCEED", "SUCCEED"]
    assert frame["exec_s"].tolist() == [5.0, 32.0, 9.0]
    assert report.left_out == {"status PENDING": 1, "no steps": 1, "no images a request": 1}
    assert (report.read, report.used) == (6, 3)
    assert report.notable["type, rows read"] == {"TXT_2_IMG": 4, "IMG_2_IMG": 1, "INPAINTING": 1}
    assert report.notable["arrivals, rows kept"] == {"in the same second as another": 2}


def test_gentd26_packed_or_not_is_the_same_and_a_limit_is_accounted_for(tmp_path: Path) -> None:
    path = published(tmp_path)
    packed = tmp_path / "lora_request_trace.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    whole = import_gentd26(path, SIZES, seed=3)
    assert import_gentd26(packed, SIZES, seed=3).trace.requests() == whole.trace.requests()
    cut = import_gentd26(path, SIZES, seed=3, limit=1)
    assert cut.trace.requests() == whole.trace.requests()[:1]
    assert cut.report.left_out["beyond the first 1 arrivals"] == 2


def test_gentd26_statuses_are_chosen(tmp_path: Path) -> None:
    report = import_gentd26(published(tmp_path), SIZES, statuses=("FAILED",)).report
    assert report.left_out == {"status PENDING": 1, "status SUCCEED": 4}
    with pytest.raises(BadInput, match="no row has status 'DONE'; the file has: FAILED, PENDING, SUCCEED"):
        import_gentd26(published(tmp_path), SIZES, statuses=("DONE",))
    with pytest.raises(BadInput, match=r"all 6 rows are left out \(status FAILED: 1; .*no steps: 1\)"):
        import_gentd26(published(tmp_path), SIZES, statuses=("PENDING",))


def test_gentd26_rows_may_lack_what_a_request_does_not_need(tmp_path: Path) -> None:
    imported = import_gentd26(published(tmp_path, ("2024-11-15 16:57:50,,SUCCEED,,,,,1,30,,",)), SIZES)
    assert imported.report.notable["type, rows read"] == {"(empty)": 1}
    assert imported.report.notable["adapters a request, rows kept"] == {"(empty)": 1}
    imported.trace.save(tmp_path / "t.parquet")
    assert len(Trace.load(tmp_path / "t.parquet")) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "15.11.2024,T,SUCCEED,1,G,1,1,1,30,M,0",
            r"row 8 .*: arrival_s \(column 'gmt_create'\) is '15.11.2024'",
        ),
        (
            "2024-11-15 16:57:50,T,SUCCEED,1,G,1,1,1,many,M,0",
            r"row 8 .*: steps \(column 'num_inference_steps'\) is 'many', expected a number",
        ),
        (
            "2024-11-15 16:57:50,T,SUCCEED,1,G,1,1,0,30,M,0",
            r"row 8 .*: images \(column 'num_images_per_prompt'\) is 0.0, expected a whole number",
        ),
    ],
)
def test_gentd26_bad_cells_are_named(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        import_gentd26(published(tmp_path, (*ROWS, row)), SIZES)


def test_gentd26_as_published(shared_data: Path) -> None:
    path = shared_data / "gentd26/lora_request_trace.csv.gz"
    sizes = load_sizes(shared_data / "diffusiondb_sizes.csv")
    imported = import_gentd26(path, sizes)
    assert (imported.report.read, imported.report.used) == (15630, 15615)
    assert imported.report.left_out == {"status PENDING": 15}
    assert imported.trace.summary().images == 41472
    spread = import_gentd26(path, sizes, spread_seconds=True).trace.frame
    np.testing.assert_array_equal(np.floor(spread["arrival_s"]), imported.trace.frame["arrival_s"])
    assert not spread["arrival_s"].duplicated().any()


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), max_size=50), st.integers(0, 9))
def test_ties_are_spread_within_their_second_and_in_order(seconds: list[int], seed: int) -> None:
    times = np.sort(np.array(seconds, dtype=float))
    spread = spread_ties(times, stream(seed, "ties"))
    assert (np.floor(spread) == times).all()
    assert (np.diff(spread) >= 0).all()
    alone = [second for second in seconds if seconds.count(second) == 1]
    assert set(alone) <= set(spread)


def test_a_report_must_add_up() -> None:
    with pytest.raises(ValueError, match="3 rows read, but 2 accounted for"):
        ImportReport("f", 3, 1, {"why": 1})


def test_mixfusion_rows_become_square_requests(tmp_path: Path) -> None:
    path = tmp_path / "qps.csv"
    path.write_text("arrival time(ms),resolution,steps\n1500,768,35\n500,1024,40\n900,,40\n")
    imported = import_mixfusion(path, model="sd3")
    assert [(r.arrival_s, r.size, r.steps, r.model) for r in imported.trace] == [
        (0.5, (1024, 1024, 1), 40, "sd3"),
        (1.5, (768, 768, 1), 35, "sd3"),
    ]
    assert imported.report.left_out == {"no resolution": 1}


def test_mixfusion_as_published(shared_data: Path) -> None:
    paths = sorted((shared_data / "mixfusion/traces").glob("*.csv"))
    for path in paths:
        report = import_mixfusion(path).report
        assert (report.read, report.used, report.left_out) == (1000, 1000, {})


LINES = {
    ".txt": (
        "Request(request_id=4, timestamp=0.5, height=256, width=512, num_inference_steps=20, "
        "prompt='a (cat)', num_frames=9, seed=7, slo_ms=1500.0, fps=None)\n\n"
        "Request(request_id=5, timestamp=0.25, height=128, width=128, num_inference_steps=10)\n"
    ),
    ".jsonl": (
        '{"request_id": 4, "timestamp": 0.5, "height": 256, "width": 512, "num_inference_steps": 20, '
        '"prompt": "a (cat)", "num_frames": 9, "seed": 7, "slo_ms": 1500.0}\n'
        '{"request_id": 5, "timestamp": 0.25, "height": 128, "width": 128, "num_inference_steps": 10}\n'
    ),
    ".csv": (
        "request_id,timestamp,height,width,num_inference_steps,prompt,num_frames,seed,slo_ms\n"
        "4,0.5,256,512,20,a (cat),9,7,1500\n5,0.25,128,128,10,,,,\n"
    ),
}


@pytest.mark.parametrize("suffix", LINES)
def test_dit_lines_become_requests(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"trace{suffix}"
    path.write_text(LINES[suffix])
    small, large = import_dit(path, model="wan-1.3b").trace.requests()
    assert (large.request_id, large.arrival_s, large.size) == ("4", 0.5, (256, 512, 9))
    assert (large.steps, large.prompt, large.seed, large.slo_s) == (20, "a (cat)", 7, 1.5)
    assert (small.request_id, small.frames, small.slo_s, small.model) == ("5", 1, None, "wan-1.3b")


@pytest.mark.parametrize("line", ["Request(", "Request(1)", "Other(a=1)", "Request(a=f())", "Request(**x)"])
def test_a_dit_line_that_is_no_request_is_named_and_not_run(line: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(f"\n{line}\n")
    with pytest.raises(BadInput, match=r"trace.txt: line 2 is .*expected Request\(name=value, ...\)"):
        import_dit(path)


def test_dit_slos_are_checked_under_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,height,width,num_inference_steps,slo_ms\n0,8,8,1,-5\n")
    with pytest.raises(BadInput, match=r"row 2 .*: slo_s \(column 'slo_ms'\) is -0.005, expected a number of 0.001 to"):
        import_dit(path)


def test_a_table_is_mapped_by_the_user(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("ts:x,h,width,user,zone,steps\n2500,64,32,007,eu,9\n1500,64,32,8,us,9\n,64,32,9,us,9\n")
    mapping = parse_mapping(["arrival_s=ts:x:ms", "height=h", "tenant=user"])
    imported = import_table(path, mapping, constants={"images": "2"}, rebase=True)
    assert [(r.arrival_s, r.size, r.tenant, r.images) for r in imported.trace] == [
        (0.0, (64, 32, 1), "8", 2),
        (1.0, (64, 32, 1), "007", 2),
    ]
    assert imported.trace.frame["zone"].tolist() == ["us", "eu"]
    assert imported.report.left_out == {"no arrival_s": 1}


def test_dates_become_seconds_after_the_first(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"t": "2024-11-15T10:00:01.5Z"}\n{"t": "2024-11-15 10:00:00"}\n')
    constants = {"height": "64", "width": "64", "steps": "4"}
    trace = import_table(path, parse_mapping(["arrival_s=t:date"]), constants=constants).trace
    assert [request.arrival_s for request in trace] == [0.0, 1.5]
    path.write_text('{"t": "yesterday"}\n')
    with pytest.raises(BadInput, match=r"record 1: arrival_s \(column 't'\) is 'yesterday', expected a date"):
        import_table(path, parse_mapping(["arrival_s=t:date"]), constants=constants)


@pytest.mark.parametrize("pair", ["arrival_s", "arrival_s=", "when=ts", "slo_s=x:date", "height=h:ms"])
def test_a_bad_mapping_is_refused(pair: str) -> None:
    with pytest.raises(BadInput, match="mapping "):
        parse_mapping([pair])


def test_a_mapping_names_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("ts,height,width\n0,8,8\n")
    with pytest.raises(BadInput, match=r"no column for steps; map one .*; the file has: ts, height, width"):
        import_table(path, parse_mapping(["arrival_s=ts"]))
    square = import_table(path, parse_mapping(["arrival_s=ts", "width=height", "steps=height"]))
    assert [(r.size, r.steps) for r in square.trace] == [((8, 8, 1), 8)]
    with pytest.raises(BadInput, match="no column 'when'"):
        import_table(path, parse_mapping(["arrival_s=when"]))
    with pytest.raises(BadInput, match="constant 'speed'"):
        import_table(path, parse_mapping(["arrival_s=ts"]), constants={"speed": "1"})
    with pytest.raises(BadInput, match="mapped twice"):
        parse_mapping(["steps=a", "steps=b"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "id,receivedAt,client,Width,H,num_inference_steps,Prompt\na,2026-11-02T09:30:00Z,app,128,96,20,a cat\n",
            "no column for arrival_s, height, width, steps; perhaps --map request_id=id --map "
            "arrival_s=receivedAt:date --map tenant=client --map width=Width --map height=H --map "
            "steps=num_inference_steps --map prompt=Prompt; the file has: id, receivedAt, client, Width, H, "
            "num_inference_steps, Prompt",
        ),
        (
            "timestamp,image width,image height\n1731689870000,8,8\n",
            'no column for arrival_s, height, width, steps; perhaps --map arrival_s=timestamp:ms --map "width=image '
            'width" --map "height=image height" --set steps=VALUE; the file has',
        ),
        (
            "arrival (ms),height,width,steps\n5,8,8,1\n",
            'no column for arrival_s; perhaps --map "arrival_s=arrival (ms):ms"',
        ),
        ("Arrivals,height,width,steps\n5,8,8,1\n", "no column for arrival_s; perhaps --map arrival_s=Arrivals;"),
        ("x,y\n1,2\n", "no column for arrival_s, height, width, steps; map one (--map FIELD=COLUMN), or set it"),
    ],
)
def test_a_mapping_is_proposed_for_common_names(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        import_table(path, {})
    assert said in str(caught.value)
    options = "map one" not in said and re.findall(r'--map (?:"([^"]+)"|(\S+?))(?=[; ])', str(caught.value))
    if options:
        mapping = parse_mapping([quoted or plain for quoted, plain in options])
        constants = {"steps": "4"} if "--set steps" in said else {}
        assert len(import_table(path, mapping, constants=constants).trace) == 1


def test_all_columns_that_are_missing_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("TS,Height,w\n0,8,8\n")
    said = r"no column 'ts' \(did you mean 'TS'\?\), 'height' \(did you mean 'Height'\?\), 'x'; the file has: TS, H"
    with pytest.raises(BadInput, match=said):
        import_table(path, parse_mapping(["arrival_s=ts", "height=height", "width=x"]))
    with pytest.raises(BadInput, match="unknown field 'Steps'; did you mean 'steps'"):
        parse_mapping(["Steps=x"])


CELLS = st.sampled_from(["", "1", "2"])


@settings(max_examples=examples(12), deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=8), limit=st.integers(1, 4))
def test_counts_add_up_whatever_is_empty(
    rows: list[tuple[str, ...]], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("t") / "log.parquet"
    frame = pd.DataFrame(rows, columns=["arrival_s", "height", "width", "steps"])
    frame.apply(pd.to_numeric).to_parquet(path)
    full = int(frame.ne("").all(axis=1).sum())
    if full:
        report = import_table(path, {}, limit=limit).report
        assert report.used == min(full, limit)
        assert report.read == len(rows) == report.used + sum(report.left_out.values())
    else:
        with pytest.raises(BadInput, match="rows are left out"):
            import_table(path, {}, limit=limit)


def test_an_imported_trace_loads_again(tmp_path: Path) -> None:
    trace = import_gentd26(published(tmp_path), SIZES).trace
    trace.save(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(Trace.load(tmp_path / "t.parquet").frame, trace.frame)


NGINX = [
    {
        "time_iso8601": f"2026-11-02T09:30:{second:02}+00:00",
        "request": "POST /v1/images HTTP/1.1",
        "request_time": took_s,
        "body": {"size": "1024x768", "options": {"steps": 20}},
    }
    for second, took_s in ((0, 3.5), (7, 0.25), (9, 4.0))
]


@pytest.mark.parametrize("name", ["log.jsonl", "log.json", "lines.json"])
def test_the_access_log_of_a_server_is_mapped_by_what_it_holds(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    lines = "".join(json.dumps(row) + "\n" for row in NGINX)
    path.write_text(json.dumps(NGINX, indent=1) if name == "log.json" else lines)
    said = (
        r"perhaps --map arrival_s=time_iso8601:date --map width=body\.size:1 --map height=body\.size:2 "
        r"--map steps=body\.options\.steps; the file has"
    )
    with pytest.raises(BadInput, match=said) as caught:
        import_table(path, {})
    imported = import_table(path, parse_mapping(re.findall(r"--map (\S+?)[; ]", str(caught.value))))
    assert [(r.arrival_s, r.size, r.steps) for r in imported.trace] == [
        (0.0, (768, 1024, 1), 20),
        (7.0, (768, 1024, 1), 20),
        (9.0, (768, 1024, 1), 20),
    ]
    assert not any("order" in note for note in imported.report.notes)
    sized = ["width=body.size:1", "height=body.size:2", "steps=body.options.steps"]
    took = import_table(path, parse_mapping(["arrival_s=request_time", *sized]))
    assert "1 of 3 rows were not in the order of column 'request_time'" in " ".join(took.report.notes)
    with pytest.raises(BadInput, match="expected a number; a date is read by --map arrival_s=time_iso8601:date"):
        import_table(path, parse_mapping(["arrival_s=time_iso8601", *sized]))
    with pytest.raises(BadInput, match=r"width \(column 'request'\) is 'POST .*, expected two numbers of pixels like"):
        import_table(path, parse_mapping(["arrival_s=request_time", "width=request:1", *sized[1:]]))


@pytest.mark.parametrize("text", ["[1]", '[{"a": 1}, []]', '["x"]'])
def test_a_list_of_json_holds_objects(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(BadInput, match=r"t\.json: item \d is .*, expected a JSON object"):
        import_table(tmp_path / "t.json", {})


@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.log", "t.txt"])
def test_a_table_is_read_by_what_separates_its_header(mark: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    rows = [("zeit", "groesse", "schritte", "prompt"), ("0", "64x96", "4", "a, b"), ("2", "64x96", "6", f'"{mark}"')]
    path.write_text("".join(mark.join(row) + "\n" for row in rows))
    imported = import_table(
        path, parse_mapping(["arrival_s=zeit", "width=groesse:1", "height=groesse:2", "steps=schritte"])
    )
    assert [(r.arrival_s, r.size, r.steps, r.prompt) for r in imported.trace] == [
        (0.0, (96, 64, 1), 4, "a, b"),
        (2.0, (96, 64, 1), 6, mark),
    ]
    assert f"the fields of the file are separated by {mark!r}, by its header" in imported.report.notes


@pytest.mark.parametrize("name", ["access.log", "access.txt", "access.log.gz"])
def test_a_log_of_json_lines_is_read_by_what_it_holds(name: str, tmp_path: Path) -> None:
    content = "".join(json.dumps(row) + "\n" for row in NGINX).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    mapping = ["arrival_s=time_iso8601:date", "width=body.size:1", "height=body.size:2", "steps=body.options.steps"]
    imported = import_table(tmp_path / name, parse_mapping(mapping))
    assert [r.arrival_s for r in imported.trace] == [0.0, 7.0, 9.0]


def test_a_log_that_is_no_table_is_said(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text('127.0.0.1 - - [02/Nov/2026:09:30:00 +0100] "GET / HTTP/1.1" 200 5\n')
    with pytest.raises(BadInput, match="neither JSON lines nor a table; have the server write its log as JSON"):
        import_table(tmp_path / "access.log", {})
