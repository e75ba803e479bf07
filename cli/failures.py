"""How a command ends that cannot go on: one line, an exit code, and for what nobody expected a file to report.

0: done. 2: the input, the policy or the machine will not do, and the line says why. 3: done, and the answer is no.
70: a mistake of Tilecast's own; its traceback is in the file that the line names. A traceback is never printed.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

UNUSABLE = 2
NEGATIVE = 3
INTERNAL = 70


def failed(error: BaseException) -> int:
    """Say in one line on the standard error why a command ends; the exit code."""
    from policies.contract import PolicyError
    from reports.console import printable, say
    from traces.errors import BadInput

    if isinstance(error, BadInput | PolicyError):
        line, code = f"error: {error}", UNUSABLE
    elif isinstance(error, MemoryError):
        line, code = "error: not enough memory for this; make it smaller, or run it on a larger machine", UNUSABLE
    elif isinstance(error, OSError) and error.strerror is not None:
        where = "" if error.filename is None else f": {error.filename}"
        line, code = f"error: {error.strerror}{where}", UNUSABLE
    else:
        said = str(error).strip().splitlines() or [""]
        line, code = f"internal error: {type(error).__name__}: {said[0][:300]}; {_recorded(error)}", INTERNAL
    say(printable(line, lines=False), err=True)
    return code


def foreseen(error: BaseException) -> bool:
    """Whether it is of the input, the policy or the machine, rather than a mistake of Tilecast's own."""
    from policies.contract import PolicyError
    from traces.errors import BadInput

    return isinstance(error, BadInput | PolicyError | MemoryError) or (
        isinstance(error, OSError) and error.strerror is not None
    )


@contextmanager
def failing_threads() -> Iterator[None]:
    """While the block runs, what ends a thread is said in a line, too."""

    def say(what: threading.ExceptHookArgs) -> None:
        if what.exc_value is not None:
            failed(what.exc_value)

    before, threading.excepthook = threading.excepthook, say
    try:
        yield
    finally:
        threading.excepthook = before


def _recorded(error: BaseException) -> str:
    """Where the traceback is now."""
    lines = [
        f"tilecast {version('tilecast')}, Python {platform.python_version()}, {platform.platform()}\n",
        f"{sys.argv}\n\n",
        *traceback.format_exception(error),
    ]
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for folder in _folders():
        with suppress(OSError, RuntimeError):
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(".txt", f"{now}-", folder)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(lines)
            return f"please report it with {name}, which holds the traceback"
    return "please report it (no folder could be written to for its traceback)"


def _folders() -> Iterator[Path]:
    """Where a traceback may lie: the user's state folder, or else the system's for temporary files."""
    with suppress(RuntimeError):  # there is no home
        yield Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tilecast" / "errors"
    yield Path(tempfile.gettempdir()) / f"tilecast-errors-{os.getuid()}"
