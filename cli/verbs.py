"""What all commands have in common: ``~`` in their words, which files they read, and help.

Whoever types a verb and nothing else wants to know what it takes: help, and no error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from cli.groups import headings
from reports.console import say
from traces.errors import nearest
from traces.output import reading
from traces.paths import files_in, with_home

OUTPUT = "output"
"""The parameter of every command that names what it writes; every other word that is a file's name is an input, see
`traces.output.reading`."""


class Verbs(typer.Typer):
    """A group of commands; use it in the place of `typer.Typer`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """As of `typer.Typer`."""
        return super().command(name, cls=_Command, **settings)


class _Command(TyperCommand):
    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        _put_under_headings(self)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of `typer`; where something is needed and nothing is given, help."""
        if not args and any(parameter.required for parameter in self.params):
            _help(ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _reading(ctx):
            return super().invoke(ctx)


class _Group(TyperGroup):
    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        _put_under_headings(self)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of `typer`; where nothing is given, help."""
        if not args:
            _help(ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _reading(ctx):
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As of `typer`, but that a verb is suggested whatever its capitals; where none is like it, all are named."""
        verb, known = args[0], self.list_commands(ctx)
        if not (verb in known or verb.startswith("-")):
            meant = nearest(verb, known)
            hint = f"There are: {', '.join(known)}." if meant is None else f"Did you mean {meant!r}?"
            ctx.fail(f"No such command {verb!r}. {hint}")
        return super().resolve_command(ctx, args)


def _put_under_headings(command: TyperCommand | TyperGroup) -> None:
    options = [each for each in command.params if isinstance(each, TyperOption) and not each.is_eager]
    found = headings([str(option.name) for option in options])
    for option in options:
        option.rich_help_panel = found.get(str(option.name), option.rich_help_panel)


def _help(ctx: Any) -> None:
    if text := ctx.get_help():  # which prints it by itself where it is coloured
        say(text)
    ctx.exit(0)


def _reading(ctx: Any) -> Any:
    ctx.params = with_home(ctx.params)
    return reading(files_in({name: value for name, value in ctx.params.items() if name != OUTPUT}))
