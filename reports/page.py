"""A comparison as one HTML page: tables, interactive plots and scenarios; see `reports.document`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from policies.runlog import Run
from reports import plots
from reports.comparison import Comparison
from reports.document import render
from reports.figures import READING
from reports.markdown import REPORT
from reports.reasons import reasons
from traces.files import write_document

REASONS = 8
"""Reasons for lost requests that a run may list."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of the page: what draws it, how to read it, and whether it is wanted of some runs."""

    title: str
    caption: str
    draw: Callable[[Comparison], go.Figure]
    wanted: Callable[[Comparison], bool] = lambda comparison: True

    @property
    def name(self) -> str:
        """Its element's id."""
        return self.draw.__name__.replace("_", "-")


PLOTS = (
    Plot(
        "Latency",
        "Share of all requests that finished within a latency. A curve that ends below 100 % lost the rest.",
        plots.latency_cdf,
    ),
    Plot(
        "SLO attainment by size",
        "Share of each size's requests that finished in time.",
        plots.attainment_by_size,
    ),
    Plot(
        "Latency by size",
        "Finished requests. Box: median and quartiles; whiskers: P5 and P95.",
        plots.latency_by_size,
    ),
    Plot(
        "Requests over time",
        "Waiting: arrived, not started. Running: started, not ended.",
        plots.load_over_time,
    ),
    Plot(
        "Utilisation over time",
        "Share of time the replicas were busy: their mean; the band holds the middle 80 % of them.",
        plots.utilisation_over_time,
    ),
    Plot(
        "Replicas over time",
        "Above: paid for, and dotted those of them that take requests. Below: what they have cost so far, and dotted "
        "what the most that there may be would have cost.",
        plots.replicas_over_time,
        lambda comparison: any(run.lifetimes is not None for run in comparison.arrays),
    ),
    Plot("Batch sizes", "Requests in a denoising launch.", plots.batch_sizes),
    Plot(
        "Predicted against actual launch times",
        "On the line a prediction is exact; open marks lie outside the measured range.",
        plots.predicted_against_actual,
    ),
)


def plots_of(comparison: Comparison) -> list[Plot]:
    """The plots that say something of these runs."""
    return [plot for plot in PLOTS if plot.wanted(comparison)]


def page(comparison: Comparison) -> str:
    """The page as text. Every text that comes from a run log is escaped."""
    shown = plots_of(comparison)
    return render(
        "page.html",
        REPORT,
        {plot.name: plot.draw(comparison) for plot in shown},
        names=comparison.names,
        version=comparison.runs[0].info.get("tilecast", ""),
        answer=comparison.answer(),
        notes=comparison.notes(),
        alike=comparison.alike(),
        leading=comparison.leading(),
        reading=READING,
        breakdowns=comparison.breakdowns(),
        topics=comparison.topics(),
        setup=comparison.setup(),
        lost=[
            (name, *row)
            for name, run in zip(comparison.names, comparison.runs, strict=True)
            for row in reasons(run).head(REASONS).itertuples(index=False)
        ],
        plots=shown,
        scenarios=[(name, _scenario(run)) for name, run in zip(comparison.names, comparison.runs, strict=True)],
    )


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        BadInput: ``path`` cannot be written.
    """
    write_document(page(comparison), path, REPORT)


def _scenario(run: Run) -> str:
    return json.dumps(run.info.get("scenario", {}), indent=2, sort_keys=True, ensure_ascii=False)
