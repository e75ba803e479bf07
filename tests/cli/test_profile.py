"""``tilecast profile``: what it writes and prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from cli.profile import _cut_short, app
from predictors.profile import Profile
from traces.errors import BadInput
from traces.geometry import ModelGeometry

ROOT = Path(__file__).parents[2]
MIXED = "512 num, 768 num, 1024 num, avg unet time\n1,0,0,2.0\n1,0,0,2.2\n2,1,0,5.0\n0,0,3,9.0\n"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    for options, words in (
        (["--device", "cpu"], "--model is missing"),
        (["--model", "tiny-image"], "--output is missing"),
        (["--model", "m", "-o", "p", "--sizes", "512"], "--sizes: size '512' is not like '512x768'"),
        (["describe", str(tmp_path / "no.parquet")], "no such profile"),
        (["import", str(tmp_path / "x.csv"), "-o", "p"], "no such file"),
    ):
        with pytest.raises(BadInput, match=words):
            CliRunner().invoke(app, options, catch_exceptions=False)


def test_what_the_time_limit_left_out_is_said() -> None:
    rows = [
        ("denoise", f"{images}@512x512", repeat)
        for images, times in ((1, 5), (2, 2), (4, 1))
        for repeat in range(times)
    ]
    common = {"hardware": "cpu", "software": "torch", "model": "sd15", "executor": "whole", "guided": True, "steps": 2}
    frame = pd.DataFrame(rows, columns=["stage", "composition", "repeat"]).assign(**common, seconds=1.0)
    profile = Profile(frame.assign(computed=1.0, cached=False, devices=1, parallel=""))
    assert sorted(profile.repeats) == [1, 2, 5]
    assert _cut_short(profile, 5, 10.0) == (
        "the limit of 10 minutes cut the measurement short: 2 of 3 batches were measured 1 to 2 times instead of 5; "
        "--minutes 19 would do"
    )
    assert _cut_short(profile, 1, 10.0) == ""
    once = Profile(profile.frame[profile.frame["repeat"] == 0])
    assert _cut_short(once, 5, 0.0).endswith("3 of 3 batches were measured 1 time instead of 5")


def test_import_then_describe(tmp_path: Path) -> None:
    source, path = tmp_path / "unet_time_sdxl.csv", tmp_path / "h100.parquet"
    source.write_text(MIXED)
    result = CliRunner().invoke(app, ["import", str(source), "-o", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "4 measurements on NVIDIA H100 80GB" in result.output
    assert "note: the SDXL mixed table" in result.output
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["describe", str(path), "--all"], catch_exceptions=False)
    assert result.exit_code == 0
    for words in (
        "NVIDIA H100 80GB",
        "patched",
        "512x512",
        "1024x1024",
        "held out",
        "boosted",
        "median of repeats",
        "attainable",
        " 2-4 ",
    ):
        assert words in result.output
    assert re.search(r" \*(\d+\.\d|-) ", result.output)  # of the chosen latency model
    assert "[bold]" not in result.output


def test_describe_knows_the_geometry_in_the_profile(tmp_path: Path) -> None:
    row = {"hardware": "abacus", "software": "test", "model": "mine", "executor": "whole", "stage": "denoise"}
    row |= {"composition": "1@128x128", "guided": True, "steps": 4, "seconds": 0.1}
    geometry = json.dumps(asdict(ModelGeometry("mine", 8, 4, 8, (128, 128))))
    path = tmp_path / "p.parquet"
    Profile.from_frame(pd.DataFrame([row]), {"geometry": geometry}).save(path)
    result = CliRunner().invoke(app, ["describe", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "devices" not in result.output
    shared = row | {"devices": 2, "parallel": "cfg2", "seconds": 0.06}
    Profile.from_frame(pd.DataFrame([{**row, "devices": 1, "parallel": ""}, shared]), {"geometry": geometry}).save(path)
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["describe", str(path)], catch_exceptions=False)
    spoken = [line.split()[1:4] for line in result.output.splitlines() if line.startswith(" whole")]
    assert spoken[:2] == [["denoise", "1", "1"], ["denoise", "2", "1"]]


def test_describe_is_short_and_whole_in_a_narrow_terminal(tmp_path: Path) -> None:
    shipped, path = Profile.load(ROOT / "profiles/cpu-1core.parquet"), tmp_path / "p.parquet"
    Profile(shipped.frame[shipped.frame["stage"] == "denoise"], shipped.metadata).save(path)
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["describe", str(path)], catch_exceptions=False)
    lines = result.output.splitlines()
    assert "…" not in result.output
    assert max(map(len, lines)) <= 80
    assert sum("floor-gaussian" in line for line in lines) == 2  # a row for each stage of each executor
    assert "geometry" not in result.output


def test_help_is_quick_to_load() -> None:
    heavy = "{'sklearn', 'pandas', 'numpy', 'torch', 'scipy'}"
    code = f"import sys, cli.profile; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "describe" in result.output
