"""The charts of a plan: one function a chart, each from a plan to a plotly figure.

Whether the promise is kept is told by a point's symbol, what state a cluster is in by how it is filled, hardware by
shape: none by colour alone. Text that comes from a plan is escaped, because plotly reads labels as HTML.
"""

from __future__ import annotations

import math
from html import escape
from itertools import cycle, groupby, product
from textwrap import wrap

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from reports.boxes import BoxPlot, add_boxes
from reports.document import blank
from reports.formatting import format_interval, format_value, times
from reports.palette import BLUE, GREEN, SYMBOLS, VERMILLION
from reports.plan.chart_style import KEPT, QUIET, ends, error, promise, upright
from reports.plan.formatting import cluster, subject
from reports.plan.result import NEAR_KNEE, STABLE, UNSTABLE, Candidate, Evaluation, Plan, SizeFigures
from reports.plan.tables import cases

SIZES = 12
"""Sizes in the chart of latencies; the table has them all."""

STATES = {STABLE: ("", BLUE), NEAR_KNEE: ("-open-dot", VERMILLION), UNSTABLE: ("-open", VERMILLION)}
"""How the symbol of a cluster in a state is filled, and its colour."""


def attainment_against_load(plan: Plan) -> go.Figure:
    """Share of deadlines kept under less and more load, with its confidence band, the promise and the limit."""
    figure = blank(f"load (1× = {format_value(plan.demand.rate_rps, 'x')} requests/s)", "deadlines kept", 360)
    curve = [case for case in plan.load_curve if math.isfinite(case.figures.attainment.mean)]
    loads = [case.figures.rate_scale for case in curve]
    kept = [case.figures.attainment for case in curve]
    band = [ends(value) for value in kept]
    figure.add_scatter(
        x=[*loads, *reversed(loads)],
        y=[high for _, high in band] + [low for low, _ in reversed(band)],
        fill="toself",
        fillcolor=BLUE,
        opacity=0.2,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=loads,
        y=[value.mean for value in kept],
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"symbol": [KEPT[case.keeps] for case in curve], "size": 9, "color": BLUE},
        text=[format_interval(value, "%") for value in kept],
        hovertemplate="%{x:.2f}×: %{text}<extra></extra>",
    )
    promise(figure, plan, horizontal=True)
    beyond = not plan.headroom.mean < 1
    upright(figure, 1.0, "demand", "left" if beyond else "right")
    if math.isfinite(plan.headroom.mean):
        upright(figure, plan.headroom.mean, f"carries {times(plan.headroom.mean)}", "right" if beyond else "left")
    lowest = min([low for low, _ in band] + [plan.attainment])
    figure.update_yaxes(range=[max(-0.02, lowest - 0.08), 1.02], tickformat=".0%")
    return figure.update_xaxes(ticksuffix="×").update_layout(showlegend=False, margin_t=16)


def what_if(plan: Plan) -> go.Figure:
    """Share of deadlines kept in each case: a point and its interval."""
    shown = [case for case in cases(plan) if math.isfinite(case.figures.attainment.mean)]
    figure = blank("deadlines kept", "", 110 + 40 * len(shown))
    figure.add_scatter(
        x=[case.figures.attainment.mean for case in shown],
        y=[_folded(case.what) for case in shown],
        mode="markers",
        marker={"symbol": [KEPT[case.keeps] for case in shown], "size": 10, "color": BLUE},
        error_x=error([case.figures.attainment for case in shown], BLUE),
        text=[format_interval(case.figures.attainment, "%") for case in shown],
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    promise(figure, plan, horizontal=False)
    lowest = min([ends(case.figures.attainment)[0] for case in shown] + [plan.attainment])
    figure.update_xaxes(range=[max(-0.02, lowest - 0.05), 1.02], tickformat=".0%")
    return figure.update_yaxes(type="category", autorange="reversed").update_layout(showlegend=False, margin_t=28)


def cost_against_attainment(plan: Plan) -> go.Figure:
    """What each cluster costs and keeps; a line joins clusters that differ in replicas alone."""
    shown = [row for row in plan.considered if math.isfinite(row.figures.attainment.mean)]
    priced = any(math.isfinite(row.price_per_hour) for row in shown)
    cost = _price if priced else _devices
    shown = sorted((row for row in shown if math.isfinite(cost(row))), key=lambda row: (_alike(row), cost(row)))
    figure = blank("price per hour" if priced else "devices", "deadlines kept", 400)
    several = len({row.candidate.scheduler for row in shown}) > 1
    for _, alike in groupby(shown, key=_alike):
        own = list(alike)
        if several:
            last = {"x": cost(own[-1]), "y": own[-1].figures.attainment.mean}
            figure.add_annotation(last, text=escape(own[-1].candidate.scheduler), showarrow=False, yshift=14, xshift=4)
        figure.add_scatter(
            x=[cost(row) for row in own],
            y=[row.figures.attainment.mean for row in own],
            mode="lines",
            line=QUIET,
            opacity=0.5,
            hoverinfo="skip",
            showlegend=False,
        )
    kinds = list(dict.fromkeys(row.candidate.hardware for row in shown))
    shapes = dict(zip(kinds, cycle(SYMBOLS)))
    for kind, state in product(kinds, STATES):
        own = [row for row in shown if row.candidate.hardware == kind and row.state == state]
        fill, colour = STATES[state]
        figure.add_scatter(
            x=[cost(row) for row in own],
            y=[row.figures.attainment.mean for row in own],
            mode="markers",
            marker={"symbol": shapes[kind] + fill, "size": 11, "color": colour, "line": {"color": colour, "width": 2}},
            error_y=error([row.figures.attainment for row in own], colour),
            text=[f"{_label(row.candidate)}: {format_interval(row.figures.attainment, '%')}" for row in own],
            hovertemplate="%{text}, %{x}<extra></extra>",
            showlegend=False,
        )
    for kind, shape in shapes.items():
        marker = {"symbol": shape, "size": 11, "color": QUIET["color"]}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=escape(kind), marker=marker)
    promise(figure, plan, horizontal=True)
    best = subject(plan)
    if best is not None and best.candidate in [row.candidate for row in shown]:
        at = {"x": cost(best), "y": best.figures.attainment.mean}
        figure.add_annotation(at, text="<b>the answer</b>", ax=0, ay=44, arrowwidth=1)
    lowest = min([ends(row.figures.attainment)[0] for row in shown] + [plan.attainment])
    figure.update_yaxes(range=[max(-0.03, lowest - 0.08), 1.04], tickformat=".0%")
    return figure.update_xaxes(rangemode="tozero")


def growth(plan: Plan) -> go.Figure:
    """What the least cluster of each month costs, labelled where another one is needed."""
    needed = [month for month in plan.growth if month.evaluation is not None]
    priced = any(math.isfinite(month.evaluation.price_per_hour) for month in needed if month.evaluation)
    cost = _price if priced else _devices
    figure = blank("month", "price per hour" if priced else "devices", 340)
    heights = [cost(month.evaluation) if month.evaluation else 0.0 for month in plan.growth]
    figure.add_bar(x=[month.month for month in plan.growth], y=heights, marker={"color": BLUE}, hoverinfo="x+y")
    before: Candidate | str | None = ""
    for month, height in zip(plan.growth, heights, strict=True):
        candidate = month.evaluation.candidate if month.evaluation else None
        if candidate != before:
            label = cluster(candidate) if candidate else "none"
            figure.add_annotation(
                x=month.month, y=height, text=escape(label), showarrow=False, textangle=-90, yanchor="bottom", yshift=4
            )
        before = candidate
    top = max((height for height in heights if math.isfinite(height)), default=1.0)
    figure.update_yaxes(range=[0, 1.6 * (top or 1.0)])
    return figure.update_xaxes(tick0=0, dtick=1 if len(heights) <= 24 else None).update_layout(margin_t=16, bargap=0.35)


def latency_by_size(plan: Plan) -> go.Figure:
    """Latency of finished requests by size: quartiles and median, whiskers at P5 and P95, a mark at P99."""
    finished = [row for row in plan.by_size if all(map(math.isfinite, row.latency_s))]
    frequent = sorted(finished, key=lambda row: -row.requests)[:SIZES]
    shown = sorted(frequent, key=_pixels)
    figure = blank("latency (s)", "", 120 + 34 * len(shown))
    names = [escape(row.size) for row in shown]
    boxes = [BoxPlot(*row.latency_s[:5]) for row in shown]
    add_boxes(figure, list(zip(names, boxes, strict=True)), BLUE, lying=True)
    figure.add_scatter(
        x=[row.latency_s[5] for row in shown],
        y=names,
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 14, "color": VERMILLION, "line": {"width": 2}},
        hovertemplate="%{y}: P99 %{x:.3s} s<extra></extra>",
    )
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names, autorange="reversed")
    return figure.update_xaxes(rangemode="tozero").update_layout(showlegend=False, margin_t=16)


def over_time(plan: Plan) -> go.Figure:
    """Requests waiting and running, and utilisation, slice by slice of one replication."""
    end = max((window.end_s for window in plan.over_time), default=1.0)
    unit, name = next(((unit, name) for unit, name in _CLOCKS if end >= 3 * unit), (1.0, "s"))
    figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.07, figure=blank("", "", 460))
    starts = [window.start_s / unit for window in plan.over_time]
    edges = [*starts, end / unit] if starts else []
    for row, (label, colour, values) in enumerate(
        (
            ("waiting", VERMILLION, [window.waiting for window in plan.over_time]),
            ("running", GREEN, [window.running for window in plan.over_time]),
            ("utilisation", BLUE, [window.utilisation for window in plan.over_time]),
        ),
        start=1,
    ):
        figure.add_scatter(
            x=edges,
            y=[*values, *values[-1:]],
            mode="lines",
            line={"color": colour, "width": 2, "shape": "hv"},
            fill="tozeroy",
            name=label,
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=label, rangemode="tozero", row=row, col=1)
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", row=3, col=1)
    figure.update_xaxes(title_text=f"time ({name})", row=3, col=1)
    return figure.update_layout(showlegend=False, margin_t=16)


_CLOCKS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))


def _price(evaluation: Evaluation) -> float:
    return evaluation.price_per_hour


def _devices(evaluation: Evaluation) -> float:
    return float(evaluation.candidate.all_devices)


def _alike(evaluation: Evaluation) -> tuple[str, int, str]:
    """Equal for clusters that differ in replicas alone."""
    candidate = evaluation.candidate
    return candidate.hardware, candidate.devices, candidate.scheduler


def _label(candidate: Candidate) -> str:
    return escape(f"{cluster(candidate)}, {candidate.scheduler}")


def _folded(text: str) -> str:
    """Over several lines, so that it leaves room for the chart on a phone."""
    return "<br>".join(map(escape, wrap(text.replace(" %", "\u00a0%"), 18))) or " "


def _pixels(row: SizeFigures) -> tuple[float, str]:
    sides = [float(side) for side in row.size.split("x") if side.isdecimal()]
    return math.prod(sides), row.size
