"""What a folder holds as tables: what each point reached of the device's ceilings and against other ways; the goals."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from benchmarks.gpu_suite.budget import START_S, Pace, Planned
from benchmarks.gpu_suite.goals import copy_share, ratio, replay_errors, spell_errors, verdicts
from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.store import Suite

GB = 1e9


def results_table(suite: Suite) -> RenderableType:
    """All points, then the goals; it is about the device that `Suite.facts` name."""
    facts = suite.facts
    title = f"{facts.get('hardware', '?')}, {facts.get('dtype', '?')}, {facts.get('date', '?')[:10]}"
    table = Table(title=title, title_justify="left")
    table.add_column("point", no_wrap=True)
    for name in ("time", "rate", "of ceiling"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("beside it (times as fast)")
    table.add_column("peak GB", justify="right", no_wrap=True)
    for point, result in suite.results.items():
        if "failed" in result:
            table.add_row(point.key, "failed", "", "", result["failed"], "")
        else:
            table.add_row(*_row(suite, point, result))
    goals = Table("goal", "found", "verdict", title="Goals", title_justify="left")
    narrow = facts.get("models") == "narrow"
    for verdict in verdicts(suite):
        goals.add_row(verdict.goal, verdict.found, "narrow models" if narrow else verdict.verdict)
    if narrow:
        goals.caption, goals.caption_justify = "Narrow models show that everything runs, not what is reached.", "left"
    return Group(table, goals)


def plan_table(planned: Sequence[Planned], minutes: float, pace: Pace, what: str) -> RenderableType:
    """A plan: what each point is predicted to take, when it ends, and what is left out."""
    table = Table("point", title=f"Plan for {minutes:g} minutes on {what}", title_justify="left")
    for name in ("seconds", "ends at"):
        table.add_column(name, justify="right")
    for each in planned:
        table.add_row(each.point.key, f"{each.seconds:.1f}", "left out" if each.end_s is None else f"{each.end_s:.0f}")
    taken = [each.seconds for each in planned if each.end_s is not None]
    out = sum(each.seconds for each in planned) - sum(taken)
    table.caption = (
        f"{len(taken)} points: {START_S + sum(taken):.0f} s, {START_S:.0f} s of them to start, of {pace.limit_s:.0f} s "
        f"that are planned with; {len(planned) - len(taken)} are left out: {out:.0f} s more"
    )
    table.caption_justify = "left"
    return table


def spell_seconds(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:.0f} {unit}"
    raise AssertionError


def rate(result: Result) -> tuple[float, str] | None:
    """What is reached: operations a second where they are counted, else bytes a second; and its unit."""
    seconds = result["seconds"]
    if result.get("tflop"):
        return result["tflop"] / seconds, "TFLOP/s"
    if result.get("bytes"):
        return result["bytes"] / seconds / GB, "GB/s"
    return None


def of_ceiling(suite: Suite, point: Point, result: Result) -> float | None:
    """The share of what the device was seen to do at best; None where that was not measured."""
    if point.group == "ceiling":
        return None
    found = rate(result)
    if found is None:
        return None
    reached, unit = found
    if unit == "GB/s" and (share := copy_share(result)) is not None:
        return share
    ceilings = [
        best[0]
        for other, measured in suite.measured.items()
        if (other.group, other.way) == ("ceiling", "device" if unit == "GB/s" else suite.facts.get("dtype"))
        and (best := rate(measured)) is not None
    ]
    return reached / ceilings[-1] if ceilings else None


def _row(suite: Suite, point: Point, result: Result) -> list[str]:
    found, share = rate(result), of_ceiling(suite, point, result)
    peak = result.get("peak_bytes")
    return [
        point.key,
        spell_seconds(result["seconds"]),
        f"{found[0]:.3g} {found[1]}" if found else "",
        f"{share:.0%}" if share is not None else "",
        _beside(point, result),
        f"{peak / GB:.2f}" if peak else "",
    ]


def _beside(point: Point, result: Result) -> str:
    words = []
    for way in result.get("ways", {}):
        times = None if way == point.way else ratio(result, way)
        if times is not None:
            words.append(f"{times:.2f}x {way}")
    if "chosen" in result and result["chosen"] != point.way:
        words.append(f"better: {result['chosen']}")
    if "computed" in result:
        words.append(f"{result['computed']:.0%} computed")
    if "compile_s" in result:
        words.append(f"compiled in {result['compile_s']:.0f} s")
    if result.get("recorded"):
        words.append(f"{result['recorded']} recorded")
    if "figures" in result:
        words.append(f"simulated: {spell_errors(replay_errors(result))}")
    if result.get("reproduced") is False:
        words.append("decisions not reproduced")
    return ", ".join(words)
