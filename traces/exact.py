"""Columns of a table that keep whole numbers to the last digit.

pandas makes floats of whole numbers as soon as one cell is empty, and a float holds them up to 2^53 only: of a seed of
17 digits the last ones change without a word. Here such a column stays whole (``int64``, ``uint64``, or the nullable
``Int64`` and ``UInt64`` where cells are empty), and what 64 bits cannot hold stays text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionDtype

LARGEST_EXACT = 2**53
"""Above this a float does not know which whole number it was."""

WHOLE_TYPES: dict[pa.DataType, Any] = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}
"""What Parquet's whole numbers are read as, so that empty cells do no harm."""

_WHOLE_TEXT = r"[ \t]*[+-]?\d{1,400}[ \t]*"
_NUMBER_TEXT = r"[ \t]*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[iI]nf(?:inity)?)[ \t]*"
_WHOLE, _NUMBER = re.compile(_WHOLE_TEXT), re.compile(_NUMBER_TEXT)
_NO_WHOLE = re.compile(rf"^(?!{_WHOLE_TEXT}$)", re.MULTILINE)  # a line that is none
_NO_NUMBER = re.compile(rf"^(?!{_NUMBER_TEXT}$)", re.MULTILINE)
_LARGE = re.compile(r"^[ \t]*[+-]?\d{16,}[ \t]*$", re.MULTILINE)
_PADDED = re.compile(r"^[ \t]*(?:\+|-?0\d)", re.MULTILINE)


def since(values: npt.NDArray[np.float64], start: float) -> npt.NDArray[np.float64]:
    """Numbers less another one, to as many decimals as they hold: 1.049, and not 1.0490000247955322, of two times since
    1970 that are so far apart, which a float of seconds knows to a millionth."""
    if not start:
        return values
    largest = max(abs(start), np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).max(initial=0.0))
    decimals = math.floor(-math.log10(2 * np.spacing(largest)))
    return np.round(values - start, min(12, max(0, decimals)))


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: None, NaN, NA or NaT."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def column_of(cells: Iterable[object]) -> pd.Series[Any]:
    """A column of the cells of a row-wise file: numbers where all are, whole where all are whole, else as they are."""
    values = list(cells)
    kinds = set(map(type, values))
    if kinds == {float}:
        return pd.Series(values, dtype="float64")
    if kinds - {int, str, float}:
        values = [None if is_missing(value) else value for value in values]
        kinds = set(map(type, values)) - {type(None)}
    if kinds and kinds <= {int, float}:
        values = [None if value is None or value != value else value for value in values]
        return _of_numbers(values, [value for value in values if value is not None])
    return pd.Series(values, dtype=object).infer_objects()


def column_of_text(texts: pd.Series[Any]) -> pd.Series[Any]:
    """A column of text as numbers where every filled cell is one; padded ones (007) are names and stay."""
    cells = [text if isinstance(text, str) else None for text in texts.tolist()]
    given = [text for text in cells if text is not None]
    lines = "\n".join(given)
    if not given or lines.count("\n") >= len(given) or _NO_NUMBER.search(lines) or _PADDED.search(lines):
        return texts
    read: Callable[[Any], object] = float if not _LARGE.search(lines) else number_of
    if not _NO_WHOLE.search(lines):
        read = int
    return column_of([None if text is None else read(text) for text in cells]).set_axis(texts.index)


def number_of(value: object) -> object:
    """A cell as an int where it is a whole number, else as a float; NaN where it is neither, as truth values are."""
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return int(value)
        return float(value) if _NUMBER.fullmatch(value) else np.nan
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    if isinstance(value, float | np.floating) or (isinstance(value, Decimal) and not value.is_snan()):
        return float(value)
    return np.nan


def unmasked(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column of numbers as numpy has them: whole where no cell is empty, else floats."""
    if not isinstance(values.dtype, ExtensionDtype):
        return values
    whole = values.dtype.kind in "iu" and not values.isna().any()
    return values.astype(np.dtype(values.dtype.name.lower() if whole else "float64"))


def named(value: object) -> str:
    """The text of a cell that names something: whole numbers that pandas has made floats are whole again."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT:
        return str(int(value))
    return str(value)


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several tables, one after another; a column that one of them lacks is empty there."""
    names = dict.fromkeys(chain.from_iterable(frame.columns for frame in frames))
    columns = {}
    for name in names:
        parts = [frame.get(name) for frame in frames]
        kinds = {None if part is None else str(part.dtype) for part in parts}
        if len(kinds) == 1:
            columns[name] = pd.concat([part for part in parts if part is not None], ignore_index=True)
        else:
            cells = zip(parts, frames, strict=True)
            columns[name] = column_of(
                chain.from_iterable([None] * len(frame) if part is None else part.tolist() for part, frame in cells)
            )
    return pd.DataFrame(columns)


def _of_numbers(values: Sequence[Any], given: Sequence[Any]) -> pd.Series[Any]:
    whole = set(map(type, given)) == {int}
    if not whole and any(isinstance(value, int) and abs(value) > LARGEST_EXACT for value in given):
        whole = all(isinstance(value, int) or value.is_integer() for value in given)
    if not whole:
        return pd.Series([np.nan if value is None else _float(value) for value in values], dtype="float64")
    least, most = int(min(given)), int(max(given))
    if {float} & set(map(type, given)):
        values = [None if value is None else int(value) for value in values]
    signed, unsigned = least >= -(2**63) and most < 2**63, least >= 0 and most < 2**64
    if not (signed or unsigned):
        return pd.Series([None if value is None else str(value) for value in values], dtype=object)
    if len(given) < len(values):
        return pd.Series(pd.array(values, dtype=pd.Int64Dtype() if signed else pd.UInt64Dtype()))
    return pd.Series(np.array(values, dtype="int64" if signed else "uint64"))


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf
