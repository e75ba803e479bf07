"""Progress on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reports.console import new_console

_PERIOD_S = 600.0  # over which the time left is estimated: a point of a study may take minutes


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs; yields a function to be called with how much is done."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = new_console(stderr=True)
    with Progress(*columns, console=console, transient=True, speed_estimate_period=_PERIOD_S) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
