"""What the charts of a plan have in common: the promise, intervals, and how points tell whether it is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from reports.formatting import percent
from reports.output_analysis import Interval
from reports.plan.result import Plan

KEPT = {True: "circle", False: "x", None: "diamond-open"}
"""Symbols of points that keep the promise, do not, and are undecided."""

QUIET = {"color": "#6e6e6e", "width": 1}
"""Lines that carry no data."""


def promise(figure: go.Figure, plan: Plan, horizontal: bool) -> None:
    """The promise as a dashed line, labelled."""
    label = {"text": f"promise {percent(plan.attainment)}", "showarrow": False}
    line = QUIET | {"dash": "dash", "width": 1.5}
    if horizontal:
        figure.add_shape(
            type="line", xref="paper", x0=0, x1=1, y0=plan.attainment, y1=plan.attainment, line=line, layer="between"
        )
        figure.add_annotation(label, xref="paper", x=0, xanchor="left", y=plan.attainment, yanchor="top", xshift=4)
    else:
        figure.add_shape(
            type="line", yref="paper", y0=0, y1=1, x0=plan.attainment, x1=plan.attainment, line=line, layer="between"
        )
        figure.add_annotation(label, yref="paper", y=1, yanchor="bottom", x=plan.attainment, xanchor="right", xshift=4)


def upright(figure: go.Figure, at: float, text: str, side: str) -> None:
    """A thin upright line with a label at its foot, on its left or right."""
    figure.add_shape(type="line", yref="paper", y0=0, y1=1, x0=at, x1=at, line=QUIET, layer="below")
    anchor, shift = ("right", -4) if side == "left" else ("left", 4)
    figure.add_annotation(
        x=at, yref="paper", y=0, text=text, showarrow=False, xanchor=anchor, yanchor="bottom", xshift=shift
    )


def ends(value: Interval) -> tuple[float, float]:
    """The interval within what a share can be; the mean alone where there is none."""
    width = value.half_width if math.isfinite(value.half_width) else 0.0
    return max(0.0, value.mean - width), min(1.0, value.mean + width)


def error(values: Sequence[Interval], colour: str) -> dict[str, Any]:
    """Error bars of intervals, as plotly wants them."""
    bars = [ends(value) for value in values]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value.mean for value, (_, high) in zip(values, bars, strict=True)],
        "arrayminus": [value.mean - low for value, (low, _) in zip(values, bars, strict=True)],
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }
