"""``tilecast why``: why the requests of a run waited."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.console import new_console


def why(
    run: Annotated[Path, typer.Argument(help="The folder that simulate or replay wrote.")],
    what_if: Annotated[
        Path | None,
        typer.Option(
            "--what-if",
            help="Simulate this scenario, of which the run is, with one more replica and with half of the load, too.",
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Print the share of every cause, and who waited most, as tables, too.")
    ] = False,
) -> None:
    """Say in five sentences why requests waited: load, policy, weights, scaling or failures.

    Every second in which a request was there and did not run is held against what the replicas did in it: all devices
    busy, with batches as large as any; a device idle that the request was not given; weights coming; a replica down, or
    starting. The sentences are of the run log alone; only --what-if simulates.
    """
    from rich.text import Text

    from reports.brief import WIDEST
    from reports.progress import shown
    from reports.terminal import show_waiting
    from tilecast.otherwise import otherwise
    from tilecast.results import read

    result = read(run)
    console = new_console()
    width = min(console.width, WIDEST)
    for sentence in result.waiting.sentences():
        console.print(Text(sentence), width=width)
    if every:
        show_waiting(result.waiting, console)
    if what_if is not None:
        with shown() as progress:
            found = otherwise(result, what_if.parent, progress)
        told = ", ".join(map(str, found))
        console.print(Text(f"Simulated anew, requests wait in the mean {told}."), width=width)
