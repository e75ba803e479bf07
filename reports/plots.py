"""The charts of runs: one function a chart, each from a comparison to a plotly figure.

A run keeps its colour, dash and symbol from chart to chart. Text from a run log is escaped, because plotly reads labels
as HTML.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from policies.run_arrays import RunArrays
from reports import charts
from reports.charts import beside, blank, log_axis, row_height, rows_axis, share_axis
from reports.comparison import Comparison
from reports.figures import DENOISING, latency, value
from reports.formatting import format_value
from reports.series import mean_load, replicas, spread, utilisation
from traces.request import Size
from traces.sizes import format_size

POINTS = 3000
"""Points a chart has at most, over all runs; more would neither be seen nor load fast."""

SLICES = 120
"""Slices of time over which queues and utilisation are averaged; fewer where there are many runs."""

SIZES = 12
"""Sizes shown by name; rarer ones are shown together."""

OTHER = "other sizes"

UNLIKE = 1.05
"""Times as many requests a second as another run, from which on runs are of different loads."""


def attainment(comparison: Comparison) -> go.Figure:
    """SLO attainment of runs: against the load where that differs, with a line for each scheduler, else run by run."""
    return _attainment_by_load(comparison) if loads_differ(comparison) else _attainment_by_run(comparison)


def loads_differ(comparison: Comparison) -> bool:
    """Whether clearly more requests a second arrived in one run than in another."""
    known = [load for load in map(_arrivals_rps, comparison.arrays) if load > 0]
    return bool(known) and max(known) > UNLIKE * min(known)


def _attainment_by_load(comparison: Comparison) -> go.Figure:
    figure = blank("requests a second that arrived", "SLO attainment")
    shares = [values["slo_attainment"] for values in comparison.summaries]
    schedulers = [str(run.info.get("scheduler") or "") for run in comparison.runs]
    named = list(dict.fromkeys(schedulers))
    points = sorted(
        zip(map(_arrivals_rps, comparison.arrays), shares, comparison.names, schedulers, strict=True),
        key=lambda point: point[0],
    )
    for at, scheduler in enumerate(named):
        own = [point for point in points if point[3] == scheduler]
        figure.add_scatter(
            x=[load for load, *_ in own],
            y=[share for _, share, *_ in own],
            text=[charts.label(name) for _, _, name, _ in own],
            hovertemplate="%{text}: %{y:.1%} at %{x:.3g}/s<extra></extra>",
            **(charts.marker(at) | charts.line(at) | {"mode": "lines+markers"}),
        )
    figure.update_layout(xaxis_rangemode="tozero", yaxis=share_axis(_least(shares)))
    return charts.legend(_promised(figure, comparison, "y"), named)


def _attainment_by_run(comparison: Comparison) -> go.Figure:
    shares, worst = (
        [values[name] for values in comparison.summaries] for name in ("slo_attainment", "slo_attainment_worst_size")
    )
    lines = max(charts.label(name).count("<br>") + 1 for name in comparison.names)
    figure = blank("SLO attainment", "", row_height(len(shares), lines))
    several = any(len(run.requests.sizes) > 1 for run in comparison.arrays)
    for values, symbol, name in ((worst, "triangle-left-open", "the worst size"), (shares, "circle", "all requests")):
        if several or values is shares:
            figure.add_scatter(
                x=values,
                y=list(range(len(values))),
                text=[format_value(share, "%") for share in values],
                hovertemplate="%{text}<extra></extra>",
                **(charts.marker(0, symbol=symbol, size=11) | {"name": name, "showlegend": several}),
            )
    figure.update_layout(xaxis=share_axis(_least([*shares, *worst])), yaxis=rows_axis(comparison.names))
    return _promised(figure, comparison, "x")


def latency_cdf(comparison: Comparison) -> go.Figure:
    """Share of all requests that finished within a latency, marked at P50, P95 and P99; a curve ends at the share that
    finished."""
    figure = blank("latency (s)", "share of all requests")
    seen: list[float] = []
    for at, run in enumerate(comparison.arrays):
        latency_s = latency(run).values
        charts.add_shares(figure, latency_s, len(run.requests), _share(comparison), at)
        seen += [float(end(latency_s)) for end in (np.min, np.max) if len(latency_s)]
    return charts.legend(figure.update_layout(xaxis=log_axis(seen), yaxis=share_axis()), comparison.names)


def latency_by_size(comparison: Comparison) -> go.Figure:
    """Latency of finished requests by size: quartiles and median, whiskers at P5 and P95."""
    shown, runs = _shown_sizes(comparison), len(comparison.runs)
    figure = blank("latency (s)", "", row_height(len(shown), runs))
    seen: list[float] = []
    for at, run in enumerate(comparison.arrays):
        spreads = []
        for row, sizes in enumerate(_of_run(run, shown).values()):
            finished = latency(run.of_sizes(sizes))._replace(never=0)
            if len(finished.values):
                spreads.append((row + beside(at, runs), finished.quantiles(0.05, 0.25, 0.5, 0.75, 0.95)))
        charts.add_spread(figure, spreads, at)
        seen += [seconds for _, values in spreads for seconds in values]
    figure.update_layout(xaxis=log_axis(seen), yaxis=rows_axis(list(shown)))
    return charts.legend(figure, comparison.names, lines=False)


def attainment_by_size(comparison: Comparison) -> go.Figure:
    """SLO attainment of each size."""
    shown, runs = _shown_sizes(comparison), len(comparison.runs)
    figure = blank("SLO attainment", "", row_height(len(shown), runs))
    seen: list[float] = []
    for at, run in enumerate(comparison.arrays):
        shares = [value("slo_attainment", run.of_sizes(sizes)) for sizes in _of_run(run, shown).values()]
        rows = [row + beside(at, runs) for row in range(len(shares))]
        for row, share in zip(rows, shares, strict=True):
            if share > 0:
                figure.add_scatter(x=[0, share], y=[row, row], hoverinfo="skip", **charts.line(at), opacity=0.5)
        figure.add_scatter(
            x=shares,
            y=rows,
            text=[format_value(share, "%") for share in shares],
            hovertemplate="%{text}<extra></extra>",
            **charts.marker(at),
        )
        seen += shares
    figure.update_layout(xaxis=share_axis(), yaxis=rows_axis(list(shown)))
    return charts.legend(_promised(figure, comparison, "x"), comparison.names, lines=False)


def over_time(comparison: Comparison) -> go.Figure:
    """Requests waiting and running, and the busy share of the devices, each its mean over slices of time."""
    figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.07, figure=blank("", "", 460))
    ends = [max([0.0, *run.requests["finish_s"].dropna(), *run.steps["end_s"]]) for run in comparison.runs]
    unit, name = charts.ticks_of_time(max(ends, default=0.0))
    single = len(comparison.runs) == 1
    for at, (run, end_s) in enumerate(zip(comparison.runs, ends, strict=True)):
        edges = np.linspace(0.0, end_s or 1.0, _slices(comparison) + 1)
        busy = utilisation(run, edges)
        rows = (*mean_load(run, edges), busy.mean(axis=0) if len(busy) else np.zeros(len(edges) - 1))
        for row, values in enumerate(rows, start=1):
            figure.add_scatter(
                x=np.float32(edges / unit),
                y=np.float32(np.append(values, values[-1:])),
                line_shape="hv",
                fill="tozeroy" if single else None,
                hovertemplate="%{y:.3g}<extra></extra>",
                row=row,
                col=1,
                **charts.line(at),
            )
    for row, title in enumerate(("waiting", "running", "utilisation"), start=1):
        figure.update_yaxes(title_text=title, rangemode="tozero", nticks=4, row=row, col=1)
    figure.update_yaxes(**charts.BUSY, row=3, col=1)
    figure.update_xaxes(title_text=f"time ({name})", row=3, col=1)
    return charts.legend(figure, comparison.names)


def replicas_over_time(comparison: Comparison) -> go.Figure:
    """Replicas paid for, and of them those ready; below what they have cost so far, and what the most would have."""
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.09, figure=blank("", "", 460))
    unit, name = charts.ticks_of_time(max([run.end_s for run in comparison.arrays if len(run.requests)], default=0.0))
    priced = False
    for at, run in enumerate(comparison.arrays):
        if not len(run.requests):
            continue
        counts = replicas(run)
        counts = counts.iloc[spread(len(counts), _share(comparison) // 2)]
        time = (counts["time_s"] / unit).astype(np.float32)
        priced |= not math.isnan(value("cost", run))
        thin = charts.line(at) | {"line": {"color": charts.colour(at), "dash": "dot", "width": 1}}
        figure.add_scatter(x=time, y=counts["paid"], row=1, col=1, line_shape="hv", **charts.line(at))
        figure.add_scatter(x=time, y=counts["cost"].astype(np.float32), row=2, col=1, **charts.line(at))
        if run.lifetimes is not None:
            figure.add_scatter(x=time, y=counts["ready"], row=1, col=1, line_shape="hv", **thin)
            figure.add_scatter(x=time, y=counts["cost_of_most"].astype(np.float32), row=2, col=1, **thin)
    figure.update_yaxes(title_text="replicas", row=1, col=1)
    figure.update_yaxes(title_text="cost so far" if priced else "device hours so far", row=2, col=1)
    figure.update_xaxes(title_text=f"time ({name})", row=2, col=1)
    return charts.legend(figure.update_yaxes(rangemode="tozero"), comparison.names)


def batch_sizes(comparison: Comparison) -> go.Figure:
    """Share of denoising launches by the number of requests in them."""
    figure = blank("requests in a launch", "share of denoising launches")
    largest = 1
    for at, run in enumerate(comparison.arrays):
        batches, count = np.unique(run.steps.requests[run.steps.of(*DENOISING)], return_counts=True)
        largest = max([largest, *batches.tolist()])
        style = charts.marker(at) | charts.line(at) | {"mode": "lines+markers"}
        figure.add_scatter(x=batches, y=np.float32(count / max(1, count.sum())), **style)
    figure.update_xaxes(tick0=1, dtick=max(1, math.ceil(largest / 8)))
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return charts.legend(figure, comparison.names)


def predicted_against_actual(comparison: Comparison) -> go.Figure:
    """Predicted and actual seconds of launches; on the line they are equal, open marks are extrapolated."""
    figure = blank("actual launch (s)", "predicted launch (s)")
    seen: list[float] = []
    for at, run in enumerate(comparison.arrays):
        judged = np.flatnonzero(run.steps.predicted & (run.steps.predicted_s > 0))
        judged = judged[spread(len(judged), _share(comparison) // 2)]
        actual, predicted = run.steps.seconds[judged], run.steps.predicted_s[judged]
        seen += [*actual.tolist(), *predicted.tolist()]
        beyond = run.steps.extrapolated[judged]
        symbol = charts.marker(at)["marker"]["symbol"]
        for style, chosen in (("", ~beyond), ("-open", beyond)):
            figure.add_scatter(
                x=np.float32(actual[chosen]),
                y=np.float32(predicted[chosen]),
                **charts.marker(at, symbol=symbol + style, size=6, opacity=0.7),
            )
    figure.update_layout(xaxis=log_axis(seen), yaxis=log_axis(seen))
    return charts.legend(charts.diagonal(figure), comparison.names, lines=False)


def _promised(figure: go.Figure, comparison: Comparison, axis: str) -> go.Figure:
    """The figure with the promise of the runs, where they all have the same one."""
    promises = {comparison.promise(at) for at in range(len(comparison.runs))}
    if len(promises) == 1 and (share := promises.pop()) is not None:
        charts.promise(figure, share, axis)
    return figure


def _arrivals_rps(run: RunArrays) -> float:
    """Requests a second that arrived, in the mean; 0: that is not known."""
    arrival_s = run.requests.arrival_s
    span_s = float(np.ptp(arrival_s)) if len(arrival_s) > 1 else 0.0
    return (len(arrival_s) - 1) / span_s if span_s else 0.0


def _least(shares: Iterable[float]) -> float:
    return min([share for share in shares if not math.isnan(share)], default=0.0)


def _share(comparison: Comparison) -> int:
    """Points that one run may have in a chart."""
    return max(50, POINTS // max(1, len(comparison.runs)))


def _slices(comparison: Comparison) -> int:
    """Slices of time of a run: fewer where several lines cross."""
    return SLICES if len(comparison.runs) == 1 else SLICES // 2


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
