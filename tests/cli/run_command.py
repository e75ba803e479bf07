"""The command line in this process."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cli.main import main
from reports import progress
from tilecast.signals import ENDING


def run(*arguments: object) -> str:
    """Run ``tilecast ARGUMENTS``; what it printed."""
    return _call(arguments, 0)


def refused(*arguments: object) -> str:
    """Run ``tilecast ARGUMENTS``, which must end with exit code 2 and one line; that line."""
    lines = _call(arguments, 2).strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def negative(*arguments: object) -> str:
    """Run ``tilecast ARGUMENTS``, which must end with exit code 3: its answer is there, and is no; what it printed."""
    return _call(arguments, 3)


def either(*arguments: object) -> str:
    """Run ``tilecast ARGUMENTS``, whose answer may be yes or no (exit code 0 or 3); what it printed."""
    return _call(arguments, 0, 3)


def ends_with(code: int, *arguments: object) -> str:
    """Run ``tilecast ARGUMENTS``, which must end with this exit code; what it printed."""
    return _call(arguments, code)


@contextmanager
def own_signals() -> Iterator[None]:
    """Undo what a command does to the signals, of which it ignores all when it is done."""
    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background of a script had it ignored
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _call(arguments: tuple[object, ...], *wanted: int) -> str:
    import contextlib
    import io

    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        own_signals(),
    ):
        patch.setattr(sys, "argv", ["tilecast", *map(str, arguments)])
        patch.setattr(progress, "FIRST_LINE_S", math.inf)  # how slow a machine is changes nothing that is printed
        with pytest.raises(SystemExit) as ended:
            main()
    text = printed.getvalue()
    assert (ended.value.code or 0) in wanted, text
    return text
