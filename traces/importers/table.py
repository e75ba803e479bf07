"""Any table (CSV, Parquet, JSON) whose columns are named by the user."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from traces.clock import SINCE_1970_S, unit_since_1970
from traces.columns import DTYPES, ON_A_CLOCK, REQUIRED, TEXT, Cells, numbers
from traces.dates import A_DATE, is_date, seconds_since_1970
from traces.errors import BadInput, did_you_mean
from traces.exact import number_of, since
from traces.files import SEPARATED_BY, flattened, read_frame, require_columns
from traces.importers.imported import Imported, Sieve
from traces.importers.proposal import TWO_SIDES, hint
from traces.importers.source import DATE, PARTS, SIDES, TIMES, UNITS, Source
from traces.limits import INSTANT

_EXCEL_DAYS = (20_000, 80_000)  # 1954 to 2119


def parse_mapping(pairs: Sequence[str]) -> dict[str, Source]:
    """The mapping spelled ``field=column``, one a text.

    A time may have its unit (``arrival_s=ts:ms``), and a side may be one of two numbers (``width=size:1`` of 1024x768).

    Raises:
        BadInput: another spelling, an unknown field, a field twice, or a unit on what is no time.
    """
    mapping: dict[str, Source] = {}
    for pair in pairs:
        field, equals, column = pair.partition("=")
        if not (equals and column):
            raise BadInput(f"mapping {pair!r} is not like 'arrival_s=timestamp' or 'arrival_s=timestamp:ms'")
        if field not in DTYPES:
            raise BadInput(f"mapping {pair!r}: unknown field {field!r}; {did_you_mean(field, DTYPES)}")
        if field in mapping:
            raise BadInput(f"mapping {pair!r}: field {field!r} is mapped twice")
        name, colon, unit = column.rpartition(":")
        with_unit = bool(colon) and (unit in UNITS or unit == DATE)
        if with_unit and (field not in TIMES or (field == "slo_s" and unit == DATE)):
            raise BadInput(f"mapping {pair!r}: {field} takes no unit {unit!r}")
        in_two = bool(colon) and field in SIDES and unit in PARTS
        mapping[field] = Source(name, unit) if with_unit or in_two else Source(column)
    return mapping


def import_table(
    path: Path,
    mapping: Mapping[str, Source],
    *,
    constants: Mapping[str, str] | None = None,
    rebase: bool = False,
    limit: int | None = None,
) -> Imported:
    """The trace in a table.

    Columns already named like a field need no mapping; others are kept as extra columns.

    Args:
        path: .csv, .jsonl, .json (all three also packed as .gz) or .parquet; nested objects are columns like body.size.
        mapping: the column of each field.
        constants: fields with one value for all rows ("steps": "30").
        rebase: make the earliest arrival time 0; always so when arrivals are dates or times since 1970.
        limit: only the first arrivals.

    Raises:
        BadInput: an unreadable file, a missing column, a bad cell, a field given twice, or no row left.
    """
    source = str(path)
    constants = constants or {}
    for field in constants:
        if field not in DTYPES or field in mapping:
            raise BadInput(f"constant {field!r}: expected a field that has no mapping, one of: {', '.join(DTYPES)}")
    read = read_frame(path, text=(*TEXT, *(mapping[field].column for field in TEXT if field in mapping)))
    mark = read.attrs.get(SEPARATED_BY)
    table = flattened(read)
    table.columns = pd.Index([str(name) for name in table.columns])
    require_columns(table, [given.column for given in mapping.values()], source)
    own = {name: Source(name) for name in table.columns if name in DTYPES and name not in {*mapping, *constants}}
    used = {given.column for given in mapping.values()}
    fields = dict(mapping) | {name: given for name, given in own.items() if name in REQUIRED or name not in used}
    columns = {field: given.column for field, given in fields.items()}
    if missing := [field for field in REQUIRED if field not in fields and field not in constants]:
        how = hint(table, missing, [*fields, *constants])
        how = how or "map one (--map FIELD=COLUMN), or set it (--set FIELD=VALUE)"
        raise BadInput(f"{source}: no column for {', '.join(missing)}; {how}; the file has: {', '.join(table.columns)}")
    sieve = Sieve(table, source)
    sieve.leave_out_empty({columns[field]: field for field in REQUIRED if field in columns})
    cells = Cells(source, sieve.rows, columns)
    frame = pd.DataFrame(
        {field: _values(sieve.frame[given.column], field, given, cells) for field, given in fields.items()}
    )
    frame = frame.assign(**constants)
    start_s = 0.0
    dated = fields.get("arrival_s", Source("")).unit == DATE
    if rebase or dated or pd.to_numeric(frame["arrival_s"], errors="coerce").min() >= SINCE_1970_S:
        start_s = _rebase(frame, cells)
    extra = sieve.frame[[name for name in table.columns if name not in columns.values() and name not in DTYPES]]
    said = [] if mark is None else [f"the fields of the file are separated by {mark!r}, by its header"]
    sieve.note_unused([name for name in table.columns if name not in columns.values() and name in DTYPES])
    return sieve.imported(pd.concat([frame, extra], axis=1), columns, limit, start_s, said)


def _values(values: pd.Series[Any], field: str, given: Source, cells: Cells) -> pd.Series[Any]:
    if given.unit in PARTS:
        return _side(values, field, given.unit, cells)
    if field not in TIMES:
        return values
    if given.unit == DATE:
        if values.dtype.kind != "M":
            _refuse_numbers(values, field, cells)
        return seconds_since_1970(values, field, cells)
    if field != "slo_s":
        _refuse_dates(values, field, cells)
    seconds = numbers(values, field, cells)
    return seconds / (1 / UNITS[given.unit]) if UNITS[given.unit] < 1 else seconds * UNITS[given.unit]


def _side(values: pd.Series[Any], field: str, part: str, cells: Cells) -> pd.Series[Any]:
    """One of the two numbers of each cell, px."""
    sides: list[int] = []
    for position, value in enumerate(values.tolist()):
        match = TWO_SIDES.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise cells.bad(position, field, value, "two numbers of pixels like '1024x768'")
        sides.append(int(match[int(part)]))
    return pd.Series(sides, index=values.index, dtype=object)


def _refuse_dates(values: pd.Series[Any], field: str, cells: Cells) -> None:
    """Raise BadInput for the first date in a column of numbers, with the mapping that reads it."""
    if values.dtype.kind in "iuf":
        return
    column = (cells.columns or {}).get(field, field)
    for position, value in enumerate(values.tolist()):
        if is_date(value):
            shown = value if isinstance(value, str) else str(value)
            raise cells.bad(position, field, shown, f"a number; a date is read by --map {field}={column}:{DATE}")


def _refuse_numbers(values: pd.Series[Any], field: str, cells: Cells) -> None:
    """Raise BadInput for the first number in a column of dates, naming the unit that it seems to be in."""
    for position, value in enumerate(values.tolist()):
        number = number_of(value) if isinstance(value, str | int | float) else math.nan
        if isinstance(number, int | float) and number == number:
            unit, column = unit_since_1970(number), (cells.columns or {}).get(field, field)
            right = f"{A_DATE}; a number needs its unit, like --map {field}={column}:{unit or 's'}"
            if _EXCEL_DAYS[0] <= number < _EXCEL_DAYS[1]:
                right = f"{A_DATE}; this seems to be days since 1900: have the spreadsheet write dates"
            raise cells.bad(position, field, value, right)


def _rebase(frame: pd.DataFrame, cells: Cells) -> float:
    """Make the earliest arrival time 0; the seconds that were taken off.

    Raises:
        BadInput: a cell that is no number, or an arrival that no clock shows.
    """
    times = {field: numbers(frame[field], field, cells) for field in ("arrival_s", "deadline_s") if field in frame}
    arrival = times["arrival_s"]
    wrong = ~(arrival.abs() <= INSTANT.most).to_numpy(dtype=bool)
    if wrong.any():
        position = int(np.argmax(wrong))
        raise cells.bad(position, "arrival_s", frame["arrival_s"].iloc[position], ON_A_CLOCK)
    start_s = float(arrival.min())
    for field, values in times.items():
        whole = values.dtype.kind in "iu"
        frame[field] = values - start_s if whole else since(values.to_numpy(dtype=float), start_s)
    return start_s
