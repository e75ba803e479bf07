"""What an importer hands back: the trace, and an account of every row of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from traces.clock import SINCE_1970_S, format_start, on_run_clock
from traces.errors import BadInput
from traces.exact import is_missing
from traces.trace import Trace
from traces.unused import without_effect


@dataclass(frozen=True)
class ImportReport:
    """The rows of an imported file: read = used + those left out, by reason.

    Attributes:
        source: the file.
        read: data rows in the file.
        used: requests in the trace.
        left_out: rows left out, by reason; the first reason that holds counts.
        notable: further counts by title and value ("status of rows read": {"FAILED": 253, ...}).
        notes: what a reader must know, in sentences.
    """

    source: str
    read: int
    used: int
    left_out: dict[str, int] = field(default_factory=dict)
    notable: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        accounted = self.used + sum(self.left_out.values())
        if accounted != self.read:
            raise ValueError(f"{self.read} rows read, but {accounted} accounted for")


@dataclass(frozen=True)
class Imported:
    """An imported trace with its report."""

    trace: Trace
    report: ImportReport


class Sieve:
    """Takes rows out of a frame and remembers why.

    ``rows`` are the file's data rows (from 1) of the rows of ``frame`` that are still in.
    """

    def __init__(self, frame: pd.DataFrame, source: str) -> None:
        self.source = source
        self.frame = frame.reset_index(drop=True)
        self.read = len(frame)
        self.left_out: dict[str, int] = {}
        self.notable: dict[str, dict[str, int]] = {}

    @property
    def rows(self) -> Sequence[int]:
        """The data row in the file of each row still in."""
        return (self.frame.index.to_numpy() + 1).tolist()

    def leave_out(self, mask: pd.Series[bool], reason: str) -> None:
        """Take out the rows where ``mask`` is true."""
        count = int(mask.sum())
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count
            self.frame = self.frame[~mask]

    def leave_out_empty(self, columns: Mapping[str, str]) -> None:
        """Take out the rows with an empty cell in one of ``columns`` (column: what to call it)."""
        for column, name in columns.items():
            self.leave_out(self.frame[column].isna(), f"no {name}")

    def note(self, title: str, values: Any) -> None:
        """Count ``values`` by value under ``title``."""
        counts = pd.Series(values).value_counts(dropna=False).items()
        self.notable[title] = {_shown(value): int(count) for value, count in counts}

    def note_unused(self, columns: Sequence[str]) -> None:
        """Name the columns of the file that the trace does not hold, with their filled cells."""
        unused = {name: int(self.frame[name].notna().sum()) for name in columns}
        if unused:
            self.notable["columns not used (filled cells)"] = unused

    def imported(
        self,
        frame: pd.DataFrame,
        columns: Mapping[str, str],
        limit: int | None = None,
        start_s: float = 0.0,
        said: Sequence[str] = (),
    ) -> Imported:
        """The trace of ``frame`` (one row for each row still in), cut to the first ``limit`` arrivals.

        Times since 1970 are counted from the first arrival; ``start_s`` seconds were taken off before, and ``said``
        is known of the file already.

        Raises:
            BadInput: no row is left, a bad limit, or a bad cell.
        """
        if limit is not None and limit < 1:
            raise BadInput(f"limit is {limit}, expected a whole number of at least 1")
        if not len(frame):
            why = "; ".join(f"{reason}: {count}" for reason, count in self.left_out.items())
            raise BadInput(f"{self.source}: all {self.read} rows are left out ({why})")
        trace = Trace.from_frame(frame, self.source, rows=self.rows, columns=columns)
        late = _late_rows(pd.to_numeric(frame["arrival_s"]))
        trace, first_s = on_run_clock(trace, SINCE_1970_S)
        notes = [*said, *([format_start(first_s or start_s)] if first_s or start_s else [])]
        if late:
            column = columns.get("arrival_s", "arrival_s")
            notes.append(
                f"{late} of {len(frame)} rows were not in the order of column {column!r} and have been sorted: it must "
                "say when requests came, and not how long they took"
            )
        if unused := without_effect(trace.frame):
            notes.append(unused)
        left_out = dict(self.left_out)
        if limit is not None and limit < len(trace):
            left_out[f"beyond the first {limit} arrivals"] = len(trace) - limit
            trace = trace.head(limit)
        account = (self.source, self.read, len(trace), left_out, dict(self.notable), tuple(notes))
        return Imported(trace, ImportReport(*account))


def _shown(value: object) -> str:
    if is_missing(value):
        return "(empty)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _late_rows(arrival_s: pd.Series[Any]) -> int:
    """How many rows of a file stand behind one that arrived later."""
    return int((arrival_s < arrival_s.cummax()).sum())


def spread_ties(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole-second times (sorted), those of equal seconds moved to uniform random points within their second.

    The result is sorted and keeps the order of the rows; a time that stands alone stays.
    """
    _, group, size = np.unique(times, return_inverse=True, return_counts=True)
    offsets = rng.random(len(times))
    offsets = offsets[np.lexsort((offsets, group))]
    return times + np.where(size[group] > 1, offsets, 0.0)
