"""Progress on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from reports.console import new_console

Tell = Callable[[str, int, int], None]
"""Called with what is done at present, how much of it there is, and how much of that is done."""

_PERIOD_S = 600.0  # over which the time left is estimated: a point of a study may take minutes


def silent(what: str, total: int, done: int) -> None:
    """Progress that nobody looks at."""


@contextmanager
def shown() -> Iterator[Tell]:
    """Show a bar while the block runs; yields what is to be told."""
    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TimeElapsedColumn())
    what = TextColumn("{task.description}", markup=False)
    console = new_console(stderr=True)
    with Progress(*columns, what, console=console, transient=True, speed_estimate_period=_PERIOD_S) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, total, done: progress.update(task, description=what, total=total, completed=done)


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """`shown` of one thing; yields what is to be told how much of it is done."""
    with shown() as tell:
        tell(what, total, 0)
        yield lambda done: tell(what, total, done)
