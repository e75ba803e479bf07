"""The plots of a report: one function a plot, each from a comparison to a plotly figure.

Runs keep their colour from plot to plot; beyond seven runs their lines differ in dash. Text from a run log is
escaped, because plotly reads labels as HTML.
"""

from __future__ import annotations

import math
from collections import Counter
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from policies.run_arrays import RunArrays
from reports.boxes import BoxPlot, add_boxes
from reports.comparison import Comparison
from reports.document import blank
from reports.figures import DENOISING, latency, value
from reports.palette import DASHES, DATA
from reports.series import load, replicas, spread, thin_load, utilisation
from traces.request import Size
from traces.sizes import format_size

POINTS = 3000
"""Points a plot has at most, over all runs; more would neither be seen nor load fast."""

SLICES = 120
"""Slices of time in which utilisation is averaged; fewer where there are many runs."""

SIZES = 12
"""Sizes shown by name; rarer ones are shown together."""

OTHER = "other sizes"


def latency_cdf(comparison: Comparison) -> go.Figure:
    """Share of all requests that finished within a latency; a curve ends at the share that finished."""
    figure = blank("latency (s)", "share of all requests")
    for at, run in enumerate(comparison.arrays):
        latency_s = np.sort(latency(run).values)
        chosen = spread(len(latency_s), _share(comparison))
        share = (chosen + 1) / max(1, len(run.requests))
        figure.add_scatter(
            x=np.float32(latency_s[chosen]), y=np.float32(share), line_shape="hv", **_line(comparison, at)
        )
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    return figure.update_xaxes(rangemode="tozero")


def latency_by_size(comparison: Comparison) -> go.Figure:
    """Latency of finished requests by size: quartiles and median, whiskers at P5 and P95."""
    figure = blank("size (height x width)", "latency (s)")
    shown = _shown_sizes(comparison)
    for at, run in enumerate(comparison.arrays):
        found = {name: latency(run.of_sizes(sizes))._replace(never=0) for name, sizes in _of_run(run, shown).items()}
        boxes = [
            (name, BoxPlot(*finished.quantiles(0.05, 0.25, 0.5, 0.75, 0.95)))
            for name, finished in found.items()
            if len(finished.values)
        ]
        add_boxes(figure, boxes, _colour(at), escape(comparison.names[at]))
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=list(shown))
    return figure.update_layout(barmode="group").update_yaxes(rangemode="tozero")


def attainment_by_size(comparison: Comparison) -> go.Figure:
    """SLO attainment of each size."""
    figure = blank("size (height x width)", "SLO attainment")
    shown = _shown_sizes(comparison)
    for at, run in enumerate(comparison.arrays):
        share = [value("slo_attainment", run.of_sizes(sizes)) for sizes in _of_run(run, shown).values()]
        figure.add_bar(x=list(shown), y=share, **_bar(comparison, at))
    figure.update_xaxes(type="category")
    return figure.update_layout(barmode="group").update_yaxes(range=[0, 1.02], tickformat=".0%")


def load_over_time(comparison: Comparison) -> go.Figure:
    """Requests waiting (above) and running (below) over time."""
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06, figure=blank("", ""))
    for at, run in enumerate(comparison.runs):
        counts = thin_load(load(run), _share(comparison) // 2).astype({"waiting": np.int32, "running": np.int32})
        time_s = counts["time_s"].astype(np.float32)
        for row, column in ((1, "waiting"), (2, "running")):
            line = _line(comparison, at) | {"showlegend": row == 1, "legendgroup": str(at)}
            figure.add_scatter(x=time_s, y=counts[column], line_shape="hv", row=row, col=1, **line)
    figure.update_yaxes(title_text="waiting", row=1, col=1).update_yaxes(title_text="running", row=2, col=1)
    figure.update_xaxes(title_text="time (s)", row=2, col=1).update_layout(height=480)
    return figure.update_yaxes(rangemode="tozero")


def utilisation_over_time(comparison: Comparison) -> go.Figure:
    """Share of time that replicas of each run were busy: their mean, and a band that holds the middle 80 % of them."""
    figure = blank("time (s)", "utilisation")
    for at, run in enumerate(comparison.runs):
        if not len(run.steps):
            continue
        edges = np.linspace(0.0, float(run.steps["end_s"].max()) or 1.0, _slices(comparison) + 1)
        share = utilisation(run, edges)
        low, high = np.quantile(share, (0.1, 0.9), axis=0)
        if len(share) > 1:
            figure.add_scatter(
                x=np.float32(np.concatenate([edges[:-1], edges[-2::-1]])),
                y=np.float32(np.concatenate([high, low[::-1]])),
                fill="toself",
                fillcolor=_colour(at),
                opacity=0.2,
                mode="lines",
                line={"width": 0},
                hoverinfo="skip",
                legendgroup=str(at),
                showlegend=False,
            )
        mean = np.float32(share.mean(axis=0))
        figure.add_scatter(x=np.float32(edges[:-1]), y=mean, legendgroup=str(at), **_line(comparison, at))
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    return figure.update_xaxes(rangemode="tozero")


def replicas_over_time(comparison: Comparison) -> go.Figure:
    """Replicas paid for, and of them those ready; below what they have cost so far, and what the most would have."""
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06, figure=blank("", ""))
    priced = False
    for at, run in enumerate(comparison.arrays):
        if not len(run.requests):
            continue
        counts = replicas(run)
        counts = counts.iloc[spread(len(counts), _share(comparison) // 2)]
        time_s = counts["time_s"].astype(np.float32)
        priced |= not math.isnan(value("cost", run))
        line, shape = _line(comparison, at) | {"legendgroup": str(at)}, {"line_shape": "hv"}
        hidden = line | {"showlegend": False}
        figure.add_scatter(x=time_s, y=counts["paid"].astype(np.int32), row=1, col=1, **shape, **line)
        if run.lifetimes is None:
            figure.add_scatter(x=time_s, y=counts["cost"].astype(np.float32), row=2, col=1, **hidden)
            continue
        dotted = {"line": {"color": _colour(at), "dash": "dot", "width": 1}}
        figure.add_scatter(
            x=time_s, y=counts["ready"].astype(np.int32), row=1, col=1, **shape, **(hidden | {"opacity": 0.6} | dotted)
        )
        figure.add_scatter(x=time_s, y=counts["cost"].astype(np.float32), row=2, col=1, **hidden)
        figure.add_scatter(x=time_s, y=counts["cost_of_most"].astype(np.float32), row=2, col=1, **(hidden | dotted))
    figure.update_yaxes(title_text="replicas", row=1, col=1)
    figure.update_yaxes(title_text="cost so far" if priced else "device hours so far", row=2, col=1)
    figure.update_xaxes(title_text="time (s)", row=2, col=1).update_layout(height=480)
    return figure.update_yaxes(rangemode="tozero")


def batch_sizes(comparison: Comparison) -> go.Figure:
    """Share of denoising launches by the number of requests in them."""
    figure = blank("requests in a launch", "share of denoising launches")
    for at, run in enumerate(comparison.arrays):
        batches, count = np.unique(run.steps.requests[run.steps.of(*DENOISING)], return_counts=True)
        figure.add_bar(x=batches, y=count / max(1, count.sum()), **_bar(comparison, at))
    figure.update_xaxes(tick0=1, dtick=1 if _largest_batch(comparison) <= 16 else None)
    return figure.update_layout(barmode="group").update_yaxes(tickformat=".0%", rangemode="tozero")


def predicted_against_actual(comparison: Comparison) -> go.Figure:
    """Predicted and actual seconds of launches; on the line they are equal, open marks are extrapolated."""
    figure = blank("actual launch (s)", "predicted launch (s)")
    low, high = np.inf, 0.0
    for at, run in enumerate(comparison.arrays):
        judged = np.flatnonzero(run.steps.predicted & (run.steps.predicted_s > 0))
        judged = judged[spread(len(judged), _share(comparison) // 2)]
        actual, predicted = run.steps.seconds[judged], run.steps.predicted_s[judged]
        if len(judged):
            low = min(low, actual.min(), predicted.min())
            high = max(high, actual.max(), predicted.max())
        beyond = run.steps.extrapolated[judged]
        for symbol, chosen in (("circle", ~beyond), ("circle-open", beyond)):
            figure.add_scatter(
                x=np.float32(actual[chosen]),
                y=np.float32(predicted[chosen]),
                mode="markers",
                name=escape(comparison.names[at]),
                legendgroup=str(at),
                showlegend=symbol == "circle",
                marker={"color": _colour(at), "size": 6, "opacity": 0.7, "symbol": symbol},
            )
    if high > 0:
        line = {"color": "#888", "width": 1}
        figure.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, line=line, layer="below")
    return figure.update_xaxes(type="log").update_yaxes(type="log")


def _colour(at: int) -> str:
    return DATA[at % len(DATA)]


def _line(comparison: Comparison, at: int) -> dict[str, object]:
    dash = DASHES[at // len(DATA) % len(DASHES)]
    line = {"color": _colour(at), "dash": dash, "width": 2}
    return {"mode": "lines", "name": escape(comparison.names[at]), "line": line}


def _bar(comparison: Comparison, at: int) -> dict[str, object]:
    return {"name": escape(comparison.names[at]), "marker": {"color": _colour(at)}, "showlegend": True}


def _share(comparison: Comparison) -> int:
    """Points that one run may have in a plot."""
    return max(50, POINTS // max(1, len(comparison.runs)))


def _slices(comparison: Comparison) -> int:
    """Slices of time of a run's utilisation."""
    return max(20, min(SLICES, _share(comparison) // 3))


def _shown_sizes(comparison: Comparison) -> dict[str, tuple[Size, ...]]:
    """What sizes are shown as: the most frequent over all runs by growing area, and then the rest together."""
    count = Counter[Size]()
    for run in comparison.arrays:
        count.update({size: int((run.requests.size == code).sum()) for code, size in enumerate(run.requests.sizes)})
    common = sorted(sorted(count), key=lambda size: -count[size])[:SIZES]
    shown = {
        format_size(size): (size,) for size in sorted(common, key=lambda size: (math.prod(size), format_size(size)))
    }
    rest = tuple([size for size in count if size not in common])
    return shown | ({OTHER: rest} if rest else {})


def _of_run(run: RunArrays, shown: dict[str, tuple[Size, ...]]) -> dict[str, list[Size]]:
    """The sizes of one run by what they are shown as."""
    return {name: [size for size in sizes if size in run.requests.sizes] for name, sizes in shown.items()}


def _largest_batch(comparison: Comparison) -> int:
    return max((int(run.steps["requests"].max()) for run in comparison.runs if len(run.steps)), default=0)
