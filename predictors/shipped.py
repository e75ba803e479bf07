"""Data that ships in ``profiles/``, found by its stem."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def find(name: str, kind: str = "", base: Path = Path()) -> Path:
    """The file ``name`` beside ``base``, or what ships under that name: ``profiles/<name>[.<kind>].parquet``.

    The path beside ``base`` when there is neither, so that whoever opens it says what is missing.
    """
    beside = base / name
    ships = Path(str(files("profiles"))) / f"{name}{kind and '.' + kind}.parquet"
    return ships if not beside.exists() and ships.is_file() else beside
