"""A sweep as one HTML page: which settings come first, and what each key does; see `reports.document`.

A grid sets two kinds of keys. What one may choose, such as a scheduler or a number of replicas, is compared; what comes
as it comes, such as the load, is none to be chosen: settings are compared by their mean over such conditions, so that
no setting wins by having been asked for less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from reports import charts
from reports.charts import blank, row_height, rows_axis
from reports.document import Chart, Document, Fold, KeyFigure, PageSection, render
from reports.figures import figure
from reports.formatting import NONE, format_value, times
from reports.sweep import BESIDE, choices_and_conditions, rank, short, sweep_notes
from reports.table import Kind, Table
from traces.files import write_document
from traces.marks import OutputKind

TOP = 20
"""Settings that the page shows without being asked."""

MOST = 400
"""Rows that it shows when asked; the files have them all."""

LINES, PANELS = 8, 4
"""Lines of a chart at most, and charts of one kind."""

SHOWN = ("latency_p50_s", "latency_p95_s", "latency_p99_s", "goodput_rps", "utilisation")
"""Figures of tables, beside that which ranks."""


def write_sweep_page(frame: pd.DataFrame, keys: Sequence[str], by: str, path: Path, kind: OutputKind) -> None:
    """Write the page, whole or not at all.

    Raises:
        BadInput: ``path`` cannot be written.
    """
    write_document(render(document(frame, keys, by), kind), path, kind)


@dataclass(frozen=True)
class SweepSetting:
    """What may be chosen, and its points.

    Attributes:
        values: values by key.
        frame: its points, a row each, over all conditions and seeds.
        names: short names of the keys.
    """

    values: Mapping[str, Any]
    frame: pd.DataFrame
    names: Mapping[str, str]

    def __str__(self) -> str:
        return ", ".join([_spelled(self.names[key], value) for key, value in self.values.items()]) or "the scenario"

    def cell(self, name: str) -> str:
        """The mean of a figure over all points."""
        return format_value(float(self.frame[name].mean()), figure(name).unit)


def document(frame: pd.DataFrame, keys: Sequence[str], by: str) -> Document:
    """The page of a sweep.

    Args:
        frame: a row a point, see `tilecast.studies.sweep.points_table`.
        keys: what differs between points, dotted keys of a scenario.
        by: the figure that ranks.
    """
    good = frame[frame["error"] == ""]
    chosen, given = choices_and_conditions(good, keys)
    varied = [key for key in ("case", *keys) if key in chosen or key in given]
    if not chosen:
        chosen, given = given, []
    settings = ranked(good, chosen, by)
    conditions = len(good[given].drop_duplicates()) if given else 1
    seeds = max([1, *good.groupby(varied, dropna=False).size()]) if varied else len(good)
    return Document(
        what="sweep",
        version="",
        answer=_answer(settings, by, conditions),
        context=_context(settings, conditions, given, seeds, good),
        key=_key(settings, by, good),
        notes=sweep_notes(frame),
        sections=list(_sections(good, settings, given, varied, by)),
    )


def ranked(frame: pd.DataFrame, keys: Sequence[str], by: str) -> list[SweepSetting]:
    """The settings, the best first."""
    names = dict(zip(keys, short(keys), strict=True))
    groups = [own for _, own in frame.groupby(list(keys), sort=False, dropna=False)] if keys else [frame]
    order = [by, *(name for name in BESIDE if name != by and name in frame)]
    groups = sorted(groups, key=lambda own: [rank(own, name) for name in order])
    return [SweepSetting({key: own[key].iloc[0] for key in keys}, own, names) for own in groups]


def _answer(settings: Sequence[SweepSetting], by: str, conditions: int) -> str:
    best, others = settings[0], settings[1:]
    label, value = figure(by).label, best.cell(by)
    mean = f" in the mean over {conditions} conditions" if conditions > 1 else ""
    if not others:
        return f"{best}: {label} {value}{mean}."
    first = f"First of {len(settings)} settings is {best}, with {label} {value}{mean}"
    level = [other for other in others if other.cell(by) == value]
    if not level:
        return f"{first}; next is {others[0]}, with {others[0].cell(by)}."
    beside = next((name for name in reversed(BESIDE) if name != by and name in best.frame), by)
    count = "another one" if len(level) == 1 else f"{len(level)} others"
    return f"{first}, level with {count}; its {figure(beside).label} is {best.cell(beside)}."


def _context(
    settings: Sequence[SweepSetting], conditions: int, given: Sequence[str], seeds: int, good: pd.DataFrame
) -> str:
    over = f" over {conditions} conditions ({', '.join(given)})" if given else ""
    times_ = f", {seeds} seeds each" if seeds > 1 else ""
    bases = ", ".join(dict.fromkeys(good["basis"].astype(str)))
    return f"{len(good):,} simulations: {len(settings):,} settings{over}{times_}. Times are {bases}."


def _key(settings: Sequence[SweepSetting], by: str, good: pd.DataFrame) -> list[KeyFigure]:
    best = settings[0]
    shown = [by, *[name for name in ("slo_attainment", *SHOWN) if name != by and name in good]][:5]
    key = [KeyFigure(figure(name).label, best.cell(name), "of the first" if name == by else "") for name in shown]
    last = settings[-1]
    return [*key, KeyFigure(f"{figure(by).label}, the last", last.cell(by), str(last))] if len(settings) > 1 else key


def _sections(
    good: pd.DataFrame, settings: Sequence[SweepSetting], given: Sequence[str], varied: Sequence[str], by: str
) -> Iterator[PageSection]:
    drawn = list(pictures(good, settings, given, varied, by))
    if drawn:
        yield PageSection("Pictures", charts=drawn)
    shown = [by, *[name for name in ("slo_attainment", *SHOWN) if name != by and name in good]]
    names = settings[0].names
    heads = [*names.values(), *[figure(name).label for name in shown]]
    rows = [
        [*[_value(value) for value in setting.values.values()], *[setting.cell(name) for name in shown]]
        for setting in settings
    ]
    chosen = frozenset({0})
    table = Table.plain("Settings, the best first", heads, rows[:MOST], max(1, len(names)))
    folds = [Fold.of(table)] if len(rows) > TOP else []
    folds.append(Fold.of(_points(good, varied, shown, by)))
    yield PageSection(
        "Settings, the best first",
        f"Means{' over all conditions' if given else ''}.",
        tables=[Table(table.title, table.heads, table.kinds, table.rows[:TOP], chosen=chosen)],
        folds=folds,
    )
    if len(varied) > 1:
        yield PageSection(
            "What each key does",
            "Means over all points in which the key has the value.",
            tables=[_effects(good, varied, shown[:3])],
        )


def _points(good: pd.DataFrame, varied: Sequence[str], shown: Sequence[str], by: str) -> Table:
    """Every setting under every condition, over its seeds."""
    points = ranked(good, varied, by)[:MOST]
    overloaded = good["overload"].notna().any()
    rows = [
        [
            *[_value(value) for value in point.values.values()],
            *[point.cell(name) for name in shown],
            *([_overload(point.frame)] if overloaded else []),
        ]
        for point in points
    ]
    heads = [*short(varied), *[figure(name).label for name in shown], *(["Overload"] if overloaded else [])]
    return Table.plain("Every setting under every condition", heads or [""], rows, max(1, len(varied)))


def _overload(frame: pd.DataFrame) -> str:
    return NONE if frame["overload"].isna().all() else times(float(frame["overload"].mean()))


def _effects(good: pd.DataFrame, varied: Sequence[str], shown: Sequence[str]) -> Table:
    rows: list[tuple[str, ...]] = []
    parts = {}
    for key in varied:
        parts[len(rows)] = key
        for value, own in good.groupby(key, sort=False, dropna=False):
            means = [format_value(float(own[name].mean()), figure(name).unit) for name in shown]
            rows.append((_value(value), *means))
    heads = ("", *[figure(name).label for name in shown])
    numbers: list[Kind] = ["number"] * len(shown)
    return Table("What each key does", heads, ("text", *numbers), tuple(rows), parts=parts)


def pictures(
    good: pd.DataFrame, settings: Sequence[SweepSetting], given: Sequence[str], varied: Sequence[str], by: str
) -> Iterator[Chart]:
    """The figure that ranks, and P95 latency: against a key of numbers, with a line for each value of another one and a
    chart for each of a third; what differs beyond that is as in the best setting. Without numbers, setting by setting.
    """
    if not varied:
        return
    numeric = [key for key in varied if pd.api.types.is_numeric_dtype(good[key]) and good[key].nunique() > 2]
    along = next((key for key in numeric if key in given), next(iter(numeric), None))
    if along is None:
        yield Chart("Settings", "The best first.", by_setting(settings[:TOP], by))
        return
    others = sorted(
        [key for key in varied if key != along],
        key=lambda key: (pd.api.types.is_numeric_dtype(good[key]), -good[key].nunique()),
    )
    lines = next((key for key in others if good[key].nunique(dropna=False) <= LINES), None)
    panels = next((key for key in others if key != lines and good[key].nunique(dropna=False) <= PANELS), None)
    best = {**settings[0].values}
    fixed = {key: best.get(key, good[key].iloc[0]) for key in others if key not in (lines, panels)}
    for key, value in fixed.items():
        good = good[good[key] == value]
    said = "".join([f" With {_spelled(key, value)}." for key, value in fixed.items()])
    for value, own in good.groupby(panels, sort=False, dropna=False) if panels else [(None, good)]:
        title = f"{figure(by).label} by {along}" + (f", {_spelled(panels, value)}" if panels else "")
        caption = f"Means{f', a line for each {lines}' if lines else ''}.{said}"
        yield Chart(title, caption, by_number(own, along, lines, by))


def by_number(frame: pd.DataFrame, along: str, lines: str | None, by: str) -> go.Figure:
    """The figure that ranks, and below it P95 latency, against a key of numbers; a line for each value of another."""
    shown = [by, *[name for name in ("latency_p95_s",) if name != by and name in frame]]
    figure_ = make_subplots(rows=len(shown), shared_xaxes=True, vertical_spacing=0.1, figure=blank("", "", 460))
    groups = list(frame.groupby(lines, sort=False, dropna=False)) if lines else [("", frame)]
    for row, name in enumerate(shown, start=1):
        for at, (_, own) in enumerate(groups):
            means = own.groupby(along)[name].mean()
            means = means[means.map(math.isfinite)]
            drawn = charts.marker(at) | charts.line(at) | {"mode": "lines+markers"}
            figure_.add_scatter(x=means.index.tolist(), y=means.tolist(), row=row, col=1, **drawn)
        unit = figure(name).unit
        label = figure(name).label + (f" ({unit})" if unit in ("s", "1/s") else "")
        figure_.update_yaxes(title_text=label, rangemode="tozero", nticks=5, row=row, col=1)
        if unit == "%":
            figure_.update_yaxes(range=[-0.03, 1.06], tickformat=".0%", row=row, col=1)
    values = sorted(frame[along].dropna().unique().tolist())
    if len(values) <= charts.TICKS:
        figure_.update_xaxes(tickvals=values)
    figure_.update_xaxes(title_text=along, row=len(shown), col=1)
    return charts.legend(figure_, [_value(value) for value, _ in groups])


def by_setting(settings: Sequence[SweepSetting], by: str) -> go.Figure:
    """The figure that ranks, setting by setting."""
    values = [float(setting.frame[by].mean()) for setting in settings]
    figure_ = blank(figure(by).label, "", row_height(len(settings), 2))
    figure_.add_scatter(
        x=values,
        y=list(range(len(values))),
        text=[setting.cell(by) for setting in settings],
        hovertemplate="%{text}<extra></extra>",
        **charts.marker(0),
    )
    if figure(by).unit == "%":
        known = [value for value in values if not math.isnan(value)]
        figure_.update_layout(xaxis=charts.share_axis(min(known, default=0.0)))
    return figure_.update_layout(yaxis=rows_axis(list(map(str, settings))), margin_t=16)


def _value(value: Any) -> str:
    """A value of a key in words."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    return f"{value:g}" if isinstance(value, float) else str(value)


def _spelled(key: str, value: Any) -> str:
    return f"{key} {_value(value)}"
