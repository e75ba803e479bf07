"""True CFG is predicted at twice the work, and what a model does not heed is said."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from policies.runlog import read_run
from predictors.profile import PROFILE, Profile
from tests.cli.run_command import run
from tests.tilecast.test_setup import write_profile


def simulated(folder: Path, model: str, **columns: object) -> tuple[pd.DataFrame, str]:
    """The requests of a run on estimated hardware, and its warnings."""
    (folder / "s.toml").write_text(f'model = "{model}"\n[predictor]\nhardware = "h100-sxm"\n')
    frame = pd.DataFrame({"arrival_s": [0.0, 99.0], "height": 1024, "width": 1024, "steps": 20} | columns)
    frame.to_csv(folder / "t.csv", index=False)
    run("simulate", folder / "s.toml", "--trace", folder / "t.csv", "-o", folder / "run")
    found = read_run(folder / "run")
    return found.requests, "\n".join(found.info["warnings"])


def test_true_cfg_takes_twice_as_long(tmp_path: Path) -> None:
    requests, warnings = simulated(
        tmp_path,
        "flux",
        negative_prompt=["blue", ""],
        true_cfg_scale=[4.0, None],
        guidance_scale=3.5,
        height=2048,
        width=2048,
    )  # fmt: skip - so large that starting kernels is no floor
    guided_s, plain_s = requests["standalone_s"]
    assert 1.8 < guided_s / plain_s < 2.1
    assert "has no effect" not in warnings


def test_a_model_without_true_cfg_says_so(tmp_path: Path) -> None:
    requests, warnings = simulated(tmp_path, "sdxl", true_cfg_scale=4.0, negative_prompt="blue", strength=0.5)
    assert "true_cfg_scale of 2 requests has no effect: sdxl is guided by a guidance_scale above 1 alone" in warnings
    assert "strength of 2 requests has no effect: sdxl is not known to be image to image" in warnings
    assert "negative_prompt" not in warnings
    first, second = requests["standalone_s"]
    assert first == second


@pytest.mark.parametrize(("version", "guided"), [("1", False), ("2", True)])
def test_profiles_from_before_are_read_as_they_were_run(version: str, guided: bool, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_profile(path, "flux")
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[PROFILE.key])
    assert facts["schema"] == "2"
    written = {PROFILE.key: json.dumps({**facts, "schema": version}).encode()}
    pq.write_table(table.replace_schema_metadata(written), path)
    assert Profile.load(path).frame["guided"].eq(guided).all()
