"""Files that a process reads once for each time that they were written: the points of a study share them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def memoised_by_file(read: Callable[[Path], T], files: int = 8) -> Callable[[Path], T]:
    """``read``, answered from memory as long as the file is as it was; for what nobody changes.

    Args:
        files: to remember, those used last.
    """

    @lru_cache(maxsize=files)
    def version(path: Path, *_: int) -> T:
        return read(path)

    def recall(path: Path) -> T:
        try:
            status = path.stat()
        except OSError:
            return read(path)  # which says what is wrong with it
        return version(path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns)

    return recall
