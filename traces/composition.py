"""What runs together: the composition of a batch.

A composition is the multiset of sizes in a launch, counted in images, because that is all a step's latency
depends on. It is the key that profiles are measured by and predictors are asked with, so it is canonical
(sorted) and has one spelling as text: ``2@512x512+1@768x1024``, ``1@480x832x81`` for a clip of 81 frames,
``1@512x512r1048576`` for an edit that sees reference pictures of so many pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from traces.errors import BadInput
from traces.request import Size
from traces.sizes import format_size

Composition = tuple[tuple[Size, int], ...]
"""((size, images), ...), sorted by size, every count at least 1."""

_ITEM = re.compile(r"(\d+)@(\d+)x(\d+)(?:x(\d+))?(?:r(\d+))?")


def composition_of(items: Iterable[tuple[Size, int]]) -> Composition:
    """The canonical composition of (size, images) pairs in any order, equal sizes merged."""
    count: dict[Size, int] = {}
    for size, images in items:
        count[size] = count.get(size, 0) + images
    return tuple(sorted(count.items()))


@lru_cache(maxsize=65536)
def format_composition(composition: Composition) -> str:
    """The composition as text."""
    return "+".join(f"{n}@{format_size(size)}" for size, n in composition)


def parse(text: str) -> Composition:
    """The composition a text spells; BadInput when it spells none."""
    items = []
    for part in text.split("+"):
        match = _ITEM.fullmatch(part.strip())
        if match is None:
            raise BadInput(
                f"composition {text!r}: {part!r} is not like '2@512x768' (images@heightxwidth[xframes][rpixels of "
                "reference pictures])"
            )
        n, h, w, f, seen = match.groups()
        size = (int(h), int(w), int(f or 1))
        items.append(((*size, int(seen)) if seen else size, int(n)))
    composition = composition_of(items)
    if any(n < 1 or min(size) < 1 for size, n in composition):
        raise BadInput(f"composition {text!r}: counts and sizes must be at least 1")
    return composition
