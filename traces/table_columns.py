"""A column of a table that Tilecast reads or writes: its type, and what it means.

Traces, profiles and run logs say so of each of theirs, and the reference in ``docs/`` is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class TableColumn(NamedTuple):
    """What stands in a column.

    Attributes:
        dtype: as pandas names it.
        meaning: a sentence.
    """

    dtype: str
    meaning: str


def dtypes_of(columns: Mapping[str, TableColumn]) -> dict[str, str]:
    """The types of columns, by name, in order."""
    return {name: column.dtype for name, column in columns.items()}
