"""cluster.decode reaches the real executor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from tests.cli.run_command import refused, run
from tests.tilecast.test_setup import SCENARIO, write_profile


def test_a_replay_decodes_as_the_scenario_says(tmp_path: Path) -> None:
    write_profile(tmp_path / "profile.parquet")
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    trace = ("--rate", 8, "--duration", 1, "--sizes", "192x160", "--steps", 2, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", tmp_path / "trace.parquet")
    pictures = {}
    for way in ("whole", "patched", "tiled"):
        given = ("--set", f"cluster.decode={way}", "--set", "cluster.threads=1", "--set", "trace.limit=2")
        run("replay", tmp_path / "scenario.toml", *given, "--save-images", "-o", tmp_path / way)
        files = sorted((tmp_path / way / "images").iterdir())
        pictures[way] = np.stack([Image.open(file) for file in files]).astype(int)
    assert len(pictures["whole"]) == 2
    assert np.abs(pictures["patched"] - pictures["whole"]).max() <= 1  # rounded to one of 256 levels
    assert np.abs(pictures["tiled"] - pictures["whole"]).max() > 8
    assert "cluster.decode" in refused(
        "replay", tmp_path / "scenario.toml", "--set", "cluster.decode=cut", "-o", tmp_path / "cut"
    )
