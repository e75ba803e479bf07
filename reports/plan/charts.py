"""The charts of a plan: one function a chart, each from a plan to a plotly figure.

Whether the promise is kept is told by a point's symbol, whether the cluster is stable by what stands around it, what
is bought by the row or the line: none by colour alone. Text that comes from a plan is escaped, because plotly reads
labels as HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import groupby

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from reports import charts as common
from reports.charts import across, blank, label, log_axis, promise, row_height, rows_axis, share_axis
from reports.formatting import format_interval, format_value, times
from reports.palette import BLUE, GREEN, VERMILLION
from reports.plan.chart_style import ANSWER_MARK, KNEE_MARK, UNSTABLE_MARK, ends, error, kept_legend, kept_mark
from reports.plan.formatting import alike, cluster, subject
from reports.plan.frames import QUANTILES
from reports.plan.result import NEAR_KNEE, UNSTABLE, Candidate, Evaluation, Plan
from reports.plan.tables import cases, sized

SIZES = 12
"""Sizes in the chart of latencies; the table has them all."""

NEAR = 0.12
"""Share of an axis that two labels need between them."""


def attainment_against_load(plan: Plan) -> go.Figure:
    """Share of deadlines kept under less and more load, with its confidence band, the promise and the limit."""
    figure = blank(f"load (1× = {format_value(plan.demand.rate_rps, 'x')} requests/s)", "deadlines kept", 380)
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
        showlegend=False,
    )
    keeps = [case.keeps for case in curve]
    figure.add_scatter(
        x=loads,
        y=[value.mean for value in kept],
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker=kept_mark(keeps),
        text=[format_interval(value, "%") for value in kept],
        hovertemplate="%{x:.2f}×: %{text}<extra></extra>",
        showlegend=False,
    )
    figure.update_layout(yaxis=share_axis(min([low for low, _ in band] + [plan.attainment])))
    promise(figure, plan.attainment, "y")
    across(figure, 1.0, "x", "the demand", "dot")
    if math.isfinite(plan.headroom.mean):
        across(figure, plan.headroom.mean, "x", f"carries {times(plan.headroom.mean)}", "dashdot")
    return kept_legend(figure.update_xaxes(ticksuffix="×"), keeps)


def what_if(plan: Plan) -> go.Figure:
    """Share of deadlines kept in each case: a point and its interval."""
    shown = [case for case in cases(plan) if math.isfinite(case.figures.attainment.mean)]
    figure = blank("deadlines kept", "", row_height(len(shown), 2))
    keeps = [case.keeps for case in shown]
    figure.add_scatter(
        x=[case.figures.attainment.mean for case in shown],
        y=list(range(len(shown))),
        mode="markers",
        marker=kept_mark(keeps),
        error_x=error([case.figures.attainment for case in shown]),
        text=[format_interval(case.figures.attainment, "%") for case in shown],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    least = min([ends(case.figures.attainment)[0] for case in shown] + [plan.attainment])
    figure.update_layout(xaxis=share_axis(least), yaxis=rows_axis([case.what for case in shown]))
    promise(figure, plan.attainment, "x")
    return kept_legend(figure, keeps)


def cost_against_attainment(plan: Plan) -> go.Figure:
    """What each cluster costs, in a row for each hardware, devices a replica and policy; how many replicas each has
    stands beside its mark, which tells whether the promise is kept, and what stands around it whether it is stable."""
    known = [row for row in plan.considered if math.isfinite(row.figures.attainment.mean)]
    cost, title = _cost(known)
    shown = sorted(
        (row for row in known if math.isfinite(cost(row))), key=lambda row: (alike(row.candidate), cost(row))
    )
    several = len({row.candidate.scheduler for row in shown}) > 1
    lines = [list(own) for _, own in groupby(shown, key=lambda row: alike(row.candidate))]
    figure = blank(title, "", row_height(len(lines), 2) + 30)
    dearest = max([cost(row) for row in shown], default=1.0) or 1.0
    keeps = []
    for at, own in enumerate(lines):
        keeps += [row.keeps for row in own]
        figure.add_scatter(
            x=[cost(row) for row in own],
            y=[at for _ in own],
            mode="lines+markers",
            line=common.QUIET,
            marker=kept_mark([row.keeps for row in own]),
            text=[_said(row) for row in own],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
        for row in _apart(own, cost, dearest):
            figure.add_annotation(
                x=cost(row), y=at, text=str(row.candidate.replicas), showarrow=False, yshift=-20, font_size=11
            )
    for state, mark, name in ((UNSTABLE, UNSTABLE_MARK, "its queue grows"), (NEAR_KNEE, KNEE_MARK, "near its limit")):
        places = [(cost(row), at) for at, own in enumerate(lines) for row in own if row.state == state]
        if places:
            x, y = zip(*places, strict=True)
            figure.add_scatter(x=x, y=y, mode="markers", marker=mark, name=name, hoverinfo="skip")
    best = subject(plan)
    for at, own in enumerate(lines):
        if best is not None and best.candidate in [row.candidate for row in own]:
            figure.add_scatter(
                x=[cost(best)], y=[at], mode="markers", marker=ANSWER_MARK, name="the answer", hoverinfo="skip"
            )
    figure.update_layout(yaxis=rows_axis([_kind(own[0].candidate, several) for own in lines]))
    figure.update_xaxes(range=[0, 1.08 * dearest])
    return kept_legend(figure, keeps)


def growth(plan: Plan) -> go.Figure:
    """What the least cluster of each month costs, with its replicas where another one is needed."""
    needed = [month.evaluation for month in plan.growth if month.evaluation is not None]
    cost, title = _cost(needed)
    figure = blank("month", title, 340)
    heights = [cost(month.evaluation) if month.evaluation else 0.0 for month in plan.growth]
    drawn = {"color": BLUE, "pattern": {"shape": ["" if month.evaluation else "x" for month in plan.growth]}}
    figure.add_bar(x=[month.month for month in plan.growth], y=heights, marker=drawn, hoverinfo="x+y")
    before: Candidate | str | None = ""
    last = -math.inf
    for at, (month, height) in enumerate(zip(plan.growth, heights, strict=True)):
        candidate = month.evaluation.candidate if month.evaluation else None
        if candidate != before and at - last >= len(heights) / 16:
            text = "none" if candidate is None else f"{candidate.replicas}×"
            figure.add_annotation(x=month.month, y=height, text=text, showarrow=False, yanchor="bottom")
            last = at
        before = candidate
    top = max((height for height in heights if math.isfinite(height)), default=1.0)
    figure.update_yaxes(range=[0, 1.15 * (top or 1.0)])
    return figure.update_xaxes(tick0=0, dtick=max(1, math.ceil(len(heights) / 7))).update_layout(margin_t=16)


def latency_by_size(plan: Plan) -> go.Figure:
    """Latency of requests by size, the smallest first: quartiles and median, whiskers at P5 and P95, a mark at P99; of
    what is infinite it is said which."""
    shown = sized(sorted(plan.by_size, key=lambda row: -row.requests)[:SIZES])
    figure = blank("latency (s)", "", row_height(len(shown)))
    rows = [(at, row.latency_s) for at, row in enumerate(shown)]
    spread = [(at, latency_s[:5]) for at, latency_s in rows if all(map(math.isfinite, latency_s[:5]))]
    finished = [(at, latency_s) for at, latency_s in rows if math.isfinite(latency_s[5])]
    common.add_spread(figure, spread)
    for at, latency_s in rows:
        if endless := [f"P{q}" for q, seconds in zip(QUANTILES, latency_s, strict=True) if math.isinf(seconds)]:
            text = f"{' to '.join(dict.fromkeys([endless[0], endless[-1]]))} ∞"
            figure.add_annotation(xref="paper", x=1, xanchor="right", y=at, text=text, showarrow=False, font_size=11)
    figure.add_scatter(
        x=[latency_s[5] for _, latency_s in finished],
        y=[at for at, _ in finished],
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 14, "color": VERMILLION, "line": {"width": 2}},
        hovertemplate="P99 %{x:.3s} s<extra></extra>",
        showlegend=False,
    )
    seen = [seconds for _, latency_s in [*spread, *finished] for seconds in latency_s if math.isfinite(seconds)]
    return figure.update_layout(xaxis=log_axis(seen), yaxis=rows_axis([row.size for row in shown]), margin_t=16)


def over_time(plan: Plan) -> go.Figure:
    """Requests waiting and running, and utilisation, slice by slice of one replication."""
    end = max((window.end_s for window in plan.over_time), default=1.0)
    unit, name = common.ticks_of_time(end)
    figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.07, figure=blank("", "", 420))
    starts = [window.start_s / unit for window in plan.over_time]
    edges = [*starts, end / unit] if starts else []
    for row, (title, colour, values) in enumerate(
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
            name=title,
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=title, rangemode="tozero", nticks=4, row=row, col=1)
    figure.update_yaxes(**common.BUSY, row=3, col=1)
    figure.update_xaxes(title_text=f"time ({name})", row=3, col=1)
    return figure.update_layout(showlegend=False, margin_t=16)


def _cost(rows: Iterable[Evaluation]) -> tuple[Callable[[Evaluation], float], str]:
    """What clusters cost: their price, or where none is known their devices; and what that is called."""
    priced = any(math.isfinite(row.price_per_hour) for row in rows)
    return (_price, "price per hour") if priced else (_devices, "devices")


def _apart(alike: list[Evaluation], cost: Callable[[Evaluation], float], dearest: float) -> Iterable[Evaluation]:
    """Of clusters in a row, from the cheapest on, those that stand apart enough for a label each."""
    last = -math.inf
    for row in alike:
        if cost(row) - last >= NEAR / 2 * dearest:
            last = cost(row)
            yield row


def _said(row: Evaluation) -> str:
    met = format_interval(row.figures.attainment, "%")
    return f"{label(cluster(row.candidate))}<br>{met} of deadlines, {row.state}"


def _kind(candidate: Candidate, several: bool) -> str:
    """What is bought, whatever the number of replicas."""
    hardware = candidate.hardware if candidate.devices == 1 else f"{candidate.devices} × {candidate.hardware}"
    return f"{hardware}, {candidate.scheduler}" if several else hardware


def _price(evaluation: Evaluation) -> float:
    return evaluation.price_per_hour


def _devices(evaluation: Evaluation) -> float:
    return float(evaluation.candidate.all_devices)
