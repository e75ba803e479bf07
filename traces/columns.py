"""The columns of a trace: names, types and limits, checked a column at a time.

This says the same as `Request.__post_init__`, but for a whole table at once and in the words of the user's
file: the first bad cell, by row, with the file, the row and the column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from traces.errors import BadInput
from traces.exact import LARGEST_EXACT, column_of, is_missing, named, number_of, unmasked
from traces.files import require_columns, row_at
from traces.limits import INSTANT, MOST_PIXELS, Text
from traces.request import LIMITS

DTYPES: dict[str, str] = {
    "request_id": "str",
    "arrival_s": "float64",
    "height": "int32",
    "width": "int32",
    "steps": "int32",
    "frames": "int32",
    "images": "int32",
    "model": "str",
    "prompt": "str",
    "image": "str",
    "seed": "int64",
    "guidance_scale": "float64",
    "deadline_s": "float64",
    "slo_s": "float64",
    "priority": "int32",
    "tenant": "str",
    "checkpoint": "str",
    "adapters": "str",
    "negative_prompt": "str",
    "true_cfg_scale": "float64",
    "strength": "float64",
    "schedule_steps": "int32",
    "mask": "str",
    "reference_pixels": "int64",
}
"""The canonical columns, in the order of `Request`'s fields."""

REQUIRED = ("arrival_s", "height", "width", "steps")
TEXT = tuple(name for name, dtype in DTYPES.items() if dtype == "str")
OPTIONAL = ("deadline_s", "slo_s", "true_cfg_scale", "strength")
"""Numbers that a request need not have: NaN in the table, None in the `Request`."""
COUNTS = ("height", "width", "steps", "frames", "images")
DEFAULTS: dict[str, float] = {
    "frames": 1,
    "images": 1,
    "seed": 0,
    "guidance_scale": 5.0,
    "priority": 0,
    "schedule_steps": 0,
    "reference_pixels": 0,
}

_SEED = "a whole number of 64 bits, from 0 to 2^64 - 1 (where one is negative, all from -2^63 to 2^63 - 1)"
ON_A_CLOCK = f"{INSTANT}; milliseconds are named: trace import table --map arrival_s=COLUMN:ms"
_LOST = "a float has lost its last digits"
_SHOWN = 120
_NAMES = (str, int, float, np.integer, np.floating, Decimal, UUID)
"""What a cell that names something may be: text, or a number as it is written. Truth values are none."""


@dataclass(frozen=True)
class Cells:
    """Where the cells of a frame stand in the user's file, for messages.

    Attributes:
        source: the file's name.
        rows: the file's data row (from 1) of each frame row; None when they are 1, 2, 3, ...
        columns: the file's column that a field was made from, where the names differ.
    """

    source: str
    rows: Sequence[int] | None = None
    columns: Mapping[str, str] | None = None

    def at(self, position: int) -> str:
        """The file and the row of the frame row at ``position``."""
        return f"{self.source}: {row_at(position if self.rows is None else self.rows[position] - 1, self.source)}"

    def bad(self, position: int, field: str, value: object, right: str) -> BadInput:
        """The error for the cell at frame row ``position``."""
        column = (self.columns or {}).get(field, field)
        made_from = f" (column {column!r})" if column != field else ""
        return BadInput(f"{self.at(position)}: {field}{made_from} is {_shown(value)}, expected {right}")


def _shown(value: object) -> str:
    """A cell in a message, on one line."""
    text = "empty" if is_missing(value) else repr(value) if isinstance(value, str) else " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def numbers(values: pd.Series[Any], field: str, cells: Cells) -> pd.Series[Any]:
    """The column as numbers, whole ones to the last digit; an empty cell is NaN or NA.

    Raises:
        BadInput: the first cell that is neither a number nor empty.
    """
    if values.dtype.kind in "mMc":
        position = int(np.argmax(values.notna().to_numpy())) if len(values) else 0
        raise cells.bad(position, field, str(values.iloc[position]) if len(values) else values.dtype, "a number")
    converted = values
    if values.dtype.kind not in "iuf":
        converted = column_of([None if is_missing(cell) else number_of(cell) for cell in values]).set_axis(values.index)
        if converted.dtype.kind not in "iuf":
            converted = converted.astype("float64")
    wrong = converted.isna() & values.notna()
    if wrong.any():
        position = int(np.argmax(wrong.to_numpy()))
        raise cells.bad(position, field, values.iloc[position], "a number")
    return converted.astype("float64") if converted.dtype.kind == "f" else converted


def texts(values: pd.Series[Any], field: str, cells: Cells) -> pd.Series[Any]:
    """The column as text, numbers as they are written; an empty cell is None.

    Raises:
        BadInput: the first cell that is neither: a truth value, a date, bytes, a list or a table, or a whole number
            that has lost its last digits.
    """
    given = values.astype(object).where(values.notna(), None)
    if isinstance(values.dtype, pd.StringDtype):
        return given
    for position, value in enumerate(given.tolist()):
        if value is None:
            continue
        if not isinstance(value, _NAMES) or isinstance(value, bool):
            raise cells.bad(position, field, value, "text")
        if isinstance(value, float) and value.is_integer() and abs(value) > LARGEST_EXACT:
            raise cells.bad(position, field, value, f"text or a whole number ({_LOST})")
    return given.map(named, na_action="ignore")


def canonical(frame: pd.DataFrame, cells: Cells) -> pd.DataFrame:
    """``frame`` with the canonical columns first, in their types, missing values filled, sorted by arrival.

    Columns that are no field of `Request` follow as they are. Requests that arrive together keep their order.

    Raises:
        BadInput: a required column is missing, or a cell holds what no request can have.
    """
    frame = frame.reset_index(drop=True)
    frame.columns = pd.Index([str(name) for name in frame.columns])
    require_columns(frame, REQUIRED, cells.source)
    count = len(frame)
    fields: dict[str, pd.Series[Any]] = {}
    for name, dtype in DTYPES.items():
        if dtype == "str":
            fields[name] = _text(frame, name, cells)
        elif name in frame:
            fields[name] = numbers(frame[name], name, cells)
        else:
            fields[name] = pd.Series(np.full(count, DEFAULTS.get(name, np.nan)))
        if name in DEFAULTS:
            fields[name] = fields[name].fillna(DEFAULTS[name])
        if name not in TEXT:
            fields[name] = unmasked(fields[name])
    _check(fields, cells)
    ordered = pd.DataFrame({name: values.astype(_dtype(name, values)) for name, values in fields.items()})
    extra = frame[[name for name in frame.columns if name not in DTYPES]]
    return pd.concat([ordered, extra], axis=1).sort_values("arrival_s", kind="stable", ignore_index=True)


def _dtype(name: str, values: pd.Series[Any]) -> Any:
    """`DTYPES`, but for seeds of 64 bits without a sign."""
    unsigned = name == "seed" and values.dtype == "uint64" and len(values) and values.max() >= 2**63
    return "uint64" if unsigned else DTYPES[name]


def _text(frame: pd.DataFrame, name: str, cells: Cells) -> pd.Series[Any]:
    if name == "request_id":
        rows = range(1, len(frame) + 1) if cells.rows is None else cells.rows
        default = pd.Series([str(row) for row in rows], index=frame.index, dtype=object)
    else:
        default = pd.Series("", index=frame.index, dtype=object)
    if name not in frame:
        return default
    given = texts(frame[name], name, cells)
    return given.where(given.notna(), default)


def _check(fields: Mapping[str, pd.Series[Any]], cells: Cells) -> None:
    """Raise BadInput for the first bad cell, by row and then by column."""
    found: list[tuple[int, int, str, str]] = []
    for name, wrong, right in _faults(fields):
        mask = np.asarray(wrong)
        if mask.any():
            found.append((int(np.argmax(mask)), len(found), name, right))
    if found:
        position, _, name, right = min(found)
        raise cells.bad(position, name, fields[name].iloc[position], right)


def _faults(fields: Mapping[str, pd.Series[Any]]) -> Iterable[tuple[str, Any, str]]:
    """(field, mask of bad cells, what would be right), for every rule a request keeps."""
    ids = fields["request_id"]
    yield "request_id", ids.duplicated(), "an id that no earlier row has"
    arrival = fields["arrival_s"]
    yield "arrival_s", arrival > INSTANT.most, ON_A_CLOCK
    for name, limit in LIMITS.items():
        values = fields[name]
        if isinstance(limit, Text):
            yield name, values.isin([text for text in values.unique() if not limit.holds(text)]), str(limit)
        else:
            right = limit.mask(values) & (values % 1 == 0) if limit.whole else limit.mask(values)
            optional = name in OPTIONAL
            yield name, ~(right | values.isna() if optional else right), f"{limit}{' (or nothing)' * optional}"
    schedule = fields["schedule_steps"]
    yield "schedule_steps", (schedule != 0) & (schedule < fields["steps"]), "0, or a whole number of at least the steps"
    seed = fields["seed"]
    if seed.dtype.kind == "f":
        yield "seed", ~((abs(seed) < 2**64) & (seed % 1 == 0)), _SEED
        yield "seed", abs(seed) > LARGEST_EXACT, f"{_SEED}, written as one ({_LOST})"
    pixels = fields["height"] * 1.0 * fields["width"] * fields["frames"]
    yield "frames", pixels > MOST_PIXELS, f"height x width x frames of at most {MOST_PIXELS:,} pixels"
    deadline, slo = fields["deadline_s"], fields["slo_s"]
    yield "deadline_s", ~(deadline.isna() | (deadline > arrival)), "a time after the arrival (or nothing)"
    yield "slo_s", deadline.notna() & slo.notna(), "nothing, because the row has a deadline_s"
