"""Paths as users write them, for what is read and what is written alike."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from traces.errors import BadInput


def user_path(text: str | Path) -> Path:
    """The path that a user means: ``~`` is the home folder, wherever it is written.

    Raises:
        BadInput: no file can have this name.
    """
    spelled = str(text)
    if "\0" in spelled:
        raise BadInput(f"{spelled!r} is no name of a file: it holds a zero character")
    if not _is_utf8(spelled):
        raise BadInput(f"{spelled!r} is not in UTF-8, as names of files have to be here; rename it")
    path = Path(spelled)
    with suppress(RuntimeError):  # no such home: it is a file's name
        path = path.expanduser()
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise BadInput(f"{spelled}: the name is too long for a file") from error
    return path


def with_home(value: Any) -> Any:
    """``value``, a string or a nest of tables and lists, with the home folder for the ``~`` that strings begin with.

    Raises:
        BadInput: as `user_path`, and of any string that no path can hold.
    """
    if isinstance(value, dict):
        return {key: with_home(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(with_home(inner) for inner in value)
    if isinstance(value, Path) or (isinstance(value, str) and _needs_a_look(value)):
        return type(value)(user_path(value))
    return value


def _needs_a_look(text: str) -> bool:
    return text.startswith("~") or "\0" in text or not _is_utf8(text)


def _is_utf8(text: str) -> bool:
    """Whether no byte of a word came in that is no UTF-8, which Python keeps as half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def files_in(value: Any, base: Path = Path()) -> Iterator[Path]:
    """The paths that the strings of a nest may name: beside ``base``, also of ``file.py:Class``, ``file.toml:kind``."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from files_in(inner, base)
    elif isinstance(value, str | Path) and str(value):
        name = str(value)
        yield base / name
        for suffix in (".py", ".toml"):
            if f"{suffix}:" in name:
                yield base / (name.partition(f"{suffix}:")[0] + suffix)
