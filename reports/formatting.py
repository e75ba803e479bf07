"""How values are written for people: one with its unit, one with its uncertainty, a share by its order."""

from __future__ import annotations

import math
from typing import Literal

from reports.output_analysis import Interval

Unit = Literal["", "s", "1/s", "x", "%"]
"""``%``: the value is a fraction, which is shown times 100; ``x``: a factor; nothing: a count."""

NONE = "–"
"""What is not defined."""

_NOTHING = 1e-9
"""A difference of shares that rounding alone makes."""

_SUFFIXES: dict[Unit, str] = {"": "", "s": " s", "1/s": " /s", "x": "", "%": " %"}


def format_value(value: float, unit: Unit) -> str:
    """A value with its unit, at a precision people can use; a dash: it is not defined; ``∞``: it never comes."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return _number(value, unit) + _SUFFIXES[unit]


def format_interval(value: Interval, unit: Unit) -> str:
    """``95.2 ± 0.6 %``, ``12.3 ± 0.4 s``: with as many decimals as the mean needs, and the mean alone where one
    replication is all there is.

    One that reaches beyond what is possible, below nothing or above 100 %, is cut off there and has its ends written:
    ``70.3 (0–100) %``.
    """
    if not (math.isfinite(value.half_width) and math.isfinite(value.mean)):
        return format_value(value.mean, unit)
    mean = _number(value.mean, unit)
    decimals, scale = len(mean.partition(".")[2]), 100 if unit == "%" else 1
    most = 1.0 if unit == "%" else math.inf
    if value.mean >= 0 and (value.low < 0 or value.high > most):
        low = "0" if value.low <= 0 else f"{scale * value.low:,.{decimals}f}"
        high = "100" if value.high >= most else f"{scale * value.high:,.{decimals}f}"
        return f"{mean} ({low}–{high}){_SUFFIXES[unit]}"
    return f"{mean} ± {scale * value.half_width:,.{decimals}f}{_SUFFIXES[unit]}"


def percent(value: float) -> str:
    """``95 %``, ``99.9 %``: no more digits than it has."""
    return NONE if math.isnan(value) else f"{100 * value:.4g} %"


def about(value: float) -> str:
    """A share of which the order matters: ``12 %``, ``0.4 %``, ``< 0.1 %``."""
    if 0 < value < 0.001:
        return "< 0.1 %"
    return f"{100 * value:.2g} %"


def file_size(count: int) -> str:
    """Bytes for people: ``1.3 MB``, ``4 kB``."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{math.ceil(count / 1e3)} kB"


def times(value: float) -> str:
    """``1.31×``."""
    return NONE if math.isnan(value) else f"{value:.2f}×"


def format_rate(rate_rps: float) -> str:
    """Requests a second as so many an hour: ``480/h``, ``12.5/h``."""
    hourly = 3600 * rate_rps
    return f"{hourly:,.0f}/h" if hourly >= 100 else f"{hourly:.3g}/h"


def _number(value: float, unit: Unit) -> str:
    """A finite value without its unit: shares to a tenth of a percent, counts whole, others to three digits at least,
    never in scientific notation."""
    if unit == "%":
        return _percent(value)
    if unit == "" or value == 0:
        return f"{value:,.0f}"
    decimals = min(6, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{decimals}f}"


def _percent(share: float) -> str:
    """A share times 100, to a tenth; but only nothing is 0.0, and only all is 100.0: what is near has the digits it
    takes, or is 0.001 off."""
    nearest = round(share)
    if nearest not in (0, 1):
        return f"{100 * share:.1f}"
    if abs(share - nearest) <= _NOTHING:
        return f"{100 * nearest:.1f}"
    for decimals in (1, 2, 3):
        text = f"{100 * share:.{decimals}f}"
        if float(text) != 100 * nearest:
            return text
    return f"{100 * nearest + math.copysign(0.001, share - nearest):.3f}"
