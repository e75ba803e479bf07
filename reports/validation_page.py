"""A simulation held against a real run as one HTML page, which opens with whether to trust it; see
`reports.document`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from reports import charts
from reports.charts import blank, log_axis, row_height, rows_axis, share_axis
from reports.document import Chart, Document, Fold, KeyFigure, PageSection, render, sentence
from reports.fidelity import GOALS, difference, format_difference, format_limit, format_range
from reports.figures import figure
from reports.formatting import format_value
from reports.notes import format_drift
from reports.repeats import Repeats
from reports.series import spread
from reports.table import Table
from reports.validate import VALIDATION, Validation, format_error
from traces.files import write_document
from traces.notes import Note

_PARTS = "By size and by stage"

POINTS = 2000
"""Requests that a chart shows one by one at most."""


def write_validation_page(compared: Validation | Repeats, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        BadInput: ``path`` cannot be written.
    """
    write_document(render(document(compared), VALIDATION), path, VALIDATION)


def document(compared: Validation | Repeats) -> Document:
    """The page of a simulation held against a real run, or of several against several."""
    fidelity = compared.fidelity
    return Document(
        what="validation",
        version="",
        answer=fidelity.advice,
        context=sentence([fidelity.verdict, *_runs(compared)]),
        key=list(_key(compared)),
        notes=[Note(caution) for caution in compared.cautions],
        sections=list(_sections(compared)),
    )


def _runs(compared: Validation | Repeats) -> Iterator[str]:
    if isinstance(compared, Repeats):
        yield f"simulated: {', '.join(compared.sims)}"
        yield f"real: {', '.join(compared.reals)}"
    else:
        yield f"simulated: {compared.sim}"
        yield f"real: {compared.real}"
        yield compared.agreement()


def _key(compared: Validation | Repeats) -> Iterator[KeyFigure]:
    """The error of each figure that is judged, what is known of its cause, and whether decisions were reproduced."""
    for name in compared.fidelity.ranges:
        unit = figure(name).unit
        error = format_difference(_error(compared, name), unit)
        yield KeyFigure(f"{figure(name).label}, error", error, f"at most {format_limit(GOALS[name], unit)}")
    drift = compared.fidelity.drift
    if not math.isnan(drift):
        yield KeyFigure("Real steps took", format_drift(drift), "than simulated ones")
    if compared.parity is not None:
        yield KeyFigure(
            "Decisions told again", str(compared.parity.get("reproduced")), f"of {compared.parity.get('decisions'):,}"
        )


def _sections(compared: Validation | Repeats) -> Iterator[PageSection]:
    drawn = []
    if compared.fidelity.ranges:
        drawn.append(
            Chart(
                "Errors, and where they lie",
                "Simulated minus real, of times as a share of the real one. Thin line: where the error lies, noise "
                "considered, with 95 % confidence; grey bar: what is allowed.",
                errors(compared),
            )
        )
    if isinstance(compared, Validation) and compared.requests["error_s"].notna().any():
        drawn.append(
            Chart(
                "Request by request",
                "Latency of requests that finished in both; on the line the simulation is exact.",
                request_by_request(compared),
            )
        )
        drawn.append(
            Chart(
                "Latency",
                "Share of all requests that finished within a latency, marked at P50, P95 and P99.",
                latency(compared),
            )
        )
    judged = [name for name in compared.figures.index if name in GOALS]
    others = [name for name in compared.figures.index if name not in GOALS and ":" not in str(name)]
    parts = [name for name in compared.figures.index if ":" in str(name)]
    yield PageSection(
        "How near it is",
        charts=drawn,
        tables=[_figures(compared, judged, "What is judged")],
        folds=[
            Fold.of(table)
            for table in (
                *[
                    _figures(compared, names, title)
                    for names, title in ((others, "Every other figure"), (parts, _PARTS))
                ],
                *([_of_requests(compared)] if isinstance(compared, Validation) else []),
            )
            if table.rows
        ],
    )


def _of_requests(compared: Validation) -> Table:
    rows = [
        (str(label), format_value(row["error_s"], "s"), format_value(row["relative"], "%"))
        for label, row in compared.latency_errors.iterrows()
    ]
    return Table.plain("Latency error per request", ["", "seconds", "relative"], rows)


def _figures(compared: Validation | Repeats, names: list[str], title: str) -> Table:
    """The figures that are named, simulated and real."""
    known = [(str(name), row) for name, row in compared.figures.loc[names].iterrows()]
    if isinstance(compared, Validation):
        rows = [(figure(name).label, *format_error(name, row)) for name, row in known]
        return Table.plain(title, ["", "simulated", "real", "error", "relative"], rows)
    rows = []
    for name, row in known:
        unit = figure(name).unit
        values = [format_value(row[column], unit) for column in ("sim", "sim_sd", "real")]
        apart = [format_difference(row[column], unit, column == "error") for column in ("error", "spread")]
        rows.append((figure(name).label, *values, *apart))  # type: ignore[arg-type]
    heads = ["", "simulated, mean", "standard deviation", "real, mean", "error", "spread of real"]
    return Table.plain(title, heads, rows)


def errors(compared: Validation | Repeats) -> go.Figure:
    """The error of each figure that is judged, where it lies, and what is allowed."""
    ranges = compared.fidelity.ranges
    figure_ = blank("simulated - real (% or points)", "", row_height(len(ranges), 2))
    known = [100 * end for lies in ranges.values() for end in lies if math.isfinite(end)]
    most = 1.1 * max([*map(abs, known), *[100 * GOALS[name] for name in ranges]])
    for at, (name, lies) in enumerate(ranges.items()):
        limit, error = 100 * GOALS[name], 100 * _error(compared, name)
        allowed = {"color": charts.QUIET["color"], "width": 12}
        figure_.add_scatter(
            x=[-limit, limit], y=[at, at], mode="lines", line=allowed, opacity=0.3, showlegend=False, hoverinfo="skip"
        )
        within = [max(-most, min(most, 100 * end)) for end in lies]
        figure_.add_scatter(x=within, y=[at, at], hoverinfo="skip", **charts.line(0))
        text = f"{format_difference(error / 100, figure(name).unit)}, {format_range(lies)}"
        shown = charts.marker(0, symbol="circle" if abs(error) <= limit else "x")
        figure_.add_scatter(x=[error], y=[at], text=[text], hovertemplate="%{text}<extra></extra>", **shown)
    figure_.add_shape(type="line", yref="paper", y0=0, y1=1, x0=0, x1=0, line=charts.QUIET, layer="below")
    return figure_.update_layout(
        xaxis={"range": [-most, most]}, yaxis=rows_axis([figure(name).label for name in ranges]), margin_t=16
    )


def request_by_request(compared: Validation) -> go.Figure:
    """Simulated and real latency of each request that finished in both."""
    figure_ = blank("real latency (s)", "simulated latency (s)")
    both = compared.requests[compared.requests["error_s"].notna()]
    both = both.iloc[spread(len(both), POINTS)]
    names = ("ended alike", "one met its deadline, one not")
    for at, (name, rows) in enumerate(zip(names, (both[both["same_end"]], both[~both["same_end"]]), strict=True)):
        symbol = "circle" if at == 0 else "x"
        figure_.add_scatter(
            x=rows["real_s"].to_numpy(np.float32),
            y=rows["sim_s"].to_numpy(np.float32),
            text=[charts.label(str(name)) for name in rows.index],
            hovertemplate="%{text}: %{x} s, %{y} s<extra></extra>",
            **(charts.marker(at, size=6, opacity=0.7, symbol=symbol) | {"name": name, "showlegend": True}),
        )
    seen = [*both["real_s"], *both["sim_s"]]
    return charts.diagonal(figure_.update_layout(xaxis=log_axis(seen), yaxis=log_axis(seen)))


def latency(compared: Validation) -> go.Figure:
    """Share of all requests that finished within a latency, simulated and real."""
    figure_ = blank("latency (s)", "share of all requests")
    for at, column in enumerate(("sim_s", "real_s")):
        charts.add_shares(
            figure_, compared.requests[column].dropna().to_numpy(float), len(compared.requests), POINTS, at
        )
    seen = [*compared.requests["sim_s"], *compared.requests["real_s"]]
    figure_.update_layout(xaxis=log_axis(seen), yaxis=share_axis())
    return charts.legend(figure_, ("simulated", "real"))


def _error(compared: Validation | Repeats, name: str) -> float:
    """As a share of the real one, or of shares their difference."""
    values, unit = compared.figures, figure(name).unit
    scale = 100.0 if unit == "%" and isinstance(compared, Validation) else 1.0
    return difference(float(values["sim"][name]) / scale, float(values["real"][name]) / scale, unit)
