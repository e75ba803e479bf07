"""A plan as one HTML page, which a planner would send to a manager; see `reports.document`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from reports.document import render
from reports.plan import charts, tables
from reports.plan.answer import answer, cautions, key_figures, promise
from reports.plan.tables import Table
from reports.plan.words import TRUST, about, percent, weakest
from sim.planning.result import Evaluation, Plan


@dataclass(frozen=True, slots=True)
class Section:
    """A chart with its table, and how far to trust both.

    Attributes:
        title: of both.
        caption: how to read the chart.
        draw: the chart; None: there is only a table.
        table: the figures.
        rests_on: the evaluations that the figures come from.
        beside: whether chart and table stand side by side where there is room.
        folded: whether the table is opened by the reader.
    """

    title: str
    caption: str
    draw: Callable[[Plan], go.Figure] | None
    table: Table
    rests_on: tuple[Evaluation, ...]
    beside: bool = False
    folded: bool = False

    @property
    def name(self) -> str:
        """Its chart's element id."""
        return self.draw.__name__.replace("_", "-") if self.draw else ""

    @property
    def label(self) -> str:
        """The least trustworthy label of what it rests on."""
        return weakest(list(self.rests_on))

    @property
    def extrapolated(self) -> str:
        """The largest share outside the measured range, spelled; empty: none."""
        share = max((evaluation.extrapolated for evaluation in self.rests_on), default=0.0)
        return about(share) if share > 0 else ""


def sections(plan: Plan) -> list[Section]:
    """What the page shows below the answer; a section without rows is left out."""
    best = (plan.answer,) if plan.answer else ()
    monthly = tuple(month.evaluation for month in plan.growth if month.evaluation)
    by_policy = tuple(policy.evaluation for policy in plan.policies if policy.evaluation)
    interval = f"{percent(plan.confidence)} confidence"
    marks = "Dot: the promise is kept; cross: it is not; open diamond: undecided."
    shown = [
        Section(
            "How much load it carries",
            f"Share of deadlines kept on this cluster under less and more load; the band is {interval}. {marks}",
            charts.attainment_against_load,
            tables.load_curve(plan),
            best,
            beside=True,
        ),
        Section(
            "What if",
            f"The same cluster when something is otherwise; bars are {interval}. {marks}",
            charts.what_if,
            tables.what_if(plan),
            best,
            beside=True,
        ),
        Section(
            "What it costs to keep more deadlines",
            "Every cluster simulated. Shape: hardware. Filled: stable; dotted: near the knee; hollow: unstable. "
            f"A line joins clusters that differ in replicas alone; bars are {interval}.",
            charts.cost_against_attainment,
            tables.considered(plan),
            plan.considered,
        ),
        Section("What was not simulated, and why", "", None, tables.refused(plan), ()),
        Section(
            "What each policy needs",
            "The least cluster that keeps the promise with each scheduling policy.",
            None,
            tables.policies(plan),
            by_policy,
        ),
        Section(
            "When the demand grows",
            "The least cluster that keeps the promise, month by month; labelled where another one is needed.",
            charts.growth,
            tables.growth(plan),
            monthly,
            beside=True,
        ),
        Section(
            "How long requests take",
            "Finished requests on this cluster by size. Box: median and quartiles; whiskers: P5 and P95; mark: P99.",
            charts.latency_by_size,
            tables.by_size(plan),
            best,
            beside=True,
        ),
        Section(
            "Queue and utilisation over time",
            "One replication on this cluster: requests waiting, requests running, busy share of the devices.",
            charts.over_time,
            tables.over_time(plan),
            best,
            folded=True,
        ),
    ]
    return [section for section in shown if section.table.rows]


def page(plan: Plan) -> str:
    """The page as text. Every text that comes from the plan is escaped."""
    shown = sections(plan)
    best = plan.answer
    return render(
        "plan/plan.html",
        {section.name: section.draw(plan) for section in shown if section.draw},
        plan=plan,
        answer=answer(plan),
        promise=promise(plan),
        key_figures=key_figures(plan),
        label=best.label if best else "",
        extrapolated=about(best.extrapolated) if best and best.extrapolated > 0 else "",
        cautions=cautions(plan),
        sections=shown,
        legend=TRUST,
    )
