"""The clock of a run: it starts at the first request, not in 1970.

Traces come with times since 1970, since a server was started or since midnight. Nothing happens before the first
request, so a run that kept such times would wait, or draw failures, for decades. A short wait is a part of the trace
(the first interval of a Poisson process) and is kept.
"""

from __future__ import annotations

from datetime import UTC, datetime

from traces.trace import Trace

LONGEST_WAIT_S = 60.0
"""A trace whose first request comes later than this begins with it."""

SINCE_1970_S = 1e8
"""Times from here on (March 1973) are taken for seconds since 1970, up to the year 2286."""

UNITS_SINCE_1970 = {"ns": 1e17, "us": 1e14, "ms": 1e11, "s": SINCE_1970_S}
"""From which numbers on times since 1970 are in which unit, the largest first."""


def on_run_clock(trace: Trace, wait_s: float = LONGEST_WAIT_S) -> tuple[Trace, float]:
    """The trace on the clock of its run, and the seconds that were taken off (0: none).

    Args:
        trace: deadlines are shifted with the arrivals.
        wait_s: how late, in seconds, the first request may come; later, time 0 is its arrival.
    """
    rebased, first_s = trace.rebased()
    return (rebased, first_s) if first_s > wait_s else (trace, 0.0)


def format_start(first_s: float) -> str:
    """Where a clock starts, in a sentence: the seconds that were taken off, with their date if they have one."""
    date = ""
    if first_s >= SINCE_1970_S:
        date = f", {datetime.fromtimestamp(first_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f"the clock starts at the first request: {first_s:.15g} s were taken off all times{date}"


def unit_since_1970(value: float) -> str:
    """The unit in which a number would be a time since 1970 (``ns``, ``us``, ``ms`` or ``s``); empty: in none."""
    return next((unit for unit, least in UNITS_SINCE_1970.items() if value >= least), "")
