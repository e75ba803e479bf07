"""Progress on the terminal: a bar, or where it is written to a file, a line now and then."""

from __future__ import annotations

import time
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

from reports.console import new_console, say

Tell = Callable[[str, int, int], None]
"""Called with what is done at present, how much of it there is (0: not known), and how much of that is done."""

_PERIOD_S = 600.0  # over which the time left is estimated: a point of a study may take minutes


FIRST_LINE_S = 10.0
"""Seconds after which the first line of progress is written to a file; what is done by then needs none."""
_MOST_BETWEEN_S = 300.0


def silent(what: str, total: int, done: int) -> None:
    """Progress that nobody looks at."""


class ProgressLines:
    """Progress as lines of text: the first after ten seconds, then ever fewer, one in five minutes at least.

    Args:
        say: prints a line.
        clock: seconds that never run backwards.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._begun_s = clock()
        self._gap_s = FIRST_LINE_S
        self._next_s = self._begun_s + FIRST_LINE_S

    def tell(self, what: str, total: int, done: int) -> None:
        """What is done at present, how much of it there is (0: not known), and how much of that is done."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._gap_s = min(2 * self._gap_s, _MOST_BETWEEN_S)
        self._next_s = now_s + self._gap_s
        much = f"{done:,} of {total:,} ({100 * done / total:.0f} %)" if total else f"{done:,} done"
        self._say(f"{what}: {much} after {now_s - self._begun_s:.0f} s")


@contextmanager
def shown() -> Iterator[Tell]:
    """Show a bar while the block runs, or lines where there is no terminal; yields what is to be told."""
    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TimeElapsedColumn())
    what = TextColumn("{task.description}", markup=False)
    console = new_console(stderr=True)
    if not console.is_terminal:
        yield ProgressLines(lambda line: say(line, err=True)).tell
        return
    with Progress(*columns, what, console=console, transient=True, speed_estimate_period=_PERIOD_S) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, total, done: progress.update(task, description=what, total=total or None, completed=done)


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """`shown` of one thing; yields what is to be told how much of it is done."""
    with shown() as tell:
        tell(what, total, 0)
        yield lambda done: tell(what, total, done)
