"""The catalogue of what others measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from predictors.hardware import PRECISIONS, shipped_hardware
from predictors.published import Published, load_published, shipped_published
from traces.errors import BadInput

ROW = {
    "source": "someone/benchmarks results.md",
    "commit": "abc1234",
    "date": "2025-02",
    "licence": "MIT",
    "hardware": "l4",
    "devices": "1",
    "parallelism": "",
    "checkpoint": "SDXL base 1.0",
    "model": "sdxl",
    "height": "1024",
    "width": "1024",
    "frames": "1",
    "steps": "30",
    "batch": "2",
    "guided": "true",
    "precision": "float16",
    "engine": "compile",
    "software": "max-autotune",
    "measures": "request",
    "seconds": "12.5",
    "remarks": "size-inferred approximate",
}


def written(path: Path, *rows: dict[str, str]) -> Path:
    lines = [",".join(ROW), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_ships_is_told_from_its_sources() -> None:
    rows = shipped_published()
    assert len(rows) > 700
    assert len({row.repository for row in rows}) >= 10
    assert all(row.commit for row in rows)
    assert {row.engine for row in rows} == {"eager", "compile", "vendor"}
    assert {row.precision for row in rows if not row.skipped} <= set(PRECISIONS)
    assert {row.hardware for row in rows if not row.skipped} <= set(shipped_hardware())
    reasons = Counter(row.skipped for row in rows)
    assert {"several devices", "cached", "tiled", "steps not stated", "size not stated"} <= set(reasons)


def test_a_row_is_read(tmp_path: Path) -> None:
    (row,) = load_published(written(tmp_path / "mine.csv", ROW))
    assert (row.size, row.batch, row.seconds, row.guided) == ((1024, 1024, 1), 2, 12.5, True)
    assert row.remarks == {"size-inferred", "approximate"}
    assert row.repository == "someone/benchmarks"
    assert not row.skipped


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"devices": "2"}, "several devices"),
        ({"remarks": "cached approximate"}, "cached"),
        ({"measures": "image-encode"}, "an image to latents: no stage of a request here"),
        ({"hardware": "abacus"}, "hardware abacus"),
        ({"model": "other"}, "model other"),
        ({"precision": "posit"}, "precision posit"),
        ({"precision": "fp8", "hardware": "t4"}, "precision fp8 on t4"),
        ({"width": ""}, "size not stated"),
        ({"steps": ""}, "steps not stated"),
        ({"steps": "", "measures": "step"}, ""),
    ],
)
def test_what_cannot_be_compared_says_why(change: dict[str, str], reason: str) -> None:
    assert Published.of(ROW | change).skipped == reason


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seconds": "0"}, "row 3 counting the header: seconds: input should be greater than 0"),
        ({"batch": "two"}, "row 3 counting the header: batch: input should be a valid integer"),
        ({"engine": "abacus"}, "row 3 counting the header: engine: input should be 'eager', 'compile' or 'vendor'"),
        ({"remarks": "nice"}, "row 3 counting the header: remarks: 'nice' is no remark, expected some of cached, "),
        ({"date": "May 2025"}, "row 3 counting the header: date: string should match pattern"),
        ({"notes": "more"}, "row 3 counting the header has 22 fields, expected 21"),
    ],
)
def test_a_wrong_row_is_refused_with_its_field(tmp_path: Path, change: dict[str, str], problem: str) -> None:
    path = written(tmp_path / "mine.csv", ROW, ROW | change)
    with pytest.raises(BadInput) as refused:
        load_published(path)
    assert f"{path}: {problem}" in str(refused.value)


def test_a_file_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("source,commit\nsomeone,abc\n")
    with pytest.raises(BadInput, match=r"mine\.csv: no column 'date'; the file has: source, commit"):
        load_published(path)
