"""One run, or several side by side, as one HTML page; see `reports.document`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import plotly.graph_objects as go

from policies.runlog import Run
from reports import plots
from reports.breakdown import batch_table, replica_table, size_table
from reports.comparison import Comparison, Row
from reports.document import Chart, Document, Fold, KeyFigure, PageSection, render
from reports.figures import GROUPS, KEY, READING, figure
from reports.formatting import NONE, about, format_value
from reports.markdown import REPORT
from reports.reasons import reasons
from reports.table import Kind, Table
from reports.waiting import why
from traces.files import write_document

REASONS = 8
"""Reasons for lost requests that a run may list."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart of the page: what draws it, how to read it, and whether it is wanted of some runs."""

    title: str
    caption: str
    draw: Callable[[Comparison], go.Figure]
    wanted: Callable[[Comparison], bool] = lambda comparison: True

    def of(self, comparison: Comparison) -> Chart:
        """Drawn."""
        return Chart(self.title, self.caption, self.draw(comparison))


def _several_sizes(comparison: Comparison) -> bool:
    return any(len(run.requests.sizes) > 1 for run in comparison.arrays)


PICTURES = (
    Plot(
        "Deadlines kept by run",
        "Share of the requests that finished in time.",
        plots.attainment,
        lambda comparison: len(comparison.runs) > 1 and not plots.loads_differ(comparison),
    ),
    Plot(
        "Deadlines kept by load",
        "Share of the requests that finished in time; a line for each scheduler.",
        plots.attainment,
        plots.loads_differ,
    ),
    Plot(
        "Latency",
        "Share of all requests that finished within a latency, marked at P50, P95 and P99. A curve that ends below "
        "100 % lost the rest.",
        plots.latency_cdf,
    ),
    Plot(
        "Deadlines kept by size",
        "Share of each size's requests that finished in time.",
        plots.attainment_by_size,
        _several_sizes,
    ),
    Plot(
        "Latency by size",
        "Finished requests. Mark: median; thick line: the middle half; thin line: from P5 to P95.",
        plots.latency_by_size,
        _several_sizes,
    ),
    Plot(
        "Queue and utilisation",
        "Requests that waited, requests under way, and the busy share of the devices, each in the mean.",
        plots.over_time,
    ),
    Plot(
        "Replicas",
        "Above: paid for, and dotted those of them that take requests. Below: what they have cost so far, and dotted "
        "what the most that there may be would have cost.",
        plots.replicas_over_time,
        lambda comparison: any(run.lifetimes is not None for run in comparison.arrays),
    ),
)
BATCHES = (
    Plot("Batch sizes", "Share of the denoising launches with so many requests in them.", plots.batch_sizes),
    Plot(
        "Predicted against actual launch times",
        "On the line a prediction is exact; open marks lie outside the measured range.",
        plots.predicted_against_actual,
    ),
)
PLOTS = (*PICTURES, *BATCHES)


def plots_of(comparison: Comparison) -> list[Plot]:
    """The charts that say something of these runs."""
    return [plot for plot in PLOTS if plot.wanted(comparison)]


def page(comparison: Comparison) -> str:
    """The page as text. Every text that comes from a run log is escaped."""
    return render(document(comparison), REPORT)


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        BadInput: ``path`` cannot be written.
    """
    write_document(page(comparison), path, REPORT)


def document(comparison: Comparison) -> Document:
    """The page of one run, or of several side by side."""
    single = len(comparison.runs) == 1
    return Document(
        what="report" if single else "comparison",
        version=str(comparison.runs[0].info.get("tilecast", "")),
        answer=comparison.answer(),
        context=comparison.alike(),
        key=_key(comparison) if single else (),
        lead=None if single else _lead(comparison),
        notes=comparison.notes(),
        sections=list(_sections(comparison)),
    )


def _sections(comparison: Comparison) -> Iterator[PageSection]:
    parts = (comparison.arrays, comparison.names)
    sizes, batches = size_table(*parts), batch_table(*parts)
    if sizes.rows:
        folds = [Fold.of(sizes), Fold.of(replica_table(*parts))]
        if batches.rows:
            title = "Denoising by batch, and how well it was predicted"
            folds.append(Fold(title, _drawn(BATCHES, comparison), [batches]))
        yield PageSection("Pictures", charts=_drawn(PICTURES, comparison), folds=folds)
    if sizes.rows:
        yield _waited(comparison)
    lost = _lost(comparison)
    if lost.rows:
        yield PageSection("Requests that did not finish", tables=[lost])
    setup = replace(_figures(comparison, comparison.setup()), kinds=_texts(1 + len(comparison.names)))
    yield PageSection(
        "Figures",
        READING,
        tables=[_grouped(comparison, _asked(comparison)), *comparison.breakdowns()],
        folds=[
            Fold("Every figure", tables=[_grouped(comparison, comparison.topics())]),
            Fold("What was run", tables=[setup]),
        ],
    )
    yield PageSection(
        "To run it again",
        folds=[
            Fold(f"Scenario of {name}", text=_scenario(run))
            for name, run in zip(comparison.names, comparison.runs, strict=True)
        ],
    )


def _waited(comparison: Comparison) -> PageSection:
    """Why requests waited: of one run its sentences, of several those of each folded."""
    said = [" ".join(why(run)) for run in comparison.runs]
    if len(said) == 1:
        return PageSection("Why requests waited", paragraphs=said)
    kinds: tuple[Kind, ...] = ("text", "sentence")
    table = Table("Why requests waited", ("run", "why"), kinds, tuple(zip(comparison.names, said, strict=True)))
    return PageSection("Why requests waited", folds=[Fold("Run by run", tables=[table])])


def _asked(comparison: Comparison) -> Iterator[tuple[str, list[Row]]]:
    """The figures of `GROUPS`, without counts of what never happened."""
    for topic, rows in comparison.topics(GROUPS):
        yield topic, [row for row in rows if set(row.cells) != {"0"}]


def _drawn(asked: tuple[Plot, ...], comparison: Comparison) -> list[Chart]:
    return [plot.of(comparison) for plot in asked if plot.wanted(comparison)]


def _key(comparison: Comparison) -> list[KeyFigure]:
    """The six figures of a run that most ask for, each with what it is of."""
    (values,), kept = comparison.summaries, comparison.kept(0)
    lost = values["dropped"] + values["failed"] + values["cancelled"]
    never = f"{about(lost / values['requests'])} never finished" if math.isinf(values["latency_p99_s"]) else ""
    of = f"promise of {kept}" if kept else _hint("of {} requests", "requests", values)
    luck = comparison.luck(0)
    asked = (
        ("slo_attainment", "In time", f"{of}; by chance {luck} %" if luck else of),
        ("latency_p50_s", "Latency, P50", _hint("{} times what it takes alone", "slowdown_p50", values)),
        ("latency_p95_s", "Latency, P95", ""),
        ("latency_p99_s", "Latency, P99", never),
        ("goodput_rps", "Goodput", _hint("of {} finished", "throughput_rps", values)),
        ("utilisation", "Utilisation", _hint("{} requests a launch", "batch_mean", values)),
    )
    known = [each for each in asked if not math.isnan(values[each[0]])]
    return [KeyFigure(label, format_value(values[name], figure(name).unit), hint) for name, label, hint in known]


def _hint(words: str, name: str, values: dict[str, float]) -> str:
    value = values[name]
    return words.format(format_value(value, figure(name).unit)) if math.isfinite(value) else ""


def _lead(comparison: Comparison) -> Table:
    """The same of several runs, a row for each, with how they differ in what was run."""
    shown = [*comparison.leading(KEY)]
    return Table(
        "Runs",
        ("", *[row.label for row in shown]),
        ("text", *[_kind(row) for row in shown]),
        tuple([(name, *[row.cells[at] for row in shown]) for at, name in enumerate(comparison.names)]),
        strong=frozenset([(at, column) for column, row in enumerate(shown, start=1) for at in row.best]),
    )


def _kind(row: Row) -> Kind:
    return "number" if all(cell[:1].isdigit() or cell in (NONE, "∞") for cell in row.cells) else "text"


def _texts(count: int) -> tuple[Kind, ...]:
    texts: list[Kind] = ["text"] * count
    return tuple(texts)


def _figures(comparison: Comparison, rows: Sequence[Row], parts: Mapping[int, str] | None = None) -> Table:
    """Figures with a column a run, and headings above some of them."""
    numbers: list[Kind] = ["number"] * len(comparison.names)
    return Table(
        "Figures",
        ("", *(comparison.names if len(comparison.names) > 1 else [""])),
        (*_texts(1), *numbers),
        tuple([(row.label, *row.cells) for row in rows]),
        strong=frozenset([(at, 1 + column) for at, row in enumerate(rows) for column in row.best]),
        parts=parts or {},
    )


def _grouped(comparison: Comparison, topics: Iterable[tuple[str, list[Row]]]) -> Table:
    """Figures by topic."""
    rows: list[Row] = []
    parts = {}
    for topic, own in topics:
        parts[len(rows)] = topic
        rows += own
    return _figures(comparison, rows, parts)


def _lost(comparison: Comparison) -> Table:
    single = len(comparison.runs) == 1
    rows = [
        (str(status), str(reason), *([] if single else [name]), f"{count:,}")
        for name, run in zip(comparison.names, comparison.runs, strict=True)
        for status, reason, count in reasons(run).head(REASONS).itertuples(index=False)
    ]
    heads = ("status", "reason", *([] if single else ["run"]), "requests")
    kinds: tuple[Kind, ...] = ("text", "sentence", *_texts(0 if single else 1), "number")
    return Table("Requests that did not finish", heads, kinds, tuple(rows))


def _scenario(run: Run) -> str:
    return json.dumps(run.info.get("scenario", {}), indent=2, sort_keys=True, ensure_ascii=False)
