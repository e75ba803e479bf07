"""``--kernels`` and ``cluster.kernels``: plain PyTorch, or what takes its place where the device can."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from predictors.profile import Profile
from tests.cli.run_command import refused
from tilecast.scenario import Scenario, load_scenario
from tilecast.setup import _unlike_the_profile
from traces.errors import BadInput

ROW = {"hardware": "abacus", "software": "test", "model": "mine", "executor": "whole", "stage": "denoise"}
ROW |= {"composition": "1@128x128", "guided": True, "steps": 4, "seconds": 0.1}


def measured_with(**metadata: str) -> Profile:
    return Profile.from_frame(pd.DataFrame([ROW]), metadata)


@pytest.mark.parametrize(
    ("asked", "ran", "said"),
    [
        ("auto", "fused, graphs", None),
        ("auto", "graphs", None),
        ("reference", "reference", None),
        ("reference", None, None),  # measured before there was a choice, or on a CPU, which has none
        ("auto", None, None),
        ("reference", "graphs", "cluster.kernels is reference, the profile was measured with graphs"),
        ("auto", "reference", "cluster.kernels is auto, the profile was measured with reference"),
    ],
)
def test_a_profile_of_other_kernels_is_said(asked: str, ran: str | None, said: str | None) -> None:
    profile = measured_with(**({} if ran is None else {"kernels": ran}))
    scenario = Scenario(model="mine", cluster={"kernels": asked})  # type: ignore[arg-type]
    assert _unlike_the_profile(scenario, profile) == ([] if said is None else [said])


def test_merged_profiles_say_what_the_first_was_measured_with() -> None:
    parts = [measured_with(), measured_with(kernels="fused, graphs"), measured_with(kernels="graphs")]
    assert Profile.merge(parts).metadata["kernels"] == "fused, graphs"


def test_unknown_kernels_are_refused(tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "s.toml").write_text('model = "mine"\n')
    line = refused("replay", tmp_path / "s.toml", "--kernels", "fast", "-o", tmp_path / "run")
    assert "cluster.kernels is 'fast'" in line
    assert "'auto' or 'reference'" in line
    line = refused("profile", "--model", model_folder, "--kernels", "fast", "-o", tmp_path / "p.parquet")
    assert line == "error: kernels is 'fast', expected one of auto, reference"
    with pytest.raises(BadInput, match=r"cluster\.kernels is 'plain'"):
        load_scenario(tmp_path / "s.toml", {"cluster.kernels": "plain"})
