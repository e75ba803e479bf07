"""Waiting for what another thread or process does: long enough for any machine, and no longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 120.0
"""What takes longer hangs, however busy the machine."""


def comes_true(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> bool:
    """Whether a condition becomes true within so many seconds."""
    until = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
