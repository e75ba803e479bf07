"""Box plots out of bars and their error bars, from quantiles that were computed where the values are.

Upper and lower half of a box are bars that meet at the median; each one's error bar is a whisker. So a chart of a
million values carries five numbers a box, and the library that draws it needs no boxes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from reports.formatting import format_value


class BoxPlot(NamedTuple):
    """Quantiles in seconds."""

    p5: float
    p25: float
    p50: float
    p75: float
    p95: float

    def __str__(self) -> str:
        p5, p25, p50, p75, p95 = (format_value(value, "s") for value in self)
        return f"median {p50}<br>middle half {p25} to {p75}<br>P5 {p5}, P95 {p95}"


def add_boxes(
    figure: go.Figure, boxes: Sequence[tuple[str, BoxPlot]], colour: str, name: str = "", *, lying: bool = False
) -> None:
    """Draw boxes side by side with those of other names.

    Args:
        figure: what to draw into; its ``barmode`` should be ``group``.
        boxes: what each is of (which may hold no markup) and its quantiles; an empty list leaves only the legend.
        colour: colour in hexadecimal, like ``#0072B2``.
        name: whose they are, for the legend; no markup either.
        lying: along a vertical axis of names.
    """
    names = [label for label, _ in boxes]
    across, along, spread = ("y", "x", "error_x") if lying else ("x", "y", "error_y")
    for upper in (True, False):
        quartile = [box.p75 if upper else box.p25 for _, box in boxes]
        reach = [box.p95 - box.p75 if upper else box.p25 - box.p5 for _, box in boxes]
        none = [0.0] * len(boxes)
        half = {
            across: names,
            along: [end - box.p50 for end, (_, box) in zip(quartile, boxes, strict=True)],
            spread: {
                "type": "data",
                "symmetric": False,
                "array": reach if upper else none,
                "arrayminus": none if upper else reach,
                "color": colour,
                "thickness": 1.5,
            },
        }
        figure.add_bar(
            **half,
            base=[box.p50 for _, box in boxes],
            orientation="h" if lying else "v",
            name=name,
            offsetgroup=name or "boxes",
            legendgroup=name,
            showlegend=upper and bool(name),
            marker={"color": f"{colour}66", "line": {"color": colour, "width": 2}},
            customdata=[str(box) for _, box in boxes],
            hovertemplate=f"%{{{across}}}<br>%{{customdata}}",
        )
