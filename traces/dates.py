"""Dates in a column, as seconds."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from traces.columns import Cells
from traces.exact import is_missing, number_of

A_DATE = "a date like '2024-11-15 16:57:50'"
_WRITTEN = re.compile(
    r"\d{4}(?:-\d{1,2}-\d{1,2}|/\d{1,2}/\d{1,2}|\d{4})"
    r"(?:[Tt ]\d{1,2}(?::?\d\d(?::?\d\d(?:\.\d+)?)?)? *([Zz]|[+-]\d\d(?::?\d\d)?)?)?"
)
"""A whole date with or without a time of day and its zone: not a month, nor a word like ``now``."""
_OF_ACCESS_LOGS = re.compile(r"(\d{1,2})/([A-Za-z]{3})/(\d{4}):(\d\d:\d\d:\d\d(?:\.\d+)?)(?: ([+-]\d{4}))?")
"""As nginx and Apache write them: ``02/Nov/2026:09:30:00 +0100``."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_UTC = ("Z", "z", "+00:00", "+0000", "+00")
_YEARS = (1678, 2261)  # which nanoseconds since 1970 reach in 64 bits


def is_date(value: object) -> bool:
    """Whether a cell is a whole date, and no number."""
    if isinstance(value, str):
        return _WRITTEN.fullmatch(_iso(value)) is not None and is_missing(number_of(value))
    return isinstance(value, date) and not is_missing(value)


def _iso(text: str) -> str:
    """A date as ISO 8601 writes it, if it is one of an access log, and without the brackets that Apache puts around."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    match = _OF_ACCESS_LOGS.fullmatch(text)
    if match is None or match[2].lower() not in _MONTHS:
        return text
    day, month, year, time, zone = match.groups(default="")
    return f"{year}-{_MONTHS.index(month.lower()) + 1:02}-{int(day):02}T{time}{zone}"


def seconds_since_1970(values: pd.Series[Any], field: str, cells: Cells) -> pd.Series[Any]:
    """Dates (ISO 8601 or those of access logs, UTC where no zone is given and no row has another one) as seconds, NaN
    where empty.

    Raises:
        BadInput: the first cell that is no whole date, or the first without a time zone where others have one.
    """
    zones: list[str] = []
    written = values
    if values.dtype.kind != "M":
        for position, value in enumerate(values.tolist()):
            match = _WRITTEN.fullmatch(_iso(value)) if isinstance(value, str) else None
            if not (match or isinstance(value, date) or is_missing(value)):
                raise cells.bad(position, field, value, A_DATE)
            zones.append((match[1] or "") if match else "")
        values = values.astype(object).map(lambda value: _iso(value) if isinstance(value, str) else value)
    parsed = pd.to_datetime(values, format=None if values.dtype.kind == "M" else "ISO8601", utc=True, errors="coerce")
    years = parsed.dt.year
    wrong = (parsed.isna() & values.notna()) | (years < _YEARS[0]) | (years > _YEARS[1])
    if wrong.any():
        position = int(np.argmax(wrong.to_numpy()))
        raise cells.bad(position, field, written.iloc[position], A_DATE)
    if set(zones) - {"", *_UTC}:
        bare = next((at for at in np.flatnonzero(values.notna()).tolist() if not zones[at]), None)
        if bare is not None:
            raise cells.bad(bare, field, written.iloc[bare], "a time zone, like Z or +02:00, as other rows have")
    return (parsed - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
