"""Of many models that are tried alike some stand for the others; TILECAST_MIXES=15 tries all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable

SWEEP = int(os.environ.get("TILECAST_MIXES", "2")) > 2


def some(names: Iterable[str], *standing: str) -> list[str]:
    """All of these names in a sweep, else those that stand for them."""
    known = list(names)
    assert set(standing) <= set(known), set(standing) - set(known)
    return known if SWEEP else list(standing)
