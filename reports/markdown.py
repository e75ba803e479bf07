"""The table of runs as Markdown, for a pull request or a lab book."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from reports.comparison import Comparison, Row
from traces.files import write_document
from traces.marks import OutputKind
from traces.notes import Note, Severity, ordered

REPORT = OutputKind("report")


def markdown(comparison: Comparison) -> str:
    """What must be known first, the answer, the few figures that most ask for with a column a run, remarks, tables by
    model, pool and tenant, and every other figure folded by topic."""
    first, last = told(comparison.notes())
    names = list(comparison.names)
    lines = [*first, text(comparison.answer()), "", text(comparison.alike()), "", *_table(names, comparison.leading())]
    lines += last
    for table in comparison.breakdowns():
        ruler = "|" + "".join("--:|" if kind == "number" else ":--|" for kind in table.kinds)
        lines += ["", text(table.title), "", line(list(table.heads)), ruler, *map(line, table.rows)]
    for topic, rows in [*comparison.topics(), ("What was run", comparison.setup())]:
        lines += ["", f"<details><summary>{topic}</summary>", "", *_table(names, rows), "", "</details>"]
    return "\n".join(lines) + "\n"


def _table(names: list[str], rows: Iterable[Row]) -> list[str]:
    lines = [line(["", *names]), "|:--|" + "--:|" * len(names)]
    for row in rows:
        cells = [f"**{cell}**" if at in row.best else cell for at, cell in enumerate(map(text, row.cells))]
        lines.append("| " + " | ".join([text(row.label), *cells]) + " |")
    return lines


def told(notes: Iterable[Note | str]) -> tuple[list[str], list[str]]:
    """Notes as blocks of lines: a list of those to be told before the figures, the gravest first and in bold, and one
    of remarks to be told after them."""
    before: list[str] = []
    after: list[str] = []
    for note in ordered(notes):
        said = f"**{text(note.text)}**" if note.severity is Severity.GRAVE else text(note.text)
        (after if note.severity is Severity.REMARK else before).append(f"- {said}")
    return [*before, ""] if before else [], ["", *after] if after else []


def write_markdown(comparison: Comparison, path: Path) -> None:
    """Write the table, whole or not at all.

    Raises:
        BadInput: ``path`` cannot be written.
    """
    write_document(REPORT.comment(markdown(comparison), ".md"), path, REPORT)


def line(cells: Iterable[str]) -> str:
    """A row of a table."""
    return "| " + " | ".join(map(text, cells)) + " |"


def text(words: str) -> str:
    """Text that Markdown shows as it is: nothing in it is markup, and it stays on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(words.split()))
