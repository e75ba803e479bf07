"""Ways to do the same thing, timed against each other: round by round, so that a slow spell meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Timing(NamedTuple):
    """CPU seconds of this thread (median over rounds), and their ratio to the first way's of the same round.

    ``result`` is what the way returned when it warmed up.
    """

    cpu_s: float
    ratio: float
    lowest: float
    highest: float
    result: Any


def interleaved(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Time every way once a round, after one round to warm up."""
    results = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
    base = next(iter(seconds.values()))
    timings = {}
    for name, taken in seconds.items():
        ratios = [own / first for own, first in zip(taken, base, strict=True)]
        timings[name] = Timing(
            statistics.median(taken), statistics.median(ratios), min(ratios), max(ratios), results[name]
        )
    return timings
