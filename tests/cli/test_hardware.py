"""tilecast hardware, and scenarios on hardware that was not measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from policies.runlog import REPLAY, read_run
from predictors.efficiency import ENGINES
from predictors.hardware import PRECISIONS
from reports.comparison import Comparison
from tests.cli.run_command import either, refused, run
from tests.tilecast.test_setup import write_profile
from tilecast.recorded import keep_inputs
from tilecast.scenario import load_scenario
from tilecast.sections import Engine, Precision
from tilecast.setup import prepare
from traces.geometry import KNOWN_MODELS
from traces.output import Folder
from traces.sizes import format_size

ROOT = Path(__file__).parents[2]
SCENARIO = """
model = "tiny-image"
[trace]
path = "trace.parquet"
[predictor]
hardware = "mine.toml"
[slo]
scale = 4.0
"""
MINE = """
[mine]
name = "a fast one"
dtype = "float32"
float32_flops = 1e13
memory_bytes = 8e9
memory_bytes_per_s = 1e12
link_bytes_per_s = 1e10
source = "made up"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    (tmp_path / "mine.toml").write_text(MINE)
    trace = ("--rate", 2, "--duration", 10, "--sizes", "64x64:1,256x256:1", "--steps", 4, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", tmp_path / "trace.parquet")
    return tmp_path


def test_an_estimated_run_says_that_it_is(folder: Path) -> None:
    run("simulate", folder / "scenario.toml", "-o", folder / "run")
    done = read_run(folder / "run")
    assert done.info["predictor"]["basis"] == "ESTIMATED"
    assert done.info["predictor"]["latency_model"] == "roofline"
    assert done.info["hardware"] == "a fast one"
    assert not done.steps["extrapolated"].any()
    shown = Comparison.of([done])
    assert "ESTIMATED, roofline, executor whole" in {cell for row in shown.setup() for cell in row.cells}
    told = [note.text for note in shown.notes()]
    [said] = [text for text in told if "times are ESTIMATED" in text]
    assert said.startswith(
        "run: encode, denoise, decode: times are ESTIMATED from the data sheet of a fast one, not measured"
    )
    assert re.search(r"may be wrong by x/÷ 1\.\d\d \(80 %(, decode 1\.\d\d)?\)$", said)
    assert not any("all predictions lie within" in note for note in told)


@pytest.mark.parametrize("kind", ["h100-sxm", "l4"])
def test_the_uncertainty_that_is_told_is_that_of_the_total(kind: str) -> None:
    """Flux' text encoders are less certain than its steps, which nearly all of its time is."""
    said = run("hardware", "estimate", "--model", "flux", "--hardware", kind)
    [(low, high)] = re.findall(r" (\d+\.\d+)-(\d+\.\d+) ", said)
    [factor, less_certain] = re.findall(r"wrong by x/÷ ([\d.]+)\s+\(80\s+%,\s+([^)]*)\)", said)[0]
    assert float(factor) == pytest.approx((float(high) / float(low)) ** 0.5, abs=0.02)
    assert re.fullmatch(r"(en|de)code 1\.54", less_certain)


def test_a_calibrated_run_says_what_by_and_where_it_extrapolates(folder: Path) -> None:
    write_profile(folder / "profile.parquet")
    run("simulate", folder / "scenario.toml", "--profile", folder / "profile.parquet", "-o", folder / "run")
    done = read_run(folder / "run")
    assert done.info["predictor"]["basis"] == "CALIBRATED"
    assert done.steps["extrapolated"].any()  # 192x192 is the largest measured
    notes = [note.text for note in Comparison.of([done]).notes()]
    assert any("CALIBRATED, by measurements on a test, taken to be a fast one" in note for note in notes)
    assert any("outside the measured range" in note for note in notes)


def test_a_measured_run_is_labelled_so(folder: Path) -> None:
    write_profile(folder / "profile.parquet")
    text = (folder / "scenario.toml").read_text().replace('hardware = "mine.toml"', 'profile = "profile.parquet"')
    (folder / "scenario.toml").write_text(text)
    prepared = prepare(load_scenario(folder / "scenario.toml", {}))
    assert prepared.info("simulation")["predictor"]["basis"] == "MEASURED"
    assert prepared.warnings == []


def test_a_replay_keeps_what_its_estimate_came_from(folder: Path) -> None:
    prepared = prepare(load_scenario(folder / "scenario.toml", {}))
    kept = folder / "kept"
    kept.mkdir()
    keep_inputs(prepared, Folder(kept, REPLAY))
    assert {path.name for path in kept.iterdir()} == {"trace.parquet", "mine.toml"}


def test_decisions_of_an_estimated_replay_are_the_same_again(folder: Path) -> None:
    pytest.importorskip("torch")
    few = ("--rate", 4, "--duration", 1, "--sizes", "64x64", "--steps", 2, "--model", "tiny-image")
    run("trace", "generate", *few, "-o", folder / "few.parquet")
    given = (folder / "scenario.toml", "--trace", folder / "few.parquet", "--scheduler", "lookahead")
    either("replay", *given, "-o", folder / "real")  # what is estimated as fast may have to be dropped in fact
    run("simulate", *given, "-o", folder / "sim")
    printed = either("validate", folder / "sim", folder / "real", "-o", folder / "v.json")
    assert "same" in printed


def test_what_cannot_be_estimated_ends_in_one_line(folder: Path) -> None:
    scenario = folder / "scenario.toml"
    output = ("-o", folder / "run")
    line = refused("simulate", scenario, "--set", "predictor.hardware=l4s", *output)
    assert "unknown hardware 'l4s'; did you mean 'l40s'?" in line
    line = refused("simulate", scenario, "--set", "predictor.dtype=bfloat16", *output)
    assert "a fast one cannot run 'bfloat16', expected one of float32" in line
    line = refused("simulate", scenario, "--set", "world.latency_model=boosted", *output)
    assert "latency model 'boosted' is fitted to measurements; set predictor.profile" in line
    line = refused("simulate", scenario, "--set", "model=other", *output)
    assert "unknown model 'other'" in line
    (folder / "scenario.toml").write_text(SCENARIO.replace('hardware = "mine.toml"', ""))
    assert "predictor.hardware estimates (tilecast hardware list)" in refused("simulate", scenario, *output)


def test_the_catalogue_and_the_models_are_listed() -> None:
    listed, shown, models = run("hardware", "list"), run("hardware", "show", "l40s"), run("hardware", "models")
    assert "h100-sxm" in listed
    assert "mi300x" in listed
    assert "NVIDIA L40S GPU datasheet" in shown
    assert "memory_bytes = 4.8e+10" in shown
    assert "sdxl" in models
    assert "2.567" in models


def test_an_estimate_is_a_table_with_its_label(tmp_path: Path) -> None:
    asked = ("hardware", "estimate", "--model", "tiny-image", "--sizes", "64x64,192x192", "--batch", "1,9")
    printed = run(*asked, "--hardware", "cpu-1core")
    assert "64x64" in printed
    assert "compute" in printed
    assert "encode, denoise, decode: times are ESTIMATED" in printed.replace("\n", " ")
    write_profile(tmp_path / "p.parquet")
    printed = run(*asked, "--hardware", "cpu-1core", "--profile", tmp_path / "p.parquet")
    assert "CALIBRATED, by measurements on a test, taken to be AMD EPYC, 1 thread" in printed.replace("\n", " ")
    assert "yes" in printed  # nine images are more than were measured
    assert "--batch is '0'" in refused(*asked[:-1], "0", "--hardware", "cpu-1core")
    assert "--executor is 'odd'" in refused(*asked, "--hardware", "cpu-1core", "--executor", "odd")


def test_an_estimate_of_a_precision_and_an_engine_has_an_interval() -> None:
    asked = ("hardware", "estimate", "--model", "flux", "--sizes", "1024x1024", "--hardware", "h100-sxm")
    eager, compiled = run(*asked), run(*asked, "--engine", "compile", "--dtype", "fp8")
    assert "80 % interval" in eager
    assert "flux in fp8, compile, 28 steps" in compiled
    totals = [_row(printed)[4:6] for printed in (eager, compiled)]
    for total, interval in totals:
        low, high = map(float, interval.split("-"))
        assert low < float(total) < high
    assert float(totals[1][0]) < float(totals[0][0])
    line = refused(*asked[:-1], "a100-80gb", "--dtype", "fp8")
    assert "NVIDIA A100 SXM 80GB cannot run 'fp8', expected one of bfloat16, float16, float32, tf32, int8" in line
    assert "unknown engine 'abacus'; known: eager, compile, vendor" in refused(*asked, "--engine", "abacus")


def _row(printed: str) -> list[str]:
    return next(line.split() for line in printed.splitlines() if line.strip().startswith("1024x1024"))[1:]


def test_an_estimate_by_the_degree_names_how_and_what_bounds() -> None:
    asked = ("hardware", "estimate", "--model", "flux", "--hardware", "h100-sxm", "--engine", "compile")
    printed = run(*asked, "--devices", "1,2,5", "--guided")
    rows = {cells[2]: cells for line in printed.splitlines() if len(cells := line.split()) == 12 and cells[0][0] == "1"}
    assert {degree: cells[3] for degree, cells in rows.items()} == {"1": "-", "2": "cfg2", "5!": "ulysses5"}
    assert rows["1"][6] == "1.00"
    assert 1.5 < float(rows["2"][6]) <= 2.0
    assert rows["2"][10] == "devices"
    low, high = map(float, rows["2"][5].split("-"))
    assert low < float(rows["2"][4]) < high
    assert "devices: times on 2, 3, 4 are ESTIMATED from those on one" in run(*asked, "--devices", "4")
    assert "--devices is '0'" in refused(*asked, "--devices", "0")


def test_a_scenario_may_name_what_there_is() -> None:
    assert get_args(Precision) == tuple(PRECISIONS)
    assert get_args(Engine) == ENGINES


def test_a_scenario_names_its_precision_and_engine(folder: Path) -> None:
    (folder / "scenario.toml").write_text(SCENARIO.replace('"mine.toml"', '"l4"'))
    asked = ("simulate", folder / "scenario.toml", "-o", folder / "run")
    run(*asked, "--set", "predictor.engine=vendor", "--set", "predictor.dtype=int8")
    line = refused(*asked, "--set", "predictor.dtype=fp4")
    assert "NVIDIA L4 24GB cannot run 'fp4', expected one of bfloat16, " in line
    assert "predictor.engine" in refused(*asked, "--set", "predictor.engine=abacus")


def test_published_measurements_of_ones_own_are_checked(tmp_path: Path) -> None:
    lines = (ROOT / "profiles" / "published.csv").read_text().splitlines()
    mine = tmp_path / "mine.csv"
    wanted = [line for line in lines[1:] if ",l20,1,,FLUX.1-dev," in line]
    mine.write_text("\n".join([lines[0], *wanted]) + "\n")
    printed = run("hardware", "check", "--published", mine, "--by", "hardware,engine")
    assert "cached" in printed
    row = next(line.split() for line in printed.splitlines() if line.strip().startswith("l20"))
    assert row[1] == "eager"
    assert float(row[3]) < 40
    assert "-device" not in printed
    assert "several devices, " not in printed
    line = refused("hardware", "check", "--published", mine, "--by", "weather")
    assert "--by has 'weather', expected some of source, commit" in line
    mine.write_text("\n".join([lines[0], wanted[0].replace(",24.85,", ",fast,")]) + "\n")
    assert "mine.csv: row 2 counting the header: seconds: input should be a valid number" in refused(
        "hardware", "check", "--published", mine
    )


def test_published_measurements_of_several_devices_are_checked(tmp_path: Path) -> None:
    lines = (ROOT / "profiles" / "published.csv").read_text().splitlines()
    mine = tmp_path / "mine.csv"
    mine.write_text("\n".join([lines[0], *(line for line in lines if line.startswith("SJTU-Liquid/GF-DiT"))]) + "\n")
    printed = run("hardware", "check", "--published", mine)
    assert re.search(r"qwen-image +1536x1536x1 +vendor +2 4 +1\.77 3\.36 +\d\.\d\d \d\.\d\d +4 4", printed)
    assert "6 on several devices, 3 configurations; predicted by what ships" in printed
    assert "right in 3 of 3" in printed


def test_every_model_is_estimated_with_no_more_than_its_name_and_a_device() -> None:
    counted = [name for name in KNOWN_MODELS if name != "tiny-video"]
    for model in counted:
        printed = run("hardware", "estimate", "--model", model, "--hardware", "h100-sxm")
        defaults = KNOWN_MODELS[model].defaults
        assert format_size(defaults.size) in printed
        assert f"{defaults.steps} steps, {'two rows' if defaults.guided else 'one row'} an image" in printed
    listed = run("hardware", "models")
    assert all(f"\n{name} " in listed or f" {name} " in listed for name in counted)


def test_a_model_is_called_by_any_of_its_names() -> None:
    asked = ("hardware", "estimate", "--hardware", "h100-sxm", "--model")
    assert run(*asked, "FLUX.1-dev") == run(*asked, "flux")
    assert "unknown model 'flux.1-def'; did you mean" in refused(*asked, "flux.1-def")


def test_estimates_need_no_torch(folder: Path) -> None:
    code = (
        "import sys; sys.modules.update(torch=None, diffusers=None, transformers=None); "
        "sys.argv = ['tilecast', 'simulate', sys.argv[1], '-o', sys.argv[2]]; from cli.main import main; main()"
    )
    arguments = [sys.executable, "-c", code, str(folder / "scenario.toml"), str(folder / "run")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_run(folder / "run").info["predictor"]["basis"] == "ESTIMATED"
