"""The table of runs as Markdown, for a pull request or a lab book."""

from __future__ import annotations

import re
from pathlib import Path

from reports.comparison import Comparison
from traces.files import write_document
from traces.marks import Kind

REPORT = Kind("report")


def markdown(comparison: Comparison) -> str:
    """The answer, the table with a column a run, and the cautions."""
    lines = [text(comparison.answer()), "", line(["", *comparison.names])]
    lines.append("|:--|" + "--:|" * len(comparison.names))
    lines += [line([row.label, *row.cells]) for row in comparison.setup()]
    for row in comparison.rows():
        cells = [f"**{cell}**" if at in row.best else cell for at, cell in enumerate(map(text, row.cells))]
        lines.append("| " + " | ".join([text(row.label), *cells]) + " |")
    cautions = comparison.cautions()
    if cautions:
        lines += ["", *(f"- {text(note)}" for note in cautions)]
    return "\n".join(lines) + "\n"


def write_markdown(comparison: Comparison, path: Path) -> None:
    """Write the table, whole or not at all.

    Raises:
        BadInput: ``path`` cannot be written.
    """
    write_document(REPORT.comment(markdown(comparison), ".md"), path, REPORT)


def line(cells: list[str]) -> str:
    """A row of a table."""
    return "| " + " | ".join(map(text, cells)) + " |"


def text(words: str) -> str:
    """Text that Markdown shows as it is: nothing in it is markup, and it stays on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(words.split()))
