"""``tilecast scenario``: what a scenario file may say."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.verbs import Verbs
from reports.console import new_console, say

app = Verbs(help="What a scenario file may say.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep ``scenario`` a group while it has a single command."""


@app.command()
def keys(
    section: Annotated[
        str | None, typer.Argument(help="Show only this section or key, like faults or plan.attainment.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list of keys.")] = False,
) -> None:
    """Every key of a scenario: what it takes, its default, its limits and what it means."""
    import json
    from dataclasses import asdict

    from tilecast.keys import scenario_keys
    from traces.errors import BadInput

    asked = "" if section is None else f"{section}.".replace("[]", "")
    found = [key for key in scenario_keys() if f"{key.name}.".replace("[]", "").startswith(asked)]
    if not found:
        raise BadInput(f"no scenario key begins with {section!r}; 'tilecast scenario keys' lists all")
    if as_json:
        say(json.dumps([asdict(key) for key in found], indent=2, ensure_ascii=False))
        return
    heads = ("key", "takes", "default", "limits", "meaning")
    rows = [(key.name, key.takes, key.default, key.limits, key.meaning) for key in found]
    if markdown:
        for row in (heads, ["---"] * len(heads), *rows):
            say("| " + " | ".join([cell.replace("|", "\\|") for cell in row]) + " |")
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold", no_wrap=head == "key")
    for row in rows:
        table.add_row(*row)
    new_console().print(table)
    say(f"{len(found)} keys; in a file [faults] mtbf_s = 3600, on the command line --set faults.mtbf_s=3600")
