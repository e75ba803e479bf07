"""Importing the published H100 tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictors.importers.formats import import_measurements
from predictors.importers.mixfusion import import_mixfusion
from predictors.profile import Profile
from traces.errors import BadInput


def test_published_tables(published: Profile) -> None:
    assert published.hardware == "NVIDIA H100 80GB"
    assert published.models == ("sd3", "sdxl")
    counts = published.frame.groupby(["model", "executor", "stage"]).size().to_dict()
    assert counts == {
        ("sd3", "patched", "denoise"): 216,
        ("sd3", "whole", "denoise"): 30,
        ("sd3", "whole", "decode"): 30,
        ("sdxl", "patched", "denoise"): 221,
        ("sdxl", "whole", "denoise"): 30,
        ("sdxl", "whole", "decode"): 30,
    }
    assert "patch cache" in published.metadata["warning"]


def test_rows_become_measurements(tmp_path: Path) -> None:
    mixed = tmp_path / "unet_time_sd3.csv"
    mixed.write_text("512 num, 768 num, 1024 num, avg unet time\n8,1,0,11.0\n8,1,0,12.0\n")
    whole = tmp_path / "sm_util_sd3_768.csv"
    whole.write_text("sm util, unet time, post time\n10,3.0,0.07\n10,4.3,0.12\n")
    frame = import_mixfusion([mixed, whole]).frame
    rows = frame[["executor", "stage", "composition", "steps", "repeat", "seconds"]].to_numpy().tolist()
    assert sorted(rows) == [
        ["patched", "denoise", "8@512x512+1@768x768", 50, 0, 11.0],
        ["patched", "denoise", "8@512x512+1@768x768", 50, 1, 12.0],
        ["whole", "decode", "1@768x768", 1, 0, 0.07],
        ["whole", "decode", "2@768x768", 1, 0, 0.12],
        ["whole", "denoise", "1@768x768", 50, 0, 3.0],
        ["whole", "denoise", "2@768x768", 50, 0, 4.3],
    ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "unet_time_sd9.csv",
            "512 num,avg unet time\n1,2\n",
            "of a model that is known \\('sd9'\\); --model says which",
        ),
        ("mine.csv", "512 num,avg unet time\n1,2\n", "does not say the model; give --model NAME"),
        ("sm_util_sd3.csv", "unet time,post time\n1,2\n", "does not say the model, size; give --model NAME; --size"),
        ("unet_time_sd3.csv", "", "the file is empty"),
        (
            "unet_time_sd3.csv",
            "512 num,768 num,unet\n1,0,2\n",
            "has no form that is known .columns '512 num', '768 num', 'unet'",
        ),
        ("unet_time_sd3.csv", "num,avg unet time\n1,2\n", "no column '512 num'"),
        ("unet_time_sd3.csv", "512 num,avg unet time\n1.5,2\n", "row 2 counting the header: 512 num is 1.5, exp"),
        ("sm_util_sd3_512.csv", "unet time,post time\n", "no rows"),
        ("sm_util_sd3_512.csv", "unet time,post time\n1,2\nx,2\n", "row 3 counting the header: unet time is 'x'"),
        (
            "unet_time_sd3.csv",
            "512 num,768 num,1024 num,avg unet time\n0,0,0,2\n",
            "row 2 counting the header: 512 num, 768 num, 1024 num are all 0",
        ),
        (
            "sm_util_sd3_512.csv",
            "unet time,post time\n1,2\n1,1e999\n",
            "row 3 counting the header: post time is inf, expected a number above 0",
        ),
        ("sm_util_sd3_512.csv", "unet time,post time\n1,True\n", "row 2 counting the header: post time is 'True'"),
        ("sm_util_sd3_512.csv", "unet time,post time\n1,2\n1\n", "row 3 counting the header has 1 fields, expected 2"),
        ("sm_util_sd3_512.csv", "unet time,post time,unet time\n1,2,3\n", "'unet time' is there twice"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=words) as caught:
        import_measurements([tmp_path / name])
    assert name in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"unet_time_sd3\.csv: no such file"):
        import_mixfusion([tmp_path / "unet_time_sd3.csv"])
    with pytest.raises(BadInput, match="no files"):
        import_mixfusion([])
