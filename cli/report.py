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
    from reports.markdown import REPORT, write_markdown
    from reports.page import write_page
    from reports.perfetto import write_perfetto
    from reports.terminal import show
    from traces.errors import BadInput
    from traces.output import check_file

    if output.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--output {output}: expected a name that ends in .html")
    comparison = Comparison.of([read_run(path.resolve()) for path in runs])
    table = output.with_suffix(".md")
    timelines = [output.with_name(f"{output.stem}.{name.replace('/', '-')}.perfetto.json") for name in comparison.names]
    written = [output, table, *timelines]
    for path in written:
        check_file(path, REPORT)
    show(comparison)
    write_page(comparison, output)
    write_markdown(comparison, table)
    for path, run in zip(timelines, comparison.runs, strict=True):
        write_perfetto(run, path)
    for path in written:
        say(f"wrote {path}")
