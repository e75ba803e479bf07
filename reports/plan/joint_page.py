"""A plan for pools that share models as one HTML page; see `reports.document`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import plotly.graph_objects as go

from reports import charts
from reports.charts import blank, promise, share_axis
from reports.document import Chart, Document, Fold, KeyFigure, PageSection, sentence
from reports.formatting import format_interval, format_rate
from reports.plan.chart_style import ANSWER_MARK, ends, error, kept_legend, kept_mark
from reports.plan.formatting import TRUST, money
from reports.plan.joint import JointEvaluation, JointPlan
from reports.plan.page import again, labels_of_trust
from reports.table import Table
from traces.notes import Note

KEY = 6


def document(plan: JointPlan) -> Document:
    """The page of a plan for pools that share models."""
    weakest = next((label for label in reversed(TRUST) if label in plan.labels.values()), "")
    return Document(
        what="plan",
        version=plan.tilecast,
        answer=plan.sentence,
        context=sentence([f"Deadlines: {plan.slo}", f"Demand: {plan.how}", f"Trust: {plan.trust}"]),
        notes=[Note(plan.caution)] if plan.caution else [],
        key=list(_key(plan))[:KEY],
        sections=[*_sections(plan), labels_of_trust(), again(plan.command, plan.scenario, _points(plan))],
        trust=weakest,
    )


def _key(plan: JointPlan) -> Iterator[KeyFigure]:
    best, checked = plan.answer, plan.checked
    if best is None or checked is None:
        return
    yield KeyFigure("Buy", best.spelled, "replicas of each pool")
    if not math.isnan(best.price_per_hour):
        least = "" if math.isnan(plan.least_price) else f"the work alone takes {money(plan.least_price)}"
        yield KeyFigure("Per hour", money(best.price_per_hour), least)
    for model, rate in plan.rates_rps.items():
        if model in checked.attainment:
            kept = format_interval(checked.attainment[model], "%")
            yield KeyFigure(f"{model}, in time", kept, f"at {format_rate(rate)}")
    for model in plan.rates_rps:
        if model in checked.latency_p95_s:
            yield KeyFigure(f"{model}, P95", format_interval(checked.latency_p95_s[model], "s"))


def _sections(plan: JointPlan) -> Iterator[PageSection]:
    everything = Table.plain("Clusters simulated", plan.heads, plan.rows())
    at = {number for number, each in enumerate(plan.considered) if each == plan.answer}
    if everything.rows:
        everything = Table(everything.title, everything.heads, everything.kinds, everything.rows, chosen=frozenset(at))
        near = plan.nearest()
        nearest = Table(
            f"Clusters about it, {plan.order}",
            everything.heads[: plan.narrow],
            everything.kinds[: plan.narrow],
            tuple([everything.rows[number][: plan.narrow] for number in near]),
            chosen=frozenset([near.index(number) for number in at]),
        )
        yield PageSection(
            "What each cluster costs, and keeps" if plan.priced else "What each cluster keeps",
            "Clusters that were simulated, all pools together. The promise holds for every model by itself.",
            charts=[
                Chart(
                    "Deadlines kept by price" if plan.priced else "Deadlines kept by replicas",
                    "Share of each model's requests that finished in time; bars are confidence.",
                    kept_by_price(plan),
                ),
                *(
                    [
                        Chart(
                            "Replicas of the two pools",
                            "Which numbers of replicas keep the promise.",
                            replicas(plan),
                        )
                    ]
                    if len(plan.labels) == 2
                    else []
                ),
            ],
            tables=[nearest],
            folds=[Fold.of(everything)],
        )
    if plan.refused:
        yield PageSection("Not simulated, and why", paragraphs=list(plan.refused))


def kept_by_price(plan: JointPlan) -> go.Figure:
    """Share of each model's requests in time, against the price of the cluster, or where none is known its replicas; of
    one model the marks say whether the promise is kept, of several which it is."""
    priced = plan.priced
    figure = blank("price per hour" if priced else "replicas", "deadlines kept", 400)
    models, keeps = list(plan.rates_rps), list[bool | None]()
    lows = [plan.attainment]
    for at, model in enumerate(models):
        known = [each for each in plan.considered if not math.isnan(_kept(each, model))]
        keeps = [each.keeps for each in known]
        met = [each.attainment[model] for each in known]
        lows += [ends(each)[0] for each in met]
        figure.add_scatter(
            x=[each.price_per_hour if priced else float(sum(each.replicas.values())) for each in known],
            y=[each.mean for each in met],
            error_y=error(met),
            text=[f"{charts.label(each.spelled)}: {format_interval(each.attainment[model], '%')}" for each in known],
            hovertemplate="%{text}<extra></extra>",
            **(charts.marker(at) if len(models) > 1 else _verdicts(keeps)),
        )
    promise(figure, plan.attainment, "y")
    if plan.answer is not None:
        of_it = plan.answer.price_per_hour if priced else float(sum(plan.answer.replicas.values()))
        charts.across(figure, of_it, "x", "the answer", "dot")
    if len(models) == 1:
        kept_legend(figure, keeps)
    return charts.legend(figure.update_layout(yaxis=share_axis(min(lows))), models, lines=False)


def replicas(plan: JointPlan) -> go.Figure:
    """Replicas of two pools, and whether they keep the promise."""
    across, up = plan.labels
    figure = blank(f"replicas of {charts.label(across)}", f"replicas of {charts.label(up)}", 400)
    keeps = [each.keeps for each in plan.considered]
    figure.add_scatter(
        x=[each.replicas.get(across, 0) for each in plan.considered],
        y=[each.replicas.get(up, 0) for each in plan.considered],
        mode="markers",
        marker=kept_mark(keeps, 11),
        text=[f"{charts.label(each.spelled)}: {money(each.price_per_hour)} an hour" for each in plan.considered],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    if plan.answer is not None:
        place = {"x": [plan.answer.replicas.get(across, 0)], "y": [plan.answer.replicas.get(up, 0)]}
        figure.add_scatter(**place, mode="markers", marker=ANSWER_MARK, name="the answer", hoverinfo="skip")
    for axis, pool in (("xaxis", across), ("yaxis", up)):
        most = max([each.replicas.get(pool, 0) for each in plan.considered], default=1)
        figure.update_layout({axis: {"tick0": 0, "dtick": max(1, math.ceil(most / 6)), "range": [-0.5, most + 0.5]}})
    return kept_legend(figure, keeps)


def _verdicts(keeps: Sequence[bool | None]) -> dict[str, Any]:
    """How points are drawn of which it matters whether the promise is kept."""
    return {"mode": "markers", "marker": kept_mark(keeps), "showlegend": False}


def _kept(each: JointEvaluation, model: str) -> float:
    return each.attainment[model].mean if model in each.attainment else math.nan


def _points(plan: JointPlan) -> str:
    return f"{plan.points:,} simulations." if plan.points else ""
