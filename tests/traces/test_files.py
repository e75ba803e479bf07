"""Tables in files that somebody else writes meanwhile."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pandas as pd

from tests.traces.test_writers import PACKAGES, ROOT
from traces.files import read_table, write_frame
from traces.trace import TRACE


def test_a_table_that_is_replaced_meanwhile_reads_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frames = [pd.DataFrame({"a": range(rows), "b": [str(row) * rows for row in range(rows)]}) for rows in (3, 400)]
    write_frame(frames[0], path, TRACE)
    over = threading.Event()

    def replace() -> None:
        while not over.is_set():
            for frame in frames:
                write_frame(frame, path, TRACE)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        found = [read_table(path).to_pandas() for _ in range(200)]
    finally:
        over.set()
        writer.join()
    assert all(any(table.equals(frame) for frame in frames) for table in found)


def test_no_module_opens_a_table_by_its_path() -> None:
    """Which pyarrow and pandas open twice: for what is in it, and for its rows."""
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    opened = re.compile(r"\bpq\.(read_table|ParquetFile)\(path|\.read_parquet\(")
    found = [str(path.relative_to(ROOT)) for path in sources if opened.search(path.read_text(encoding="utf-8"))]
    assert found == ["benchmarks/golden.py"]  # of two runs that are over
