"""The kind of everything that benchmarks write, see `traces.output`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from traces.files import write_frame
from traces.marks import OutputKind

BENCHMARK = OutputKind("benchmark")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, in the place of none but one with the same columns."""
    write_frame(frame, path, OutputKind(BENCHMARK.name, columns=tuple(map(str, frame.columns))))
