"""What others call the devices that Tilecast knows."""

from __future__ import annotations

import re
from collections.abc import Iterable

from predictors.hardware import Hardware, shipped_hardware

_VENDORS = frozenset({"nvidia", "amd", "geforce", "instinct", "tesla", "gpu", "rtx"})


def known_hardware(name: str) -> Hardware | None:
    """The kind of the shipped catalogue that has the chip that ``name`` says; None: there is none.

    Of several kinds with this chip it is the one that shares most words with the name.
    """
    for key, kind in shipped_hardware().items():
        if _compact(name) in (_compact(key), _compact(kind.name)):
            return kind
    words = _words([name])
    chips = {word for word in words if re.search(r"[a-z]\d|^\d{4}$", word) and not word.endswith("gb")}
    best, shared = None, 0
    for key, kind in shipped_hardware().items():
        own = _words([key, kind.name])
        if chips & own and len(words & own) > shared:
            best, shared = kind, len(words & own)
    return best


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z0-9.]+", text.lower())} - _VENDORS


def _compact(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
