"""MixFusion (PPoPP '26) traces: CSV with ``arrival time(ms),resolution,steps``.

The resolution is the side of a square, in pixels.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from traces.columns import Cells, numbers
from traces.files import read_frame, require_columns
from traces.importers.imported import Imported, Sieve

COLUMNS = {"arrival_s": "arrival time(ms)", "height": "resolution", "width": "resolution", "steps": "steps"}


def import_mixfusion(path: Path, *, model: str = "", limit: int | None = None) -> Imported:
    """The trace in a MixFusion trace file; its clock is kept, but for times since 1970.

    Args:
        path: the file.
        model: what the requests ask for.
        limit: only the first arrivals.

    Raises:
        BadInput: an unreadable file, a missing column, a bad cell, or no row left.
    """
    source = str(path)
    table = read_frame(path)
    require_columns(table, tuple(COLUMNS.values()), source)
    sieve = Sieve(table, source)
    sieve.leave_out_empty({"arrival time(ms)": "arrival time", "resolution": "resolution", "steps": "steps"})
    cells = Cells(source, sieve.rows, COLUMNS)
    frame = pd.DataFrame({field: numbers(sieve.frame[column], field, cells) for field, column in COLUMNS.items()})
    frame = frame.assign(arrival_s=frame["arrival_s"] / 1000, model=model)
    sieve.note("resolution, rows kept", sieve.frame["resolution"])
    sieve.note_unused([name for name in table.columns if name not in COLUMNS.values()])
    return sieve.imported(frame, COLUMNS, limit)
