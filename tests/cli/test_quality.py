"""``tilecast quality``: files in, a table and JSON out, one line for what cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.cli.run_command import refused, run


@pytest.fixture
def pictures(tmp_path):
    """A run with a good picture and a seamed one, and what both should look like."""
    plain = np.full((96, 96, 3), 100, np.uint8)
    seamed = plain.copy()
    seamed[:, 48:] += 20
    for folder, second in (("run/images", seamed), ("reference", plain)):
        (tmp_path / folder).mkdir(parents=True)
        for name, picture in (("000000", plain), ("000001", second)):
            Image.fromarray(picture).save(tmp_path / folder / f"{name}.png")
    return tmp_path


def test_a_run_against_its_reference(pictures):
    output = pictures / "quality.json"
    printed = run("quality", pictures / "run", pictures / "reference", "--columns", "48", "-o", output)
    assert "PSNR" in printed
    assert f"wrote {output}" in printed.replace("\n", "")
    figures = json.loads(output.read_text())["pictures"]
    assert figures["000000"]["largest_difference"] == 0
    assert figures["000000"]["seam_energy"] == 1
    assert figures["000001"]["seam_energy"] == pytest.approx(21)
    assert figures["000001"]["psnr_db"] == pytest.approx(20 * np.log10(255 / 20) + 10 * np.log10(2), abs=1e-3)


def test_without_borders_they_are_searched_for(pictures):
    output = pictures / "quality.json"
    run("quality", pictures / "run" / "images" / "000001.png", "--objects", "0", "-o", output)
    (figures,) = json.loads(output.read_text())["pictures"].values()
    assert figures["seams_at"] == "columns 48"
    assert figures["psnr_db"] is None


def test_what_cannot_be_used_ends_in_one_line(pictures):
    assert "no such file" in refused("quality", pictures / "nowhere")
    for wrong in ("a,b", "8,,16", "-8", "8.0", "1_6", ""):
        assert "whole number" in refused("quality", pictures / "run", f"--rows={wrong}")
    assert "1..95" in refused("quality", pictures / "run", "--rows", "96")
    assert not (pictures / "quality.json").exists()


def test_it_needs_no_torch(pictures):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['diffusers'] = None\n"
        "from reports.quality.report import QualityReport\n"
        "from pathlib import Path\n"
        "print(len(QualityReport.of(Path(sys.argv[1])).qualities))"
    )
    done = subprocess.run([sys.executable, "-c", code, pictures / "run"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"
