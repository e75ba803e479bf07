"""What all commands have in common: ``~`` in their words, and which files they read, see `traces.output.reading`."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from traces.output import reading
from traces.paths import files_in, with_home

OUTPUT = "output"
"""The parameter of every command that names what it writes; every other word that is a file's name is an input."""


class Verbs(typer.Typer):
    """A group of commands; use it in the place of `typer.Typer`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """As of `typer.Typer`."""
        return super().command(name, cls=_Command, **settings)


class _Command(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        with _reading(ctx):
            return super().invoke(ctx)


class _Group(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with _reading(ctx):
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As of `typer`, which suggests the verb that was meant; where none is like it, all are named."""
        verb, known = args[0], self.list_commands(ctx)
        if not (verb in known or verb.startswith("-") or get_close_matches(verb, known)):
            ctx.fail(f"No such command {verb!r}. There are: {', '.join(known)}.")
        return super().resolve_command(ctx, args)


def _reading(ctx: Any) -> Any:
    ctx.params = with_home(ctx.params)
    return reading(files_in({name: value for name, value in ctx.params.items() if name != OUTPUT}))
