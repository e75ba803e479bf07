"""The one exception a user sees, and how its lines say what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


_LIKE, _NEARLY = 0.75, 0.9
"""How like the spelling is, 0 to 1, of what is probably meant, and of what can hardly mean anything else."""


class BadInput(ValueError):  # noqa: N818 - named for what it is, not for how it travels
    """Input that Tilecast cannot use. The message is one line: what is wrong, where, and what would be right.

    The command line prints it and exits with code 2.
    """


def spelled_like(name: str, known: Iterable[str], cutoff: float) -> str | None:
    """The one of some names that is spelled most like ``name``, capitals or not; None: none is.

    Args:
        name: what somebody wrote.
        known: what may be meant.
        cutoff: how like the spelling must be, 0 to 1.
    """
    folded = _folded(known)
    return next((folded[each] for each in difflib.get_close_matches(name.casefold(), folded, 1, cutoff)), None)


def likely(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of some names that ``name`` may stand for, capitals or not, likeliest first.

    One that is spelled nearly so stands alone. Else those that begin with it or have its words are named (for ``h100``
    ``h100-sxm``), else the one that it begins with (for ``devices_per_replica`` ``devices``), and only where there is
    neither the one that is spelled most like it.

    Args:
        name: what a user wrote.
        known: what may be meant.
    """
    folded = _folded(known)
    if nearly := spelled_like(name, folded.values(), _NEARLY):
        return [nearly]
    asked, words = name.casefold(), _words(name.casefold())
    fuller = [each for each in folded if each.startswith(asked) or words in _words(each)] if len(asked) > 1 else []
    if fuller:
        return [folded[each] for each in sorted(fuller, key=lambda each: (not each.startswith(asked), len(each)))[:3]]
    if shorter := [each for each in folded if words.startswith(_words(each))]:
        return [folded[max(shorter, key=len)]]
    alike = spelled_like(name, folded.values(), _LIKE)
    return [] if alike is None else [alike]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The first of `likely`; None: none is."""
    return next(iter(likely(name, known)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a line on an unknown name: ``did you mean 'nearest'?``, or all names where none is like it."""
    known = list(known)
    meant = likely(name, known)
    return f"did you mean {' or '.join(map(repr, meant))}?" if meant else f"known: {', '.join(known)}"


def _folded(known: Iterable[str]) -> dict[str, str]:
    """Names by what they are without capitals, the first of several."""
    folded: dict[str, str] = {}
    for each in known:
        folded.setdefault(each.casefold(), each)
    return folded


def _words(name: str) -> str:
    """A name's words, each between underscores."""
    return f"_{re.sub(r'[^0-9a-z]+', '_', name).strip('_')}_"


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
        return f"unknown key {where!r}; {did_you_mean(location[-1], known)}"
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
