"""Rates and shares as people write them: ``500/h``, ``3/s``, ``2.5/min``; ``20%``."""

from __future__ import annotations

import math

from traces.errors import BadInput
from traces.exact import number_of
from traces.limits import Range

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}
_PERCENT = Range(0, 1000, "%")
RATES_RPS = Range(1e-9, 1e6, "requests a second")


def parse_percent(text: str, what: str) -> float:
    """A share as people write it: ``20%``, or ``0.2``.

    Args:
        text: such as ``20%``; at most 1000 %.
        what: what it is, for the error.

    Raises:
        BadInput: no such share.
    """
    number, sign, rest = text.strip().partition("%")
    value = number_of(number.strip())
    percent = value if sign or not isinstance(value, int | float) else 100 * value
    if rest.strip() or not isinstance(percent, int | float) or not _PERCENT.holds(percent):
        raise BadInput(f"{what} is {text!r}, expected {_PERCENT} like 20%, or 0.2")
    return percent / 100


def parse_rate(text: str, what: str) -> float:
    """Requests a second; a number alone is that already.

    Args:
        text: such as ``500/h``.
        what: what it is, for the error.

    Raises:
        BadInput: no such rate.
    """
    number, slash, unit = text.strip().partition("/")
    value = number_of(number.strip())
    if isinstance(value, int):
        value = float(number)  # however many digits it has
    if not isinstance(value, float) or math.isnan(value) or (slash and unit.strip() not in _SECONDS):
        raise BadInput(f"{what} is {text!r}, expected a rate like 500/h; units: {', '.join(_SECONDS)}")
    rate = value / (_SECONDS[unit.strip()] if slash else 1.0)
    if not RATES_RPS.holds(rate):
        raise BadInput(f"{what} is {text!r}, expected {RATES_RPS}")
    return rate
