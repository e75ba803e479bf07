"""The terminal: every word that Tilecast prints passes here.

Names come from files that others made. One with escape codes in it could clear the screen, hide a line or forge one,
and one in brackets is no markup; so control characters are spelled out and markup is never read. A reader that has gone
(``| head``) and a terminal that lacks a character end nothing: what a command writes to files is written all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from traces.limits import is_control

if TYPE_CHECKING:
    from rich.console import Console


def printable(text: str, lines: bool = True) -> str:
    r"""``text`` with control characters spelled out, like ``\x1b``; ends of lines stay where ``lines`` says so."""
    if text.isascii() and text.isprintable():
        return text
    return "".join([_spelled(c) if is_control(c) and not (lines and c in "\n\t") else c for c in text])


def say(text: str, err: bool = False) -> None:
    """Print a line to the standard output, or to the standard error."""
    stream = sys.stderr if err else sys.stdout
    try:
        print(printable(text), file=stream, flush=err)
    except BrokenPipeError:
        _silence(stream)


def new_console(stderr: bool = False, width: int | None = None) -> Console:
    """Where tables and progress are printed: text is text in it, never markup."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Plain(Console):
        laid_out = False  # of a table, whose cells are rendered on their own, the whole: its columns cut nothing off

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            segments = super().render(renderable, options)
            if self.laid_out:
                yield from segments
                return
            self.laid_out = True
            try:
                for segment in segments:
                    yield segment if segment.control else Segment(printable(segment.text), segment.style)
            finally:
                self.laid_out = False

        def on_broken_pipe(self) -> None:
            self.quiet = True
            _silence(sys.stderr if self.stderr else sys.stdout)

    return Plain(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def any_text(*streams: TextIO) -> None:
    """Make streams spell the characters that their encoding lacks, instead of raising."""
    for stream in streams:
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def flush() -> None:
    """Bring out what is printed so far; a reader that has gone is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
