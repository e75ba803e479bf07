"""``tilecast trace``: the commands a user types, from a file to a trace to a workload and back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.trace import app
from traces.errors import BadInput
from traces.trace import Trace

GENTD26 = (
    "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,prompt_length,negative_prompt_length,"
    "num_images_per_prompt,num_inference_steps,checkpoint_model_version_id,num_lora\n"
    "2024-11-15 16:57:50,TXT_2_IMG,SUCCEED,32.0,G0,63.0,26.0,1.0,30.0,M0,0\n"
    "2024-11-15 16:57:54,TXT_2_IMG,FAILED,3.0,G0,63.0,26.0,2.0,20.0,M0,1\n"
    "2024-11-15 16:57:58,TXT_2_IMG,PENDING,0.0,G0,,,,,,0\n"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("sizes.csv").write_text("height,width,weight\n512,512,3\n768,512,1\n")
    Path("prompts.txt").write_text("a cat\n\na dog\n")
    Path("gentd26.csv").write_text(GENTD26)
    return tmp_path


def tilecast_trace(line: str) -> str:
    result = CliRunner().invoke(app, line.split(), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_gentd26_is_imported_with_an_account_of_its_rows() -> None:
    options = "--seed 1 --model mine --prompts prompts.txt --rate-scale 2 --spread-seconds"
    out = tilecast_trace(f"import gentd26 gentd26.csv --sizes sizes.csv -o T.parquet {options}")
    assert "left out: status PENDING" in out
    assert "wrote T.parquet: 2 requests" in out
    trace = Trace.load("T.parquet")
    assert [request.arrival_s for request in trace] == [0.0, 2.0]
    assert {request.model for request in trace} == {"mine"}
    assert {request.prompt for request in trace} <= {"a cat", "a dog"}
    tilecast_trace("import gentd26 gentd26.csv --sizes 64x64 -o F.csv --statuses FAILED --limit 1")
    assert [request.steps for request in Trace.load("F.csv")] == [20]


def test_other_formats_are_imported() -> None:
    Path("mix.csv").write_text("arrival time(ms),resolution,steps\n500,768,35\n")
    Path("dit.txt").write_text("Request(timestamp=0.5, height=8, width=8, num_inference_steps=4)\n")
    Path("log.csv").write_text("ts,h,w\n1500,64,32\n")
    tilecast_trace("import mixfusion mix.csv -o a.parquet --model sd3")
    tilecast_trace("import dit dit.txt -o b.jsonl")
    tilecast_trace("import table log.csv --map arrival_s=ts:ms --map height=h --map width=w --set steps=9 -o c.csv")
    [a], [b], [c] = (Trace.load(name).requests() for name in ("a.parquet", "b.jsonl", "c.csv"))
    assert (a.size, a.model) == ((768, 768, 1), "sd3")
    assert (b.arrival_s, b.steps) == (0.5, 4)
    assert (c.arrival_s, c.size, c.steps) == (1.5, (64, 32, 1), 9)


def test_a_trace_is_generated_the_same_for_a_seed() -> None:
    line = "generate --rate 2 --duration 600 --arrivals gamma:2 --sizes sizes.csv --steps 20:1,30:3"
    for name in ("a", "b"):
        tilecast_trace(f"{line} --images 1:3,4:1 --model sdxl --seed 4 --prompts prompts.txt -o {name}.parquet")
    assert Path("a.parquet").read_bytes() == Path("b.parquet").read_bytes()
    summary = Trace.load("a.parquet").summary()
    assert summary.requests == pytest.approx(1200, rel=0.3)
    assert set(summary.steps) == {20, 30}
    assert set(summary.models) == {"sdxl"}


def test_a_workload_is_fitted_edited_and_grown() -> None:
    tilecast_trace("generate --rate 2 --duration 600 --sizes sizes.csv --model sdxl --steps 30 -o T.parquet")
    tilecast_trace("fit T.parquet -o W.toml")
    Path("W.toml").write_text(Path("W.toml").read_text().replace('"30" = ', '"8" = '))
    tilecast_trace("generate --like W.toml --duration 600 --rate-scale 3 --images 2 -o G.parquet")
    summary = Trace.load("G.parquet").summary()
    assert summary.rate == pytest.approx(6, rel=0.15)
    assert set(summary.steps) == {8}
    assert set(summary.images_per_request) == {2}
    assert set(summary.models) == {"sdxl"}


def test_describe_shows_figures_and_tables() -> None:
    tilecast_trace("generate --rate 1 --duration 300 --sizes sizes.csv -o T.parquet")
    out = tilecast_trace("describe T.parquet")
    for word in ("T.parquet", "mean rate", "CV of intervals", "512x512", "768x512", "steps", "tenant"):
        assert word in out


def test_a_trace_is_transformed_in_one_command() -> None:
    tilecast_trace("generate --rate 1 --duration 300 --sizes sizes.csv --model sd15 --steps 30 -o T.parquet")
    tilecast_trace(
        "transform T.parquet --merge T.parquet --start 100 --end 200 --scale-rate 2 "
        "--scale-sizes tiny-image --max-side 160 --scale-steps 0.5 --resample 40 "
        "--slo 128x128:5,192x128:6,160x96:7 --prompts prompts.txt "
        "-o U.parquet"
    )
    trace = Trace.load("U.parquet")
    assert len(trace) == 40
    assert {request.size for request in trace} <= {(128, 128, 1), (160, 96, 1)}
    assert {request.slo_s for request in trace} <= {5.0, 7.0}
    assert {request.steps for request in trace} == {15}
    tilecast_trace("transform U.parquet --head 3 --with-model x --slo 2.5 --overwrite-slo -o V.csv")
    assert [(request.model, request.slo_s) for request in Trace.load("V.csv")] == [("x", 2.5)] * 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("describe missing.parquet", "missing.parquet: cannot be read"),
        ("generate --duration 60 -o T.parquet", "generate needs --rate and --sizes or a --model, or --like"),
        ("generate --rate 1 --duration 60 --sizes no.csv -o T.parquet", "no.csv: cannot be read"),
        ("generate --rate 1 --duration 60 --sizes 8x8 -o T.txt", "unknown file type"),
        ("generate --rate 1e-9 --duration 1 --sizes 8x8 -o T.csv", "no request is left"),
        ("generate --rate 1 --duration 9 --sizes 8x8 --seed -1 -o T.csv", "seed is -1"),
        ("import gentd26 gentd26.csv --sizes 8x8 --limit 0 -o T.csv", "limit is 0"),
        ("import table gentd26.csv --set steps -o T.csv", "--set 'steps' is not like"),
        ("transform gentd26.csv --max-side 9 -o T.csv", "need --scale-sizes"),
    ],
)
def test_bad_input_is_one_line_and_no_file(line: str, message: str) -> None:
    before = set(Path().iterdir())
    with pytest.raises(BadInput) as caught:
        tilecast_trace(line)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert set(Path().iterdir()) == before


def test_help_does_not_wait_for_heavy_libraries() -> None:
    script = "import sys, cli.trace; print([name for name in ('pandas', 'numpy', 'scipy') if name in sys.modules])"
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_what_a_model_is_asked_for_needs_no_options() -> None:
    out = tilecast_trace("generate --rate 1 --duration 60 --model Wan2.2-A14B -o T.parquet")
    assert "as wan-2.2-a14b is asked where nobody says: sizes 720x1280x81, steps 40, guidance scale 4" in " ".join(
        out.split()
    )
    requests = Trace.load("T.parquet").requests()
    assert {(r.model, r.height, r.width, r.frames, r.steps) for r in requests} == {("wan-2.2-a14b", 720, 1280, 81, 40)}
    out = tilecast_trace("generate --rate 1 --duration 60 --model sdxl-turbo --sizes 64x64 --steps 2 -o T.parquet")
    assert "as sdxl-turbo is asked where nobody says: guidance scale 0" in " ".join(out.split())
    assert not any(request.guided for request in Trace.load("T.parquet"))
    assert "nobody says" not in tilecast_trace("generate --rate 1 --duration 9 --model mine --sizes 64x64 -o T.parquet")
    with pytest.raises(BadInput, match=r"unknown model 'mine'; known: "):
        tilecast_trace("generate --rate 1 --duration 9 --model mine -o T.parquet")
