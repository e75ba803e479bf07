"""A plan as one HTML page, which a planner would send to a manager; see `reports.document`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import plotly.graph_objects as go

from reports.document import Chart, Document, Fold, PageSection, render
from reports.formatting import about, percent
from reports.plan import charts, tables
from reports.plan.answer import headline, key_figures, notes, promise
from reports.plan.engines import as_engines_decide
from reports.plan.formatting import TRUST, subject, trust
from reports.plan.frames import TABLES
from reports.plan.result import Evaluation, Plan
from reports.table import Table
from traces.marks import OutputKind

_FILES = ("points.sqlite", "plan.html", "plan.md", *(f"{name}.parquet" for name in TABLES), "plan.json")
PLAN = OutputKind("plan", files=dict.fromkeys(_FILES, "plan"))

KEY = 6
"""Key figures at the head of the page; the others stand in a table."""


def page(plan: Plan) -> str:
    """The page as text. Every text that comes from the plan is escaped."""
    return render(document(plan), PLAN)


def document(plan: Plan) -> Document:
    """The page of a plan."""
    best = subject(plan)
    lead, rest = headline(plan)
    return Document(
        what="plan",
        version=plan.tilecast,
        answer=lead,
        context=f"{rest} {promise(plan)}".strip(),
        key=key_figures(plan)[:KEY],
        notes=notes(plan),
        sections=[*_sections(plan), *_last(plan)],
        trust=trust(plan, [best] if best else []),
        extrapolated=_extrapolated([best] if best else []),
    )


def _sections(plan: Plan) -> Iterator[PageSection]:
    """What the page shows below the answer; a section without rows is left out."""
    told = subject(plan)
    best = (told,) if told else ()
    interval = f"{percent(plan.confidence)} confidence"
    briefly = ("Kept?", "Deadlines kept", "P95 latency")

    def section(
        title: str,
        caption: str,
        table: Table,
        rests_on: Sequence[Evaluation],
        draw: Callable[[Plan], go.Figure] | None = None,
        folded: Sequence[Table] = (),
        beside: Sequence[str] = (),
        paragraph: str = "",
    ) -> Iterator[PageSection]:
        """A section of a table, and a chart; of a table that stands ``beside`` it the columns that are named."""
        folded = [each for each in (*([table] if beside else []), *folded) if each.rows]
        if not (table.rows or folded):
            return
        drawn = [Chart(title, caption, draw(plan))] if draw is not None and rests_on else []
        yield PageSection(
            title,
            caption,
            drawn,
            [table.only(*beside) if beside else table] if table.rows else [],
            beside=bool(beside and drawn and table.rows),
            folds=[Fold.of(each) for each in folded],
            paragraphs=[paragraph] if paragraph else [],
            trust=trust(plan, rests_on),
            extrapolated=_extrapolated(rests_on),
        )

    yield from section(
        "How sure it is",
        "Times that were not measured may be wrong by a factor that all batches share. The least cluster of the "
        "same hardware for five speeds that are equally likely, the fastest first; deadlines stay.",
        tables.speeds(plan),
        best,
    )
    yield from section(
        "How much load it carries",
        f"Share of deadlines kept on this cluster under less and more load; the band is {interval}.",
        tables.load_curve(plan),
        best,
        charts.attainment_against_load,
        beside=("Load", *briefly),
    )
    yield from section(
        "What if",
        f"The same cluster when something is otherwise; bars are {interval}.",
        tables.what_if(plan),
        best,
        charts.what_if,
        beside=("If", *briefly),
    )
    yield from section(
        "What each cluster costs",
        "Every cluster that was simulated, by its price or, where none is known, its devices; the number is that of "
        "its replicas. Whether it keeps its promise is a matter of deadlines that were kept; whether it is stable, of "
        "how it would go on: a queue that grows keeps no promise for long.",
        tables.least(plan),
        plan.considered,
        charts.cost_against_attainment,
        (tables.considered(plan), tables.reasons(plan), tables.refused(plan)),
    )
    yield from section(
        "Does the model fit",
        "Memory of a device at the largest batch, pictures of the largest size.",
        tables.memory(plan),
        (),
    )
    yield from section(
        "What each policy needs",
        "The least cluster that keeps the promise with each scheduling policy, or what came nearest. The cheapest "
        "is the answer; of several as cheap, the one with the most room.",
        tables.policies(plan),
        tuple(policy.evaluation for policy in plan.policies if policy.evaluation),
    )
    yield from section(
        "When the demand grows",
        "The least cluster that keeps the promise, month by month; its replicas stand where another one is needed.",
        tables.growth(plan),
        tuple(month.evaluation for month in plan.growth if month.evaluation),
        charts.growth,
        beside=("Month", "Least cluster", "Per hour", "Deadlines kept"),
    )
    yield from section(
        "How long requests take",
        "On this cluster, by size. Mark: median; thick line: the middle half; thin line: from P5 to P95; upright: P99.",
        tables.by_size(plan, charts.SIZES),
        best,
        charts.latency_by_size,
        [tables.by_size(plan)] if len(plan.by_size) > charts.SIZES else [],
        beside=("Size", "Deadlines kept", "P50", "P95"),
    )
    yield from section(
        "Queue and utilisation over time",
        "One replication on this cluster: requests waiting, requests running, busy share of the devices.",
        replace(tables.over_time(plan), rows=()),
        best,
        charts.over_time,
        [tables.over_time(plan)],
    )
    yield from section(
        tables.WHEN_IT_PAYS,
        "A batch alone on some devices of a replica: parallelism pays as far as latency falls, and costs what images a "
        "second and device fall; batching pays where these rise. Marked: the best of each size.",
        tables.by_degree_alone(plan),
        best if plan.by_degree else (),
        folded=[tables.by_degree(plan)] if plan.by_degree else [],
    )
    yield from section(
        tables.START,
        "One replica; MODEL is your checkpoint. Every request runs on all devices of its replica there. Flags as "
        "documented for vLLM-Omni 0.26, SGLang Diffusion of September 2026 and xDiT of 2026.",
        tables.engines(plan),
        (),
        paragraph=as_engines_decide(plan),
    )

    more = key_figures(plan)[KEY:]
    yield from section(
        "More figures of the answer",
        "",
        Table.plain("More figures of the answer", ["", "", ""], more, texts=3),
        (),
    )


def _last(plan: Plan) -> list[PageSection]:
    """What goes with every plan: the demand, what labels mean, how to run it again."""
    sizes = [f"{size} ({100 * share:.3g} %)" for size, share in plan.demand.sizes[: charts.SIZES]]
    more = len(plan.demand.sizes) - len(sizes)
    shown = ", ".join(sizes) + (f", and {more} more" if more else "")
    simulations = f"{plan.points:,} simulations" + (f" in {plan.seconds:.3g} s" if plan.seconds else "")
    return [
        PageSection("The demand", paragraphs=[f"Replications: {plan.demand.how}", f"Sizes: {shown}."]),
        labels_of_trust(),
        again(plan.command, plan.scenario, f"{simulations}." if plan.points else ""),
    ]


def labels_of_trust() -> PageSection:
    """What each label means."""
    return PageSection(
        "Labels of trust",
        "A figure is extrapolated where a batch lies outside the measured range. A figure that rests on several "
        "clusters carries the weakest of their labels.",
        terms=list(TRUST.items()),
    )


def again(command: str, scenario: str, caption: str = "") -> PageSection:
    """How to make a plan again."""
    folds = [Fold("The scenario", text=scenario)] if scenario else []
    return PageSection("To run it again", caption, code=command, folds=folds)


def _extrapolated(rests_on: Sequence[Evaluation]) -> str:
    """The largest share outside the measured range, spelled; empty: none."""
    share = max((evaluation.extrapolated for evaluation in rests_on), default=0.0)
    return about(share) if share > 0 else ""
