"""How a command ends that cannot go on: one line, an exit code, and for what nobody expected a file to report.

0: done. 2: the input, the policy or the machine will not do, and the line says why. 3: done, and the answer is no,
or not known. 70: a mistake of Tilecast's own; its traceback is in the file that the line names. A traceback is never
printed.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator
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
    from policies.guard import class_name, is_of, of_system, text_of
    from reports.console import printable, say
    from traces.errors import BadInput

    if is_of(error, BadInput, PolicyError):
        line, code = f"error: {as_written(text_of(error), sys.argv[1:])}", UNUSABLE
    elif is_of(error, MemoryError):
        line, code = "error: not enough memory for this; make it smaller, or run it on a larger machine", UNUSABLE
    elif is_of(error, OSError) and (found := of_system(error)) is not None:
        said, file = found
        line, code = f"error: {said}{file and f': {as_written(file, sys.argv[1:])}'}", UNUSABLE
    else:
        first = (text_of(error).strip().splitlines() or [""])[0]
        line, code = f"internal error: {class_name(error)}: {first[:300]}; {_recorded(error)}", INTERNAL
    say(printable(line, lines=False), err=True)
    return code


def as_written(text: str, words: Iterable[str]) -> str:
    """A message in which files have the names that the user gave them, rather than those of where they lie.

    Args:
        text: the message.
        words: of the command line: files, options with ``=`` and a file, ``file.py:Class``.
    """
    written: dict[str, str] = {}
    for word in words:
        for given in {word, word.partition("=")[2]}:
            for suffix in ("", ".py", ".toml"):
                name = given.partition(f"{suffix}:")[0] + suffix if suffix and f"{suffix}:" in given else given
                if name and "\0" not in name and not Path(name).is_absolute():
                    with suppress(OSError, RuntimeError, ValueError):  # no home, a loop of links, no name of a file
                        expanded = Path(name).expanduser()
                        written |= {str(expanded.absolute()): name, str(expanded.resolve()): name}
    for path in sorted(written, key=len, reverse=True):
        if len(Path(path).parts) > 1:  # not the root, which every path begins with
            text = text.replace(path, written[path])
    return text


def foreseen(error: BaseException) -> bool:
    """Whether it is of the input, the policy or the machine, rather than a mistake of Tilecast's own."""
    from policies.contract import PolicyError
    from policies.guard import is_of, of_system
    from traces.errors import BadInput

    return is_of(error, BadInput, PolicyError, MemoryError) or (is_of(error, OSError) and of_system(error) is not None)


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
        *_formatted(error),
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


def _formatted(error: BaseException) -> list[str]:
    """A traceback; without what it came of where its class does not let that be read."""
    from policies.guard import class_name, text_of, traceback_of

    try:
        return traceback.format_exception(error)
    except Exception:
        return [*traceback.format_tb(traceback_of(error)), f"{class_name(error)}: {text_of(error)}\n"]


def _folders() -> Iterator[Path]:
    """Where a traceback may lie: the user's state folder, or else the system's for temporary files."""
    with suppress(RuntimeError):  # there is no home
        yield Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tilecast" / "errors"
    yield Path(tempfile.gettempdir()) / f"tilecast-errors-{os.getuid()}"
