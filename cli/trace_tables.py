"""Traces and imports as tables in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from reports.console import new_console
from traces.sizes import format_size

if TYPE_CHECKING:
    from traces.importers.imported import ImportReport
    from traces.trace import Trace

MOST_ROWS = 12


def show_summary(trace: Trace) -> None:
    """Print the figures and the tables of a trace."""
    s = trace.summary()
    figures = _plain_table("figure", "value")
    for name, value in (
        ("requests", f"{s.requests:,}"),
        ("images", f"{s.images:,}"),
        ("with a deadline or SLO", f"{s.with_deadline:,}"),
        ("span", f"{s.span_s:,.1f} s"),
        ("mean rate", _figure(s.rate, " /s")),
        ("CV of intervals (Poisson: 1)", _figure(s.interarrival_cv)),
        ("dispersion per minute (Poisson: 1)", _figure(s.dispersion)),
    ):
        figures.add_row(name, value)
    sizes = {format_size(size): count for size, count in s.sizes.items()}
    models = {name or "(any)": count for name, count in s.models.items()}
    tenants = {name or "(none)": count for name, count in s.tenants.items()}
    console = new_console()
    console.print(trace.source, soft_wrap=True)
    console.print(
        Group(
            figures,
            _count_table("height x width", sizes),
            _count_table("steps", s.steps),
            _count_table("images a request", s.images_per_request),
            _count_table("model", models),
            _count_table("tenant", tenants),
        )
    )


def show_report(report: ImportReport) -> None:
    """Print the account of an import's rows."""
    table = _plain_table("rows", "count")
    table.add_row("read", f"{report.read:,}")
    for reason, count in report.left_out.items():
        table.add_row(f"left out: {reason}", f"{count:,}")
    table.add_row("used", f"{report.used:,}")
    notes = [_count_table(title, counts) for title, counts in report.notable.items()]
    console = new_console()
    console.print(report.source, soft_wrap=True)
    console.print(Group(table, *notes))
    for note in report.notes:
        console.print(f"! {note}", soft_wrap=True)


def _count_table(title: str, counts: Mapping[str, int] | Mapping[int, int]) -> Table:
    table = _plain_table(title, "count")
    items = [(str(value), count) for value, count in counts.items()]
    for value, count in items[:MOST_ROWS]:
        table.add_row(value, f"{count:,}")
    if len(items) > MOST_ROWS:
        rest = sum(count for _, count in items[MOST_ROWS:])
        table.add_row(f"({len(items) - MOST_ROWS} more)", f"{rest:,}")
    return table


def _plain_table(name: str, value: str) -> Table:
    table = Table()
    table.add_column(name, overflow="fold")
    table.add_column(value, justify="right")
    return table


def _figure(value: float, unit: str = "") -> str:
    return "not defined" if math.isnan(value) else f"{value:.4g}{unit}"
