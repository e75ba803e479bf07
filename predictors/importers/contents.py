"""What a file of measurements holds, whatever its name: a table, JSON documents, or text. Nothing is unpickled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from traces.errors import BadInput
from traces.files import read_frame
from traces.text import parse_json, read_text

_TABLES = (".csv", ".csv.gz", ".parquet")
TEXT_COLUMNS = (
    *("source", "system", "hardware", "parallelism", "model", "precision", "engine", "quantity", "measures", "notes"),
    *("software", "remarks", "checkpoint"),
)
"""Columns of tables that hold text, also where all of it looks like numbers."""


@dataclass(frozen=True)
class FileContents:
    """The contents of one file; of ``table``, ``documents`` and ``text`` one says something.

    Attributes:
        path: the file.
        table: of CSV and Parquet files.
        documents: of JSON, one or several (a list, or JSON lines), with where each stands.
        text: anything else.
    """

    path: Path
    table: pd.DataFrame | None = None
    documents: tuple[tuple[str, Any], ...] = ()
    text: str = ""

    @property
    def columns(self) -> list[str]:
        """The names of the table's columns; none of a file of another kind."""
        return [] if self.table is None else [str(name) for name in self.table.columns]

    def objects(self) -> list[tuple[str, dict[str, Any]]]:
        """The documents, each with where it stands.

        Raises:
            BadInput: there are none, or one is no object.
        """
        if not self.documents:
            raise BadInput(f"{self.path}: no JSON, expected an object, a list of objects, or an object a line")
        for where, document in self.documents:
            if not isinstance(document, dict):
                raise BadInput(f"{where} is {type(document).__name__}, expected a JSON object")
        return list(self.documents)


def read_contents(path: Path) -> FileContents:
    """Read a file: tables by their suffix, JSON by its first character, anything else as text.

    Raises:
        BadInput: as `traces.files.read_frame` and `traces.text.read_text`, or damaged JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: {'not a file' if path.exists() else 'no such file'}; expected measurements")
    if path.name.lower().endswith(_TABLES):
        return FileContents(path, table=read_frame(path, TEXT_COLUMNS))
    text = read_text(path)
    if text.lstrip().startswith(("{", "[")):
        return FileContents(path, documents=tuple(_documents(path, text)))
    return FileContents(path, text=text)


def _documents(path: Path, text: str) -> list[tuple[str, Any]]:
    """One document, the items of a list, or a document a line; each with where it stands."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 and _is_json(lines[0][1]):
        return [(f"{path}: line {number}", _parsed(line, f"{path}: line {number}")) for number, line in lines]
    document = _parsed(text, str(path))
    if isinstance(document, list):
        if not document:
            raise BadInput(f"{path}: an empty list, expected measurements")
        return [(f"{path}: record {number}", item) for number, item in enumerate(document, start=1)]
    return [(str(path), document)]


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except BadInput as error:
        raise BadInput(f"{where} {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON: {str(error).splitlines()[0]}") from error
