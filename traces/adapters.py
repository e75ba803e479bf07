"""Adapters (LoRAs) of a request: names and weights, ``style:0.8+detail:0.5``.

What is put on a checkpoint together is a *set*: the order in which it is written changes nothing, so that requests that
spell it differently can still share a batch. A name is that of a file without its suffix, and never a path.
"""

from __future__ import annotations

import re
from functools import lru_cache

from traces.limits import Range, Text

WEIGHT = Range(-100, 100)
MOST = 100
"""Of one request."""

AdapterSet = tuple[tuple[str, float], ...]
"""((name, weight), ...), sorted by name."""

_NAME = re.compile(r"[^+:/\\\s.][^+:/\\]*")
_RIGHT = "adapters' names and weights, like 'style:0.8+detail' (a name is that of a file, a weight alone is 1)"


class WrongAdapters(ValueError):  # noqa: N818
    """A text that names no set of adapters."""


@lru_cache(maxsize=65536)
def adapters_in(text: str) -> AdapterSet:
    """The set that a text spells; empty: none.

    Raises:
        WrongAdapters: it spells none.
    """
    if not text:
        return ()
    found: dict[str, float] = {}
    for part in text.split("+"):
        name, colon, spelled = part.strip().partition(":")
        name = name.rstrip()
        try:
            weight = float(spelled) if colon else 1.0
        except ValueError:
            raise WrongAdapters(f"weight {spelled!r} is no number") from None
        if not _NAME.fullmatch(name) or _is_number(name):
            raise WrongAdapters(f"{name!r} is no adapter's name")
        if not WEIGHT.holds(weight):
            raise WrongAdapters(f"weight {spelled!r} is not {WEIGHT}")
        if name in found:
            raise WrongAdapters(f"{name!r} is named twice")
        found[name] = weight
    if len(found) > MOST:
        raise WrongAdapters(f"{len(found)} adapters are more than {MOST}")
    return tuple(sorted(found.items()))


@lru_cache(maxsize=65536)
def same_adapters(text: str) -> str:
    """One spelling of the set that a text spells, the same for all that mean it.

    Raises:
        WrongAdapters: it spells none.
    """
    return "+".join([name if weight == 1.0 else f"{name}:{weight!r}" for name, weight in adapters_in(text)])


class AdapterText(Text):
    """Texts that spell a set of adapters."""

    __slots__ = ()

    def __str__(self) -> str:
        """What would be right, for messages."""
        return _RIGHT

    def holds(self, value: object) -> bool:
        """Whether ``value`` is such a text."""
        if not isinstance(value, str) or not Text(self.most).holds(value):
            return False
        try:
            adapters_in(value)
        except WrongAdapters:
            return False
        return True


ADAPTERS = AdapterText(4096)
"""What the adapters of a request may be."""


def _is_number(name: str) -> bool:
    """Whether it is how many adapters there are, rather than the name of one."""
    try:
        float(name)
    except ValueError:
        return False
    return True
