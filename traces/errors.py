"""The one exception a user sees, and how its lines say what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class BadInput(ValueError):  # noqa: N818 - named for what it is, not for how it travels
    """Input that Tilecast cannot use. The message is one line: what is wrong, where, and what would be right.

    The command line prints it and exits with code 2.
    """


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of some names that ``name`` is most like, capitals or not; None: none is like it.

    Args:
        name: what a user wrote.
        known: what may be meant.
        cutoff: how like it must be, 0 to 1.
    """
    folded: dict[str, str] = {}
    for each in known:
        folded.setdefault(each.casefold(), each)
    return next((folded[found] for found in difflib.get_close_matches(name.casefold(), folded, 1, cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a line on an unknown name: ``did you mean 'nearest'?``, or all names where none is like it."""
    known = list(known)
    meant = nearest(name, known, cutoff)
    return f"known: {', '.join(known)}" if meant is None else f"did you mean {meant!r}?"


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """In one line the first thing that is wrong with a document: which key, what it says, what would be right.

    Args:
        error: what checking the document raised.
        model: what it was checked by.
    """
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    where = ".".join(location)
    if problem["type"] == "extra_forbidden":
        section = _section(model, location[:-1])
        known = [name for name, field in section.model_fields.items() if not field.exclude]
        return f"unknown key {where!r}; {did_you_mean(location[-1], known, 0.5)}"
    if problem["type"] == "model_type":
        needed = [name for name, field in _section(model, location).model_fields.items() if field.is_required()]
        keys = f" with {', '.join(needed)}" if needed else ""
        return f"{where} is {problem['input']!r}, expected a table{keys}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where} is {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _section(model: type[BaseModel], location: Sequence[str]) -> Any:
    """What the part of a document at ``location`` is checked by; places in lists are left out."""
    section: Any = model
    for part in [part for part in location if not part.isdigit()]:
        annotation = section.model_fields[part].annotation
        section = next((a for a in get_args(annotation) if a is not type(None)), annotation)
    return section
