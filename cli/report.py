"""``tilecast report``: run logs as tables, a page and timelines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.console import say


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders written by simulate or replay.", metavar="RUN...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML page to write.")] = Path("report.html"),
) -> None:
    """Show one run, or compare several: a table here, an HTML page, a Markdown table and Perfetto timelines.

    Beside REPORT.html stand REPORT.md and REPORT.<run>.perfetto.json, which https://ui.perfetto.dev opens.
    """
    from policies.runlog import read_run
    from reports.comparison import Comparison
    from reports.markdown import write_markdown
    from reports.page import write_page
    from reports.perfetto import write_perfetto
    from reports.terminal import show
    from traces.errors import BadInput

    if output.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--output {output}: expected a name that ends in .html")
    comparison = Comparison.of([read_run(path.resolve()) for path in runs])
    show(comparison)
    write_page(comparison, output)
    written = [output, output.with_suffix(".md")]
    write_markdown(comparison, written[-1])
    for name, run in zip(comparison.names, comparison.runs, strict=True):
        written.append(output.with_name(f"{output.stem}.{name.replace('/', '-')}.perfetto.json"))
        write_perfetto(run, written[-1])
    for path in written:
        say(f"wrote {path}")
