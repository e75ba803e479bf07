"""What all pages have in common: one HTML file, whole without a network.

The plotting library, styles and data are in the page. A content security policy forbids it to load anything else, so
that it shows the same on a train, in an archive and in five years. Charts are drawn by the page itself; every text
that goes into one is escaped by whoever draws it, because plotly reads labels as HTML.

The library is plotly's own basic bundle, a quarter of the whole one that the Python package carries: it draws bars,
lines and points, which is what charts of pages are made of. It stands in ``reports/plotly_js`` as npm ships it
(``npm pack plotly.js-basic-dist-min@4.1.1``, MIT licence), of the version that ``constraints.txt``'s plotly draws with.

A page opens with its answer in a sentence and a row of key figures; then come sections of charts and tables. What few
will ask for is folded, and charts there are drawn when they are opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.palette import DARK, LIGHT
from reports.table import Table
from traces.marks import OutputKind
from traces.notes import Note

_FOLDER = Path(__file__).parent
_PLOTLY = _FOLDER / "plotly_js" / "plotly-basic.min.js"

TRACES = frozenset({"scatter", "bar"})
"""Types of traces that a page may draw."""

LONG = 40
"""Rows or lines from which on what is folded stays folded on paper."""


class KeyFigure(NamedTuple):
    """A figure at the head of a page, and in small letters what it is of."""

    label: str
    value: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its title, and how to read it."""

    title: str
    caption: str
    figure: go.Figure


@dataclass(frozen=True, slots=True)
class Fold:
    """What a reader opens: charts, tables and plain text under a line that says what they are."""

    title: str
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    text: str = ""

    @classmethod
    def of(cls, table: Table) -> Fold:
        """A table alone, with the number of its rows."""
        return cls(f"{table.title} ({len(table.rows):,} {'row' if len(table.rows) == 1 else 'rows'})", (), (table,))

    @property
    def long(self) -> bool:
        """Whether it stays folded on paper."""
        return any(len(table.rows) > LONG for table in self.tables) or self.text.count("\n") > LONG


@dataclass(frozen=True, slots=True)
class PageSection:
    """A part of a page.

    Attributes:
        title: title of it.
        caption: how to read it, in small letters.
        charts: its charts, side by side where there is room.
        tables: its tables, below the charts.
        beside: whether chart and table stand side by side where there is room.
        folds: what a reader opens.
        paragraphs: sentences before the charts.
        terms: words, and what each means.
        code: commands.
        trust: label of how far to trust its figures; empty: none.
        extrapolated: share outside the measured range, spelled; empty: none.
    """

    title: str
    caption: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    beside: bool = False
    folds: Sequence[Fold] = ()
    paragraphs: Sequence[str] = ()
    terms: Sequence[tuple[str, str]] = ()
    code: str = ""
    trust: str = ""
    extrapolated: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A page.

    Attributes:
        what: kind of it, like ``report``.
        version: version of Tilecast; empty: unknown.
        answer: answer in a sentence, its title.
        context: what it is an answer to, in small letters.
        key: its key figures, of a page about one thing.
        lead: the same of a page that compares, a row for each.
        notes: what a reader must know.
        sections: what follows; those without anything in them are left out by whoever makes them.
        trust, extrapolated: as in `PageSection`, of the answer.
    """

    what: str
    version: str
    answer: str
    context: str
    sections: Sequence[PageSection]
    key: Sequence[KeyFigure] = ()
    lead: Table | None = None
    notes: Sequence[Note] = ()
    trust: str = ""
    extrapolated: str = ""

    def charts(self) -> Iterator[Chart]:
        """All charts, in their order on the page."""
        for section in self.sections:
            yield from section.charts
            for fold in section.folds:
                yield from fold.charts


def render(document: Document, kind: OutputKind) -> str:
    """A page as text; every value in it is escaped.

    Raises:
        ValueError: a chart has a trace of a type that pages do not draw.
    """
    for chart in document.charts():
        if unknown := {trace.type for trace in chart.figure.data} - TRACES:
            raise ValueError(
                f"chart {chart.title} has {', '.join(sorted(unknown))}; a page draws {', '.join(sorted(TRACES))}"
            )
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    drawn = [json.loads(chart.figure.to_json()) for chart in document.charts()]
    numbers = count()
    return environment.get_template("page.html").render(
        document=document,
        number=lambda: next(numbers),
        generator=kind.generator,
        light=LIGHT,
        dark=DARK,
        css=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        js=(_FOLDER / "page.js").read_text(encoding="utf-8"),
        plotly_js=_PLOTLY.read_text(encoding="utf-8"),
        plot_data=json.dumps(drawn, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c"),
    )


def sentence(parts: Iterable[str]) -> str:
    """Facts in a line of small letters; empty ones are left out."""
    return " · ".join([part for part in parts if part])
