"""The keys of a scenario with their types, defaults, limits and meanings, as `tilecast.scenario` declares them."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tilecast.scenario import Scenario
from tilecast.sections import PolicySection
from traces.limits import Range, Text

_NUMBERS = {int: "whole number", float: "number"}
_WORDS: dict[Any, str] = {**_NUMBERS, str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Key:
    """A key of a scenario.

    Attributes:
        name: with dots, as ``--set`` takes it; ``[]`` follows a list of tables.
        takes: the kind of value, or the choices.
        default: as TOML; empty: the key is required where its section stands, or not set.
        limits: which values; empty: all of the kind.
        meaning: a sentence.
    """

    name: str
    takes: str
    default: str
    limits: str
    meaning: str


def scenario_keys() -> list[Key]:
    """Every key, in the order of the file."""
    return list(_keys_of(Scenario, ""))


def limits_of(field: FieldInfo) -> list[Range | Text]:
    """What numbers and texts a field may hold."""
    found = [item for item in field.metadata if isinstance(item, Range | Text)]
    return found + limits_in(field.annotation)


def limits_in(annotation: Any) -> list[Range | Text]:
    """What numbers and texts a value of an annotated type may be."""
    return [item for item in _metadata(annotation) if isinstance(item, Range | Text)]


def spelled(limits: Iterable[Range | Text]) -> str:
    """Limits of numbers in a table's words: ``1 to 8 devices``."""
    words = [
        str(limit).removeprefix("a whole number ").removeprefix("a number ").removeprefix("of ")
        for limit in limits
        if isinstance(limit, Range)
    ]
    return ", ".join(dict.fromkeys(words))


def fields_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of a section and the sections in it that holds a value, by its dotted name."""
    for name, field in section.model_fields.items():
        if section is Scenario and name == "base":
            continue
        inner = section_in(field.annotation)
        if inner is None or inner is PolicySection:
            yield prefix + name, field
        else:
            listed = "[]" if _is_list(field.annotation) else ""
            yield from fields_of(inner, f"{prefix}{name}{listed}.")


def _keys_of(section: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in fields_of(section, prefix):
        meaning = field.description or ""
        yield Key(name, takes(field.annotation), default_of(field), spelled(limits_of(field)), meaning)


def _parts(annotation: Any) -> list[Any]:
    """What an annotation is made of: itself, or the members of a union, a list, a table of any names, an annotated
    type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return [get_args(annotation)[0]]
    if origin in (Union, types.UnionType, tuple, list):
        return [item for item in get_args(annotation) if item not in (type(None), Ellipsis)]
    if origin is dict:
        return [get_args(annotation)[1]]
    return []


def _metadata(annotation: Any) -> list[Any]:
    own = list(getattr(annotation, "__metadata__", ()))
    return own + [item for part in _parts(annotation) for item in _metadata(part)]


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds, or holds a list of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [section_in(part) for part in _parts(annotation)]
    return next((section for section in found if section is not None), None)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (tuple, list) or any(_is_list(part) for part in _parts(annotation))


def takes(annotation: Any) -> str:
    """The kind of value that a type stands for, or its choices, in words."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    if section_in(annotation) is PolicySection:
        return "a policy's name, or a table"
    origin, parts = get_origin(annotation), _parts(annotation)
    if origin is Literal:
        return ", ".join([str(choice) for choice in get_args(annotation)])
    if origin in (tuple, list):
        return f"list of {takes(parts[0])}"
    if origin is dict:
        return f"table of {takes(parts[0])}"
    return " or ".join([takes(part) for part in parts])


def default_of(field: FieldInfo) -> str:
    """The default of a field, as TOML; empty: none."""
    return "required" if field.is_required() else as_toml(field.default)


def as_toml(value: Any) -> str:
    """A value as it is written in a scenario; empty: None."""
    if value is None:
        return ""
    if isinstance(value, PolicySection):
        return f'"{value.name}"'
    if isinstance(value, bool | str | tuple):
        return {True: "true", False: "false"}[value] if isinstance(value, bool) else _toml(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join([_toml(item) for item in value])}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
