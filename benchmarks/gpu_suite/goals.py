"""What the project wants to reach on a GPU, and whether results say that it does."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.gpu_suite.point import BASELINES, Point, Result
from benchmarks.gpu_suite.points import THREE, squares
from benchmarks.gpu_suite.store import Suite
from traces.composition import format_composition

ALONE = 1.5
"""Times as fast as one by one: SDXL at 512, 768 and 1024 px in one batch."""
NEVER_BELOW = 0.97
"""Times as fast as the best baseline: any mix."""
OF_COPY = 0.6
"""Of the bandwidth of a copy: the stitcher."""
EQUAL_TOKENS = 0.05
"""Longer than as many tokens in images of one size: packed steps."""
LATENCY = 0.05
ATTAINMENT = 0.02
"""Simulated against real: errors of P50 and P95, and of attainment."""

REACHED, NOT_REACHED, NOT_MEASURED = "reached", "not reached", "not measured"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal.

    Attributes:
        goal: in words.
        found: the figure that decides, where it was seen, and of how many points it is the worst; "" without any.
        verdict: one of `REACHED`, `NOT_REACHED`, `NOT_MEASURED`.
    """

    goal: str
    found: str
    verdict: str


def ratio(result: Result, way: str) -> float | None:
    """How many times as long ``way`` takes as the point's own way, the median over rounds; None: it was not timed."""
    other = result.get("ways", {}).get(way)
    if other is None:
        return None
    if len(other["repeats"]) != len(result["repeats"]):
        return float(other["seconds"] / result["seconds"])
    return statistics.median(theirs / own for theirs, own in zip(other["repeats"], result["repeats"], strict=True))


def copy_share(result: Result) -> float | None:
    """The share of the bandwidth of a copy, measured beside it, at which a kernel moves the fewest bytes."""
    if not result.get("bytes") or not result.get("copy_bytes_per_s"):
        return None
    return float(result["bytes"] / result["seconds"] / result["copy_bytes_per_s"])


def verdicts(suite: Suite) -> list[Verdict]:
    """Each goal."""
    return [
        _alone(suite),
        _never_below(suite),
        _stitcher(suite),
        _equal_tokens(suite),
        _simulator(suite),
    ]


def _alone(suite: Suite) -> Verdict:
    goal = f"SDXL, 512 + 768 + 1024 px: at least {ALONE:g}x one by one"
    found = {
        point: value
        for point, result in _of(suite, "mix", "sdxl")
        if point.composition == squares(*THREE) and (value := ratio(result, "one-by-one")) is not None
    }
    return _verdict(goal, found, min, lambda value: f"{value:.2f}x", lambda value: value >= ALONE)


def _never_below(suite: Suite) -> Verdict:
    goal = f"every mix at least {NEVER_BELOW:g}x the best baseline"
    found = {}
    for point, result in _of(suite, "mix"):
        ratios = [value for way in BASELINES if (value := ratio(result, way)) is not None]
        if ratios:
            found[point] = min(ratios)
    below = sum(value < NEVER_BELOW for value in found.values())
    note = f"; {below} below, which a policy must refuse to mix" if below else ""
    return _verdict(goal, found, min, lambda value: f"{value:.2f}x", lambda value: value >= NEVER_BELOW, note)


def _stitcher(suite: Suite) -> Verdict:
    goal = f"stitcher: at least {OF_COPY:.0%} of the bandwidth of a copy"
    found = {
        point: value for point, result in _of(suite, "kernel", "stitch") if (value := copy_share(result)) is not None
    }
    return _verdict(goal, found, min, lambda value: f"{value:.0%}", lambda value: value >= OF_COPY)


def _equal_tokens(suite: Suite) -> Verdict:
    goal = f"packed steps: within {EQUAL_TOKENS:.0%} of as many tokens at one size"
    found, more_work = {}, {}
    for point, result in _of(suite, "mix"):
        value = ratio(result, "equal-tokens")
        if value is not None:
            own, equal = result["ways"][point.way], result["ways"]["equal-tokens"]
            tokens = (equal.get("tokens") or 1) / (own.get("tokens") or 1)
            found[point] = tokens / value - 1
            if own.get("tflop") and equal.get("tflop"):
                more_work[point] = tokens * own["tflop"] / equal["tflop"] - 1
    worst = max(found, key=found.__getitem__, default=None)
    note = f"; larger images attend to more: {more_work[worst]:+.1%} work" if worst in more_work else ""
    return _verdict(goal, found, max, lambda value: f"{value:+.1%}", lambda value: value <= EQUAL_TOKENS, note)


def _simulator(suite: Suite) -> Verdict:
    goal = (
        f"simulator: P50 and P95 within {LATENCY:.0%}, attainment within {100 * ATTAINMENT:.0f} points of real replays"
    )
    found = {point: replay_errors(result) for point, result in _of(suite, "replay")}
    within = all(
        abs(p50) <= LATENCY and abs(p95) <= LATENCY and abs(attainment) <= ATTAINMENT
        for p50, p95, attainment in found.values()
    )
    words = "; ".join(f"{point.way}: {spell_errors(errors)}" for point, errors in found.items())
    return Verdict(goal, words, (REACHED if within else NOT_REACHED) if found else NOT_MEASURED)


def replay_errors(result: Result) -> tuple[float, float, float]:
    """Of a replay's simulation: of P50 and P95, shares of the real latency, and of attainment, a difference."""
    figures = result["figures"]
    p50, p95, attainment = (
        float(figures[name]["error"]) for name in ("latency_p50_s", "latency_p95_s", "slo_attainment")
    )
    return p50, p95, attainment


def spell_errors(errors: tuple[float, float, float]) -> str:
    """As text."""
    p50, p95, attainment = errors
    return f"P50 {p50:+.1%}, P95 {p95:+.1%}, attainment {100 * attainment:+.1f} points"


def _of(suite: Suite, group: str, name: str = "") -> Iterable[tuple[Point, Result]]:
    for point, result in suite.measured.items():
        if point.group == group and name in ("", point.name):
            yield point, result


def _verdict(
    goal: str,
    found: dict[Point, float],
    worst: Callable[..., Point],
    words: Callable[[float], str],
    reached: Callable[[float], bool],
    note: str = "",
) -> Verdict:
    if not found:
        return Verdict(goal, "", NOT_MEASURED)
    point = worst(found, key=found.__getitem__)
    of = f" (the worst of {len(found)})" if len(found) > 1 else ""
    where = " ".join([point.name, *([format_composition(point.composition)] if point.composition else [])])
    return Verdict(goal, f"{words(found[point])}, {where}{of}{note}", REACHED if reached(found[point]) else NOT_REACHED)
