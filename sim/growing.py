"""Millions of objects that are made and kept: without this, Python looks for garbage among them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def growing() -> Iterator[None]:
    """Let no garbage be collected meanwhile: what is made is kept, and looking at all of it anew takes longer than
    making it. What nothing refers to is freed at once all the same."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
