"""A plan as one HTML page, which a planner would send to a manager; see `reports.document`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from reports.document import render
from reports.formatting import about, percent
from reports.plan import charts, tables
from reports.plan.answer import answer, key_figures, notes, promise
from reports.plan.formatting import TRUST, subject, trust
from reports.plan.frames import TABLES
from reports.plan.result import Evaluation, Plan
from reports.plan.table import Table
from traces.marks import OutputKind

_FILES = ("points.sqlite", "plan.html", "plan.md", *(f"{name}.parquet" for name in TABLES), "plan.json")
PLAN = OutputKind("plan", files=dict.fromkeys(_FILES, "plan"))


@dataclass(frozen=True, slots=True)
class PageSection:
    """A chart with its figures, and how far to trust both.

    Attributes:
        title: title of both.
        caption: how to read the chart.
        tables: the figures; those without rows are not shown.
        rests_on: the evaluations that the figures come from.
        draw: the chart; None: there are only tables.
        beside: whether chart and table stand side by side where there is room, the table with its brief columns.
        folded: tables that the reader opens.
    """

    title: str
    caption: str
    tables: tuple[Table, ...]
    rests_on: tuple[Evaluation, ...]
    draw: Callable[[Plan], go.Figure] | None = None
    beside: bool = False
    folded: tuple[Table, ...] = ()

    @property
    def name(self) -> str:
        """Its element's id, and its chart's."""
        return self.title.lower().replace(" ", "-")

    @property
    def drawn(self) -> bool:
        """Whether there is something to draw."""
        return self.draw is not None and bool(self.rests_on)

    @property
    def shown(self) -> tuple[Table, ...]:
        """Open tables, as they are shown."""
        return tuple(table.narrow() if self.beside else table for table in self.tables if table.rows)

    @property
    def extrapolated(self) -> str:
        """The largest share outside the measured range, spelled; empty: none."""
        share = max((evaluation.extrapolated for evaluation in self.rests_on), default=0.0)
        return about(share) if share > 0 else ""


def sections(plan: Plan) -> list[PageSection]:
    """What the page shows below the answer; a section without rows is left out."""
    told = subject(plan)
    best = (told,) if told else ()
    monthly = tuple(month.evaluation for month in plan.growth if month.evaluation)
    by_policy = tuple(policy.evaluation for policy in plan.policies if policy.evaluation)
    by_size = tables.by_size(plan)
    interval = f"{percent(plan.confidence)} confidence"
    marks = "Dot: the promise is kept; cross: it is not; open diamond: undecided."
    shown = [
        PageSection(
            "How sure it is",
            "Times that were not measured may be wrong by a factor that all batches share. The least cluster of the "
            "same hardware for five speeds that are equally likely, the fastest first; deadlines stay.",
            (tables.speeds(plan),),
            best,
        ),
        PageSection(
            "How much load it carries",
            f"Share of deadlines kept on this cluster under less and more load; the band is {interval}. {marks}",
            (tables.load_curve(plan),),
            best,
            charts.attainment_against_load,
            beside=True,
        ),
        PageSection(
            "What if",
            f"The same cluster when something is otherwise; bars are {interval}. {marks}",
            (tables.what_if(plan),),
            best,
            charts.what_if,
            beside=True,
        ),
        PageSection(
            "What it costs to keep more deadlines",
            "Every cluster that was simulated, by its price or, where none is known, its devices. Filled: stable; "
            "dotted: near the knee; hollow: unstable. A line joins clusters that differ in replicas alone; bars are "
            f"{interval}.",
            (tables.considered(plan),),
            plan.considered,
            charts.cost_against_attainment,
            folded=(tables.reasons(plan), tables.refused(plan)),
        ),
        PageSection(
            "Does the model fit",
            "Memory of a device at the largest batch, pictures of the largest size.",
            (tables.memory(plan),),
            (),
        ),
        PageSection(
            "What each policy needs",
            "The least cluster that keeps the promise with each scheduling policy, or what came nearest. The cheapest "
            "is the answer; of several as cheap, the one with the most room.",
            (tables.policies(plan),),
            by_policy,
        ),
        PageSection(
            "When the demand grows",
            "The least cluster that keeps the promise, month by month; labelled where another one is needed.",
            (tables.growth(plan),),
            monthly,
            charts.growth,
            beside=True,
        ),
        PageSection(
            "How long requests take",
            "Finished requests on this cluster by size. Box: median and quartiles; whiskers: P5 and P95; mark: P99.",
            (by_size.first(charts.SIZES),),
            best,
            charts.latency_by_size,
            beside=True,
            folded=(by_size,) if len(by_size.rows) > charts.SIZES else (),
        ),
        PageSection(
            "Queue and utilisation over time",
            "One replication on this cluster: requests waiting, requests running, busy share of the devices.",
            (),
            best,
            charts.over_time,
            folded=(tables.over_time(plan),),
        ),
        PageSection(
            "To start it in your engine",
            "One replica; MODEL is your checkpoint. Every request runs on all devices of its replica there: what a "
            "scheduler gains that chooses batches and degrees is not in these engines. Flags as documented for "
            "vLLM-Omni 0.26, SGLang Diffusion of September 2026 and xDiT of 2026.",
            (tables.engines(plan),),
            (),
        ),
    ]
    return [section for section in shown if any(table.rows for table in (*section.tables, *section.folded))]


def page(plan: Plan) -> str:
    """The page as text. Every text that comes from the plan is escaped."""
    shown = sections(plan)
    best = subject(plan)
    return render(
        "plan/plan.html",
        PLAN,
        {section.name: section.draw(plan) for section in shown if section.draw and section.drawn},
        plan=plan,
        answer=answer(plan),
        promise=promise(plan),
        key_figures=key_figures(plan),
        label=trust(plan, [best] if best else []),
        extrapolated=about(best.extrapolated) if best and best.extrapolated > 0 else "",
        notes=notes(plan),
        sections=[(section, trust(plan, section.rests_on)) for section in shown],
        legend=TRUST,
    )
