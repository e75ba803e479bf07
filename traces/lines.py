"""Files that grow by a line at a time: a kill at any moment leaves whole lines, and at most one torn one."""

from __future__ import annotations

from typing import IO

from traces.errors import BadInput


def append_line(file: IO[bytes], line: str) -> None:
    """Write a line to the end of an unbuffered file.

    Raises:
        BadInput: it cannot be written.
    """
    data = line.encode() + b"\n"
    try:
        while data:  # an unbuffered file may take less than it is given
            data = data[file.write(data) :]
    except OSError as error:
        raise BadInput(f"cannot write {file.name}: {error.strerror}") from error


def whole_lines(file: IO[bytes]) -> list[bytes]:
    """The lines of a file that is open for reading and writing; a torn last one is cut off."""
    file.seek(0)
    *lines, torn = file.read().split(b"\n")
    if torn:
        file.truncate(file.tell() - len(torn))
    file.seek(0, 2)
    return lines
