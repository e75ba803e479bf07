"""Limits of options: an option says them beside its type, ``Annotated[int, SEED, typer.Option(...)]``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, get_type_hints

import typer

from traces.errors import BadInput
from traces.limits import Range, Text

_WORDS = Text(100_000, controls=True)


def limited(app: typer.Typer) -> typer.Typer:
    """``app``, whose commands check their options before they run."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _checked(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            limited(group.typer_instance)
    if app.registered_callback is not None and app.registered_callback.callback is not None:
        app.registered_callback.callback = _checked(app.registered_callback.callback)
    return app


def limits_of(command: Callable[..., Any]) -> dict[str, Range | Text]:
    """The limits of a command's parameters that have some."""
    found = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        for limit in getattr(hint, "__metadata__", ()):
            if isinstance(limit, Range | Text):
                found[name] = limit
    return found


def _checked(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(**given: Any) -> Any:
        limits = limits_of(command)
        for name, value in given.items():
            option = f"--{name.replace('_', '-')}"
            for each in value if isinstance(value, list) else [value]:
                limit = limits.get(name, _WORDS if isinstance(each, str) else None)
                if each is not None and limit is not None and not limit.holds(each):
                    raise BadInput(f"{option} is {each!r}, expected {limit}")
        return command(**given)

    return run
