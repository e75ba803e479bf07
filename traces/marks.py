"""How Tilecast knows its own files again: each says in itself what wrote it, in the way of its format.

==========  ====================================================================================
Parquet     a key ``tilecast.KIND`` of the schema's metadata
JSON        ``"generator": "tilecast KIND"``, the first key; in JSON lines of the first line
HTML        ``<meta name="generator" content="tilecast KIND">``, or as in Markdown
Markdown    ``<!-- generator: tilecast KIND -->``, the first line
TOML        ``# generator: tilecast KIND``, the first line
PNG, WebP   ``Software`` (a text chunk; EXIF): ``tilecast KIND``
SQLite      a column ``generator`` of a table, whose default is ``tilecast KIND``
==========  ====================================================================================

CSV and JSON lines that other programs read have no room for a mark; they are known by their columns.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from PIL.PngImagePlugin import PngInfo

_HEAD = 4096
_LINE = 2**22
SOFTWARE = 0x0131
"""The EXIF tag of what made a picture."""

_NAME = "tilecast ([a-z][a-z -]*?)"
_TEXT = re.compile(
    rf'\A(?:\{{\s*"generator":\s*"{_NAME}"|<!-- generator: {_NAME} -->|# generator: {_NAME}\r?$'
    rf'|<!doctype html>.{{0,1000}}?<meta name="generator" content="{_NAME}")',
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class OutputKind:
    """What an output is.

    Attributes:
        name: in its mark, like ``trace``.
        columns: by which a CSV or JSON lines file of this kind is known: these stand in it side by side, in this order.
        files: of a folder: what Tilecast writes into it, by name the kind that the file's mark says (empty: it has no
            mark, and is ours where another file of the folder says so). The last one is written last.
        folders: of a folder: those in it that hold marked files of this kind, and a regular expression of their names.
    """

    name: str
    columns: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)

    @property
    def generator(self) -> str:
        """What a file of this kind says that it was written by."""
        return f"tilecast {self.name}"

    @property
    def key(self) -> bytes:
        """The mark of a Parquet file of this kind: a key of its schema's metadata, whatever it says."""
        return f"tilecast.{self.name}".encode()

    def table(self, frame: pd.DataFrame) -> pa.Table:
        """``frame`` with the mark of this kind, for `pyarrow.parquet.write_table`."""
        import pyarrow as pa

        table = pa.Table.from_pandas(frame, preserve_index=False)
        return table.replace_schema_metadata({**table.schema.metadata, self.key: b"1"})

    def facts(self, schema_metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
        """What a Parquet file of this kind says of itself under its mark, as text.

        Raises:
            KeyError: it has no such mark.
            ValueError: what stands there is no JSON object.
        """
        facts = json.loads((schema_metadata or {})[self.key])
        if not isinstance(facts, dict):
            raise ValueError("no JSON object")
        return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}

    def json(self, text: str) -> str:
        """The text of a JSON object with the mark of this kind."""
        first = '{\n  "generator"' if text.startswith("{\n") else '{"generator"'
        rest = text[1:]
        comma = "" if rest.lstrip().startswith("}") else "," if rest.startswith("\n") else ", "
        return f'{first}: "{self.generator}"{comma}{rest}'

    def comment(self, text: str, suffix: str) -> str:
        """TOML (``.toml``), Markdown or HTML text with the mark of this kind."""
        line = f"<!-- generator: {self.generator} -->" if suffix != ".toml" else f"# generator: {self.generator}"
        return f"{line}\n{text}"

    def png(self) -> PngInfo:
        """The mark of a PNG file of this kind, for `PIL.Image.Image.save`."""
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("Software", self.generator)
        return info

    @property
    def column(self) -> str:
        """The mark of an SQLite file of this kind: the definition of a column, for one of its tables."""
        return f"generator TEXT NOT NULL DEFAULT '{self.generator}'"

    def wrote(self, path: Path) -> bool:
        """Whether a regular file is of this kind. One that cannot be read is not."""
        if not os.access(path, os.R_OK):
            return False
        found = mark_of(path)
        return found == self.name if found else self._torn(path) or _has_columns(path, self.columns)

    def _torn(self, path: Path) -> bool:
        """Of a file that is written line by line, and whose first line was not finished."""
        beginning = f'{{"generator": "{self.generator}"'.encode()
        return path.name in self.files and path.suffix == ".jsonl" and beginning.startswith(_head(path))


def mark_of(path: Path) -> str | None:
    """The kind that a file's mark says; None: it has none that can be read. Nothing of the file is changed."""
    try:
        head = _head(path)
        if head.startswith(b"PAR1"):
            return _mark_of_parquet(path)
        if head.startswith(b"\x89PNG"):
            return _mark_of_png(head)
        if head.startswith(b"RIFF"):
            return _mark_of_webp(path)
        if head.startswith(b"SQLite format 3\0"):
            return _mark_of_sqlite(path)
        found = _TEXT.match(head.decode("utf-8", errors="replace"))
        return found[found.lastindex or 0] if found else None
    except (OSError, ValueError):
        return None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _mark_of_parquet(path: Path) -> str | None:
    import pyarrow.parquet as pq

    keys = [key.decode() for key in pq.read_schema(path).metadata or {}]
    return next((key.removeprefix("tilecast.") for key in keys if key.startswith("tilecast.")), None)


def _mark_of_png(head: bytes) -> str | None:
    """Of the text chunk before the picture's own; a chunk is its length, its type and what it holds."""
    start = head.find(b"tEXtSoftware\0")
    if start < 0:
        return None
    return _of(head[start + 4 : start + 4 + int.from_bytes(head[start - 4 : start])][9:].decode("latin-1"))


def _mark_of_webp(path: Path) -> str | None:
    from PIL import Image

    with Image.open(path) as picture:
        return _of(str(picture.getexif().get(SOFTWARE)))


def _mark_of_sqlite(path: Path) -> str | None:
    """Opened as what nobody writes to: nothing is locked, and what a kill left unfinished is not mended."""
    import sqlite3

    columns = "SELECT dflt_value FROM sqlite_master AS t, pragma_table_info(t.name) AS c WHERE c.name = 'generator'"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as file:
            defaults = [str(default).strip("'") for (default,) in file.execute(columns)]
    except sqlite3.Error:
        return None
    return next((mark for default in defaults if (mark := _of(default))), None)


def _of(software: str) -> str | None:
    return software.removeprefix("tilecast ") if software.startswith("tilecast ") else None


def _has_columns(path: Path, columns: tuple[str, ...]) -> bool:
    if not columns:
        return False
    try:
        with path.open(encoding="utf-8", newline="") as file:
            line = file.readline(_LINE)
        found = tuple(json.loads(line)) if line.startswith("{") else tuple(next(csv.reader([line]), ()))
    except (OSError, ValueError, csv.Error):
        return False
    return any(found[at : at + len(columns)] == columns for at in range(len(found) - len(columns) + 1))
