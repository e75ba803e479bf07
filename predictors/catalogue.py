"""Tables of several named things in one TOML file, each checked: hardware kinds, models' shapes."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from traces.errors import BadInput, did_you_mean
from traces.text import read_toml

Entry = TypeVar("Entry", bound=BaseModel)


def load_entries(path: Path, kind: type[Entry]) -> dict[str, Entry]:
    """The tables of a TOML file by their names.

    Raises:
        BadInput: no such file, no TOML, nothing in it, or a wrong field, named with its table.
    """
    data = read_toml(path)
    if not data:
        raise BadInput(f"{path} is empty; expected a table for each entry, like [my-gpu]")
    entries = {}
    for name, fields in data.items():
        try:
            entries[name] = kind.model_validate(fields)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join([name, *map(str, problem["loc"])])
            message = problem["msg"].removeprefix("Value error, ")
            raise BadInput(f"{path}: {where}: {message[0].lower()}{message[1:]}") from error
    return entries


def entry_of(entries: dict[str, Entry], name: str, what: str) -> Entry:
    """The entry called ``name``.

    Raises:
        BadInput: there is none; the nearest name is offered, or all.
    """
    if name in entries:
        return entries[name]
    raise BadInput(f"unknown {what} {name!r}; {did_you_mean(name, entries)}")
