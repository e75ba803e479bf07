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
from traces.table_columns import TableColumn, dtypes_of

FIELDS: dict[str, TableColumn] = {
    "request_id": TableColumn("str", "What it is called; no two are called the same. Not given: the row's number."),
    "arrival_s": TableColumn("float64", "When it comes, seconds on any clock."),
    "height": TableColumn("int32", "Of each picture."),
    "width": TableColumn("int32", "Of each picture."),
    "steps": TableColumn("int32", "Denoising steps."),
    "frames": TableColumn("int32", "Of a clip; 1: a picture."),
    "images": TableColumn("int32", "Pictures of one prompt, whose seeds follow each other."),
    "model": TableColumn("str", "Which model is to serve it, by its name or a usual alias; empty: the scenario's."),
    "prompt": TableColumn("str", "What is to be drawn."),
    "image": TableColumn(
        "str",
        "What is edited, painted over, set in motion or refined: a file in the folder trace.images; several, parted by "
        "semicolons, where the pipeline takes several.",
    ),
    "seed": TableColumn("int64", "Of the noise that its pictures begin with."),
    "guidance_scale": TableColumn(
        "float64", "Classifier-free guidance; above 1 it doubles a step, but where models take it as an input."
    ),
    "deadline_s": TableColumn("float64", "By when it is to be done, on the clock of arrival_s; empty: see slo_s."),
    "slo_s": TableColumn(
        "float64", "Within how many seconds of its arrival it is to be done; empty: as [slo] says of all."
    ),
    "priority": TableColumn("int32", "How important it is; larger is more important, see slo.priority_factor."),
    "tenant": TableColumn("str", "Whose it is, see [tenants]."),
    "checkpoint": TableColumn("str", "The weights it wants, see [weights]; empty: the model's own."),
    "adapters": TableColumn(
        "str", "LoRAs on top of the weights, with how much each counts, like style:0.8+detail; see cluster.adapters."
    ),
    "negative_prompt": TableColumn("str", "What is not to be drawn."),
    "true_cfg_scale": TableColumn(
        "float64",
        "Guidance of the models that take guidance_scale as an input; with a negative prompt and above 1 it doubles a "
        "step.",
    ),
    "strength": TableColumn("float64", "The share of the schedule that image to image and inpainting make."),
    "schedule_steps": TableColumn(
        "int32", "Of how many steps its steps are the last ones; 0: of all, or as strength says."
    ),
    "mask": TableColumn("str", "White where image is painted anew: a file as large as it, in the same folder."),
    "reference_pixels": TableColumn(
        "int64", "Pixels of the pictures that it is shown in every step; filled in from image where that is at hand."
    ),
}
"""The canonical columns, in the order of `Request`'s fields; what each may hold says `traces.request.LIMITS`."""
DTYPES = dtypes_of(FIELDS)

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
    try:
        require_columns(frame, REQUIRED, cells.source)
    except BadInput as error:
        raise BadInput(f"{error}; 'tilecast trace import table' makes a trace of any table") from error
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
