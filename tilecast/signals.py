"""Signals that end a command: Ctrl-C, SIGTERM (Kubernetes, Slurm) and a closed terminal (SIGHUP) are one thing.

The first raises KeyboardInterrupt where the command is, or does what the command asked for with `instead`. Those that
follow while it puts its things in order change nothing, so that an impatient second Ctrl-C loses nothing; the third, a
second or more after the one before, ends the process at once. What whoever started the command had ignored stays
ignored (``nohup``).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_APART_S = 1.0  # what comes sooner after another is the same wish: a terminal and a wrapper both send it
_UNHEARD_S = 0.02
_ANEW = "interrupted; the same command starts anew"


class Interrupted(Exception):  # noqa: N818 - no error
    """A signal ended the command: the message says in one line what is kept and how to go on."""


class _Ended(KeyboardInterrupt):
    """A signal came. When a plain KeyboardInterrupt has passed an `exec`, as there is one in every dataclass, CPython
    ends the process by SIGINT at its end, whatever was made of it.
    """


class _Signals:
    """What came so far, and what the first does. There is one, as there is one process."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.instead: Callable[[], None] | None = None
        self.raised = False
        self.over = False
        self._wishes = 0
        self._last_s = 0.0

    def take(self, number: int, frame: FrameType | None) -> None:
        if self.over:
            return
        now_s = time.monotonic()
        apart = self._wishes == 0 or now_s - self._last_s >= _APART_S
        self._last_s = now_s
        self._wishes += apart
        if self.first is None:
            self.first = number
            if self.instead is not None:
                self.instead()
            else:
                self.raised = True
                raise _Ended
        elif apart and self._wishes == 2:
            os.write(2, b"\nending in good order; once more ends at once\n")
        elif apart:
            os._exit(128 + number)

    def unheard(self) -> None:
        """The interpreter could not pass KeyboardInterrupt on, for instance out of a ``__del__``: send it again."""
        number, self.first, self.raised = self.first, None, False
        if number is not None:
            threading.Timer(_UNHEARD_S, os.kill, (os.getpid(), number)).start()


_signals = _Signals()


@contextmanager
def heeded() -> Iterator[None]:
    """Heed the signals while the block runs; one that ends it becomes one line and the exit code of shells, 128 + n.

    The process ends with the block: from then on signals change nothing, and none disturbs how the interpreter ends.
    Outside the main thread, where Python takes no signals, the block runs as it is.
    """
    global _signals
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _signals = taken = _Signals()
    hook = sys.unraisablehook

    def unraisable(what: Any) -> None:
        if what.exc_type is _Ended:
            taken.unheard()
        else:
            hook(what)

    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, taken.take)
    sys.unraisablehook = unraisable
    try:
        yield
    except Interrupted as interrupted:
        _leave(str(interrupted), taken.first)
    except KeyboardInterrupt:
        _leave(_ANEW, taken.first)
    except SystemExit as left:  # typer's, of a KeyboardInterrupt
        if left.code != 130:
            raise
        _leave(_ANEW, taken.first)
    finally:
        taken.over = True
        ignored()
        sys.unraisablehook = hook


def _leave(message: str, number: int | None) -> None:
    from reports.console import say

    say(message, err=True)
    sys.exit(128 + (number or signal.SIGINT))


@contextmanager
def instead(act: Callable[[], None]) -> Iterator[None]:
    """While the block runs the first signal calls ``act``, in the main thread between any two instructions."""
    _signals.instead = act
    try:
        yield
    finally:
        _signals.instead = None


def came() -> bool:
    """Whether a signal has come that ends the command."""
    return _signals.first is not None


def lost() -> bool:
    """Whether a signal raised KeyboardInterrupt: a strange error may be what a library made of it, as pydantic does."""
    return _signals.raised and threading.current_thread() is threading.main_thread()


def ignored() -> None:
    """Leave all of them to another process, which ends this one in its time."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
