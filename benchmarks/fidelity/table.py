"""The findings of a fidelity study in words and tables: Markdown that can be read as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.fidelity.compare import Findings
from benchmarks.fidelity.study import percent
from reports.fidelity import GOALS, format_difference
from reports.figures import figure
from reports.formatting import format_value

LABELS = {"latency_p50_s": "P50", "latency_p95_s": "P95", "latency_p99_s": "P99", "slo_attainment": "attainment"}


def markdown(findings: Findings) -> str:
    """Everything: what was measured, the verdict, the errors, the same at the machine's speed, and the real runs."""
    facts = findings.facts
    settings = facts["settings"]
    goals = ", ".join(
        f"{LABELS[name]} {format_difference(goal, figure(name).unit, signed=False)}" for name, goal in GOALS.items()
    )
    return "\n\n".join(
        [
            f"{facts['model']} on {facts['hardware']}, {facts['date']}: {settings['requests']} requests a run, "
            f"{settings['steps']} steps, executor {settings['executor']}, caching {settings['caching'] or 'none'}. "
            f"Goals: {goals}.",
            verdict(findings),
            f"Mean of {settings['repeats']} real runs: error of the mean of {facts['simulated_seeds']} simulated ones "
            "(spread of the real ones); a star where a goal is missed:",
            _table(["load", "scheduler", *LABELS.values()], _lines(findings.figures, _cell)),
            "Diagnostic: the errors of simulations that are told how fast the machine was in each real run:",
            _table(["load", "scheduler", *LABELS.values()], _lines(findings.figures, _cell_at_speed)),
            "The real runs: measured over profiled seconds (above 1: slower than profiled), in all and by stage:",
            _table(
                ["load", "scheduler", "run", "speed", "encode", "denoise", "decode", "busy", "decisions", "reproduced"],
                [_run(row) for row in findings.runs.to_dict("records")],
            ),
        ]
    )


def verdict(findings: Findings) -> str:
    """In a sentence: how many goals were met, up to 70 % load and above, and whether decisions were reproduced."""
    low = findings.figures["load"] <= 0.7
    parts = []
    for chosen, name in ((low, "up to 70 % load"), (~low, "above")):
        met = findings.figures.loc[chosen, "met"]
        if len(met):
            parts.append(f"{int(met.sum())} of {len(met)} goals met {name}")
    reproduced = findings.runs["reproduced"]
    parts.append(f"decisions reproduced in {int(reproduced.sum())} of {len(reproduced)} real runs")
    return f"{', '.join(parts)}."


def _lines(figures: pd.DataFrame, spell: Callable[[Mapping[Any, Any]], str]) -> list[list[str]]:
    """A line a load and scheduler, a cell a figure."""
    cells: dict[tuple[float, str], dict[str, str]] = {}
    for row in figures.to_dict("records"):
        cells.setdefault((row["load"], row["scheduler"]), {})[row["figure"]] = spell(row)
    return [
        [_percent(load), scheduler, *(of_one[name] for name in LABELS)] for (load, scheduler), of_one in cells.items()
    ]


def _cell(row: Mapping[Any, Any]) -> str:
    unit = figure(row["figure"]).unit
    error, spread = format_difference(row["error"], unit), format_difference(row["spread"], unit, signed=False)
    return f"{format_value(row['real'], unit)}: {error} ({spread}){'' if row['met'] else ' *'}"


def _cell_at_speed(row: Mapping[Any, Any]) -> str:
    return format_difference(row["at_speed_error"], figure(row["figure"]).unit)


def _run(row: Mapping[Any, Any]) -> list[str]:
    return [
        _percent(row["load"]),
        str(row["scheduler"]),
        str(row["repeat"]),
        *(f"{row[name]:.3f}" for name in ("speed", "speed_encode", "speed_denoise", "speed_decode")),
        _percent(row["utilisation"]),
        str(row["decisions"]),
        "all" if row["reproduced"] else "no",
    ]


def _percent(share: float) -> str:
    return f"{percent(share)} %"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (heads, rule, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
