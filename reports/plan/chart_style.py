"""What the charts of plans have in common: intervals, and how points tell whether the promise is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from reports.charts import QUIET
from reports.output_analysis import Interval
from reports.palette import BLUE, GREEN, VERMILLION

KEPT = {
    True: ("keeps its promise", "circle", BLUE),
    None: ("undecided", "diamond-open", "#6e6e6e"),
    False: ("does not", "x", VERMILLION),
}
"""What points that keep the promise, are undecided and do not are called, and their symbols and colours."""

UNSTABLE_MARK = {"symbol": "circle-open", "size": 19, "color": VERMILLION, "line": {"width": 1.5}}
KNEE_MARK = {"symbol": "square-open", "size": 18, "color": GREEN, "line": {"width": 1.5}}
ANSWER_MARK = {"symbol": "diamond-open", "size": 24, "color": BLUE, "line": {"width": 2}}
"""What stands around points of clusters whose queue grows, of those near the knee, and of the answer."""


def kept_mark(keeps: Sequence[bool | None], size: int = 10) -> dict[str, Any]:
    """How points are drawn by whether the promise is kept."""
    return {
        "symbol": [KEPT[each][1] for each in keeps],
        "color": [KEPT[each][2] for each in keeps],
        "size": size,
    }


def kept_legend(figure: go.Figure, keeps: Sequence[bool | None]) -> go.Figure:
    """Say what the marks of `kept_mark` mean, as far as they are there."""
    for each, (name, symbol, colour) in KEPT.items():
        if each in keeps:
            mark = {"symbol": symbol, "color": colour, "size": 10}
            figure.add_scatter(x=[None], y=[None], mode="markers", marker=mark, name=name, showlegend=True)
    return figure


def ends(value: Interval) -> tuple[float, float]:
    """The interval within what a share can be; the mean alone where there is none."""
    width = value.half_width if math.isfinite(value.half_width) else 0.0
    return max(0.0, value.mean - width), min(1.0, value.mean + width)


def error(values: Sequence[Interval]) -> dict[str, Any]:
    """Error bars of intervals, as plotly wants them."""
    bars = [ends(value) for value in values]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value.mean for value, (_, high) in zip(values, bars, strict=True)],
        "arrayminus": [value.mean - low for value, (low, _) in zip(values, bars, strict=True)],
        "color": QUIET["color"],
        "thickness": 1.5,
        "width": 4,
    }
