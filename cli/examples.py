"""``tilecast examples``: the scenarios of the README, into a folder of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.console import say


def examples(
    output: Annotated[Path, typer.Option("--output", "-o", help="Write them into this folder, new or empty.")] = Path(
        "examples"
    ),
) -> None:
    """Write the example scenarios, traces and policy here, so that the commands of the README run as they stand."""
    from tilecast.examples import write_examples

    written = write_examples(output)
    for path in written:
        say(f"wrote {path}")
    if not written:
        say(f"the examples are in {output} already")
    say(f"try: tilecast simulate {output / 'tiny_image.toml'} -o run")
