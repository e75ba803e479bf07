"""``tilecast report`` and ``tilecast compare``: run logs as tables, a page and timelines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import EveryOption

Runs = Annotated[list[Path], typer.Argument(help="The folders that simulate or replay wrote.", metavar="RUN...")]
Page = Annotated[
    Path, typer.Option("--output", "-o", help="Write the HTML page here, and the table beside it as Markdown.")
]
Timelines = Annotated[
    bool,
    typer.Option("--timelines", help="Write REPORT.RUN.perfetto.json for ui.perfetto.dev, too, some 2 kB a request."),
]


def report(
    runs: Runs, output: Page = Path("report.html"), timelines: Timelines = False, every: EveryOption = False
) -> None:
    """Show one run, or compare several: a table here, an HTML page, and REPORT.md beside it, the table as Markdown."""
    from policies.runlog import read_run
    from reports.comparison import Comparison
    from reports.formatting import file_size
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
    runs_drawn = zip(comparison.names, comparison.runs, strict=True) if timelines else ()
    drawn = {output.with_name(f"{output.stem}.{name.replace('/', '-')}.perfetto.json"): run for name, run in runs_drawn}
    written = [output, table, *drawn]
    for path in written:
        check_file(path, REPORT)
    write_page(comparison, output)
    write_markdown(comparison, table)
    for path, run in drawn.items():
        write_perfetto(run, path)
    sizes = [f"{path} ({file_size(path.stat().st_size)})" for path in written]
    show(comparison, every=every, ending=[f"wrote {', '.join(sizes)}"])


def compare(
    runs: Runs, output: Page = Path("comparison.html"), timelines: Timelines = False, every: EveryOption = False
) -> None:
    """Show two or more runs side by side: what 'report' shows of several."""
    from traces.errors import BadInput

    if len(runs) < 2:
        raise BadInput(f"{runs[0]} is one run, expected two or more to compare; 'tilecast report' shows one")
    report(runs, output, timelines, every)
