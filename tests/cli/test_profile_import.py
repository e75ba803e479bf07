"""``tilecast profile import``: every form of file becomes a profile that a simulation runs on."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from predictors.profile import Profile
from tests.cli.run_command import refused, run
from tests.predictors.reported_files import EXAMPLES, PUBLISHED, SGLANG, Example

SCENARIO = """
model = "{model}"
[trace]
path = "trace.csv"
[predictor]
profile = "p.parquet"
latency_model = "linear"
[slo]
scale = 5.0
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_a_simulation_runs_on_what_was_imported(example: Example, tmp_path: Path) -> None:
    example.write(tmp_path)
    printed = run("profile", "import", example.name, *example.command, "-o", "p.parquet")
    assert "measurements on" in printed
    height, width, frames = example.size
    (tmp_path / "trace.csv").write_text(
        "arrival_s,height,width,frames,steps\n"
        + "".join(f"{100 * n},{height},{width},{frames},{example.steps}\n" for n in range(3))
    )
    (tmp_path / "sc.toml").write_text(SCENARIO.format(model=example.model))
    printed = run("simulate", "sc.toml", "-o", "run")
    assert "3 of 3 requests in time" in printed
    info = json.loads((tmp_path / "run/run.json").read_text())
    note = Profile.load(tmp_path / "p.parquet").metadata.get("note", "")
    assert [said for said in info["warnings"] if "the profile's own note" in json.dumps(said)] == (
        [f"the profile's own note: {note}"] if note else []
    )
    assert bool(info["predictor"]["divided"]) == ("whole requests were measured, not each" in note)
    requests = pd.read_parquet(tmp_path / "run/requests.parquet")
    spent = requests["finish_s"] - requests["arrival_s"]
    assert spent.tolist() == pytest.approx([example.whole_s] * 3, rel=0.15)


def test_what_is_missing_is_asked_for_in_one_line(tmp_path: Path) -> None:
    EXAMPLES["vllm-omni"].write(tmp_path)
    line = refused("profile", "import", "vllm.json", "-o", "p.parquet")
    assert "vllm.json does not say the hardware, size, steps, batch; give --hardware NAME" in line
    assert not Path("p.parquet").exists()


def test_rows_are_chosen(tmp_path: Path) -> None:
    other = "a page,Abacus 9,1,none,flux.1-dev,1024,1024,1,20,1,fp8,beads,latency_s,7.0,made up\n"
    lines = (PUBLISHED + other).splitlines()
    (tmp_path / "r.csv").write_text(
        "".join(f"{line},{'colour' if at == 0 else 'blue'}\n" for at, line in enumerate(lines))
    )
    line = refused("profile", "import", "r.csv", "-o", "p.parquet")
    assert "7 rows differ in precision ('bf16', 'fp8')" in line
    assert "--where precision=bf16 (6 rows)" in line
    printed = run("profile", "import", "r.csv", "--where", "precision=fp8", "--where", "batch=1", "-o", "p.parquet")
    assert "p.parquet: 1 measurements on Abacus 9" in printed
    assert "note: whole requests were measured" in printed
    assert "columns that have no effect: colour" in printed
    for wrong in ("precision", "=x", ""):
        assert "is not like 'engine=eager'" in refused(
            "profile", "import", "r.csv", "--where", wrong, "-o", "q.parquet"
        )
    line = refused("profile", "import", "r.csv", "--where", "gpus=1", "--where", "gpus=2", "-o", "q.parquet")
    assert "once a name" in line
    assert not Path("q.parquet").exists()


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    EXAMPLES["sglang"].write(tmp_path)
    base = ("profile", "import", "perf.json", "--hardware", "gpu", "-o", "p.parquet")
    for options, words in (
        (("--size", "wide"), "--size: size 'wide' is not like"),
        (("--size", "64x64,128x128"), "expected one size"),
        (("--size", "64x999999"), "expected sides of a whole number of 1 to 65,536 pixels"),
        (("--size", "480x832x81", "--model", "nothing"), "unknown model 'nothing'"),
        (("--size", "480x832x81", "--format", "csv"), "unknown format 'csv'"),
        (("--size", "480x832x81", "--format", "mlperf"), "no line 'MLPerf Results Summary'"),
        (("--size", "480x832x81", "--batch", "0"), "--batch is 0"),
    ):
        assert words in refused(*base, *options)
    assert not Path("p.parquet").exists()


def test_profiles_are_added(tmp_path: Path) -> None:
    EXAMPLES["sglang"].write(tmp_path)
    (tmp_path / "small.json").write_text(json.dumps(SGLANG | {"request_id": "s"}))
    words = ("--hardware", "h100-sxm", "-o")
    run("profile", "import", "perf.json", "--size", "480x832x81", *words, "a.parquet")
    run("profile", "import", "small.json", "--size", "240x416x81", "--add", "a.parquet", *words, "b.parquet")
    profile = Profile.load(tmp_path / "b.parquet")
    assert sorted(set(profile.frame["composition"])) == ["1@240x416x81", "1@480x832x81"]
    assert len(profile.frame) == 6
    line = refused("profile", "import", "small.json", "--size", "64x64", "--add", "a.parquet", *words, "a.parquet")
    assert "a.parquet" in line
    other = ("--hardware", "abacus", "--size", "64x64")
    line = refused("profile", "import", "small.json", "--add", "a.parquet", *other, "-o", "c.parquet")
    assert "hardware is 'abacus' and 'h100-sxm'" in line


def test_no_input_is_replaced(tmp_path: Path) -> None:
    path = EXAMPLES["published"].write(tmp_path)
    assert "results.csv" in refused("profile", "import", "results.csv", "-o", "results.csv")
    assert path.read_text() == PUBLISHED
