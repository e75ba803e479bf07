"""What a study has kept, as SQLite itself reads it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

NAME = "points.sqlite"


class KeptPoint(NamedTuple):
    """A row."""

    key: str
    point: str
    result: str
    generator: str


def kept_points(folder: Path) -> list[KeptPoint]:
    """The rows as they were first kept, also while another process adds some; none where there is no file."""
    if not (folder / NAME).is_file():
        return []
    with closing(opened(folder)) as file:
        return [KeptPoint(*row) for row in file.execute("SELECT * FROM points ORDER BY rowid")]


def opened(folder: Path) -> sqlite3.Connection:
    """The file, which exists; for statements that are transactions of their own."""
    return sqlite3.connect(f"{(folder / NAME).as_uri()}?mode=rw", uri=True, isolation_level=None)
