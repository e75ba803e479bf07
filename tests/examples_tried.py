"""How many examples a slow property is tried with: few, and others in every run.

The environment variable TILECAST_EXAMPLES has so many times as many of them tried: ``TILECAST_EXAMPLES=10 pytest``.
"""

from __future__ import annotations

import os

_TIMES = int(os.environ.get("TILECAST_EXAMPLES", "1"))


def examples(few: int) -> int:
    """``few``, or the multiple that is asked for."""
    return few * _TIMES
