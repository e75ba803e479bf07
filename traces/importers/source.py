"""Where a field of a request comes from in somebody's table."""

from __future__ import annotations

from dataclasses import dataclass

TIMES = ("arrival_s", "deadline_s", "slo_s")
UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
DATE = "date"
SIDES = ("height", "width")
PARTS = ("1", "2")
"""The first and the second number of text like 1024x768, each of them one side of a picture."""


@dataclass(frozen=True)
class Source:
    """Where a field comes from: a column, of a time its unit (of `UNITS`, or ``date``), of a side which of `PARTS`."""

    column: str
    unit: str = "s"
