"""What charts of all pages have in common: axes whose labels never touch, and marks that need no colour.

Whatever a chart tells apart it tells apart twice: by colour, and by the dash of a line or the shape of a point. Things
with names, such as sizes, stand one below the other, so that names need no room side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from reports.formatting import format_value, percent
from reports.output_analysis import quantiles
from reports.palette import DASHES, DATA, LIGHT, SYMBOLS
from reports.series import spread

Floats = npt.NDArray[np.float64]

QUIET = {"color": "#6e6e6e", "width": 1}
"""Lines that carry no data."""

TICKS = 7
"""Labels of a logarithmic axis at most: so many have room on a phone."""

SHOWN = (1e-9, 1e15)
"""What a logarithmic axis can show."""

_STEPS: tuple[tuple[float, ...], ...] = ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,))

MARKED = (0.5, 0.95, 0.99)
"""Shares at which a curve of latencies has marks."""

NAME = 20
"""Letters of a line of a name in a legend or beside an axis."""


BUSY = {"range": [-0.08, 1.08], "tickformat": ".0%", "tickvals": [0, 0.5, 1]}
"""The axis of a busy share, whose lowest label stays clear of those of the time below it."""


def blank(x: str, y: str, height: int = 360) -> go.Figure:
    """An empty chart in the pages' style, with titles of its axes."""
    axis = {
        "gridcolor": LIGHT["rule"],
        "linecolor": LIGHT["muted"],
        "zeroline": False,
        "automargin": True,
        "nticks": 6,
        "tickangle": 0,
        "ticks": "outside",
        "ticklen": 5,
        "tickcolor": "rgba(0,0,0,0)",
    }
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 56, "r": 16, "t": 36, "b": 48},
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": LIGHT["ink"]},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "bgcolor": "rgba(0,0,0,0)"},
            "xaxis": axis | {"title": {"text": x}},
            "yaxis": axis | {"title": {"text": y, "standoff": 10}},
            "hovermode": "closest",
        }
    )


def log_axis(values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis about values, of which only those within `SHOWN` count."""
    known = [value for value in values if SHOWN[0] < value < SHOWN[1]]
    low, high = (min(known), max(known)) if known else (0.1, 10.0)
    if high < 2 * low:
        low, high = low / 1.5, high * 1.5
    first, last = math.log10(low), math.log10(high)
    first, last = first - 0.04 * (last - first), last + 0.04 * (last - first)
    decades = range(math.floor(first) - 1, math.ceil(last) + 1)
    ticks: list[float] = []
    for steps in _STEPS:
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if first <= math.log10(tick) <= last]
        if len(ticks) <= TICKS:
            break
    ticks = ticks[:: math.ceil(len(ticks) / TICKS)]
    return {
        "type": "log",
        "range": [first, last],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{tick:,.10g}" for tick in ticks],
    }


def share_axis(least: float = 0.0) -> dict[str, Any]:
    """An axis of shares from about ``least`` to all, with at most seven labels."""
    low = math.floor(10 * min(least, 1.0) - 0.5) / 10 if least > 0.3 else 0.0
    step = 0.25 if low < 0.5 else 0.1 if low < 0.8 else 0.05
    margin = 0.03 * (1 - low)
    return {
        "range": [low - margin, 1 + margin],
        "tickformat": ".0%",
        "tickvals": [round(1 - step * at, 2) for at in range(int((1 - low) / step + 0.01) + 1)],
    }


def rows_axis(names: Sequence[str]) -> dict[str, Any]:
    """An axis along which named things stand one below the other, at 0, 1, 2, and so on."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [label(name) for name in names],
        "range": [len(names) - 0.4, -0.6],
        "showgrid": False,
    }


def row_height(rows: int, lines: int = 1) -> int:
    """Pixels of a chart with so many rows of so many lines each."""
    return 120 + rows * max(34, 14 + 15 * lines)


def beside(at: int, of: int) -> float:
    """How far below the middle of its row a thing stands that shares it with others."""
    return (at - (of - 1) / 2) * 0.7 / of


def label(name: str, width: int = NAME) -> str:
    """A name for a chart: escaped, over several lines where it is long, and cut where it is very long."""
    lines = wrap(name.replace(" %", "\u00a0%"), width) or [" "]
    lines = [*lines[:2], lines[2][:-1] + "…"] if len(lines) > 3 else lines
    return "<br>".join(map(escape, lines))


def colour(at: int) -> str:
    """Colour of the thing with a number."""
    return DATA[at % len(DATA)]


def line(at: int) -> dict[str, Any]:
    """How the line of the thing with a number is drawn."""
    drawn = {"color": colour(at), "dash": DASHES[at % len(DASHES)], "width": 2}
    return {"mode": "lines", "line": drawn, "legendgroup": str(at), "showlegend": False}


def marker(at: int, **more: Any) -> dict[str, Any]:
    """How points of the thing with a number are drawn; ``more`` is of the mark itself."""
    drawn = {"color": colour(at), "symbol": SYMBOLS[at % len(SYMBOLS)], "size": 9, **more}
    return {"mode": "markers", "marker": drawn, "legendgroup": str(at), "showlegend": False}


def legend(figure: go.Figure, names: Sequence[str], lines: bool = True) -> go.Figure:
    """Say which marks, and lines, are of which of several things; of one there is nothing to say."""
    for at, name in enumerate(names if len(names) > 1 else ()):
        drawn = marker(at) | (line(at) | {"mode": "lines+markers"} if lines else {})
        figure.add_scatter(x=[None], y=[None], **(drawn | {"showlegend": True}), name=label(name))
    return figure


def across(figure: go.Figure, at: float, axis: str, name: str, dash: str = "dash") -> None:
    """A thin line across ``axis`` (``x`` or ``y``) at a value, which the legend names."""
    other = "y" if axis == "x" else "x"
    ends: dict[str, Any] = {f"{other}ref": "paper", f"{other}0": 0, f"{other}1": 1, f"{axis}0": at, f"{axis}1": at}
    drawn = QUIET | {"dash": dash, "width": 1.5}
    figure.add_shape(type="line", line=drawn, layer="below", **ends)
    figure.add_scatter(x=[None], y=[None], mode="lines", line=drawn, name=name, showlegend=True)


def promise(figure: go.Figure, share: float, axis: str) -> None:
    """The share that is promised as a dashed line across ``axis``."""
    across(figure, share, axis, f"promise {percent(share)}")


def diagonal(figure: go.Figure) -> go.Figure:
    """The figure with the line on which both of its logarithmic axes, which are alike, say the same."""
    low, high = (10.0**end for end in figure.layout.xaxis.range)
    figure.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, line=QUIET, layer="below")
    return figure


def add_shares(figure: go.Figure, latency_s: Floats, of: int, points: int, at: int) -> None:
    """The share of ``of`` requests that finished within a latency, marked at P50, P95 and P99 where it comes to them.

    Args:
        figure: what to draw into.
        latency_s: (requests,) seconds of those that finished.
        of: all requests, also those that did not.
        points: points of the curve at most.
        at: number of the run that they are of.
    """
    ordered = np.sort(latency_s)
    chosen = spread(len(ordered), points)
    share = (chosen + 1) / max(1, of)
    figure.add_scatter(x=np.float32(ordered[chosen]), y=np.float32(share), line_shape="hv", **line(at))
    seconds = quantiles(ordered, MARKED, of - len(ordered))
    marked = [(q, end) for q, end in zip(MARKED, seconds, strict=True) if math.isfinite(end)]
    figure.add_scatter(
        x=[end for _, end in marked],
        y=[q for q, _ in marked],
        text=[f"P{100 * q:.0f}: {format_value(end, 's')}" for q, end in marked],
        hovertemplate="%{text}<extra></extra>",
        **marker(at),
    )


def add_spread(figure: go.Figure, spreads: Sequence[tuple[float, Sequence[float]]], at: int = 0) -> None:
    """Quantiles along rows: a thin line from P5 to P95, a thick one over the middle half, a mark at the median.

    Args:
        figure: what to draw into; its vertical axis is `rows_axis`.
        spreads: where each stands, and its quantiles at 5, 25, 50, 75 and 95 %, in seconds.
        at: number of the thing that they are of.
    """
    for low, high, width, opacity in ((0, 4, 1.5, 1.0), (1, 3, 8, 0.45)):
        figure.add_scatter(
            x=[x for _, values in spreads for x in (values[low], values[high], None)],
            y=[y for row, _ in spreads for y in (row, row, None)],
            mode="lines",
            line={"color": colour(at), "width": width},
            opacity=opacity,
            hoverinfo="skip",
            legendgroup=str(at),
            showlegend=False,
        )
    said = [[format_value(value, "s") for value in values] for _, values in spreads]
    figure.add_scatter(
        x=[values[2] for _, values in spreads],
        y=[row for row, _ in spreads],
        text=[f"median {p50}<br>middle half {p25} to {p75}<br>P5 {p5}, P95 {p95}" for p5, p25, p50, p75, p95 in said],
        hovertemplate="%{text}<extra></extra>",
        **marker(at),
    )


def ticks_of_time(end_s: float) -> tuple[float, str]:
    """The seconds of a unit in which a span of time is shown, and its name."""
    return next(((unit, name) for unit, name in _CLOCKS if end_s >= 3 * unit), (1.0, "s"))


_CLOCKS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))
