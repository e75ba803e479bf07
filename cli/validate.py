"""``tilecast validate``: a simulation held against a real run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def validate(
    sim: Annotated[Path, typer.Argument(help="Run log of the simulation.", metavar="SIM_RUN")],
    real: Annotated[Path, typer.Argument(help="Run log of the real run.", metavar="REAL_RUN")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A JSON file to write.")] = None,
) -> None:
    """Show how far a simulation is from a real run of the same trace, by figure and by request.

    The recorded events of the real run are also fed to the same policy again: every decision must be reproduced.
    """
    from rich.console import Console

    from cli.runs import parity_of
    from policies.runlog import read_run
    from reports.terminal import sim_against_real
    from reports.validate import Validation

    replayed = parity_of(real)
    parity = None
    if replayed is not None:
        same = "all the same" if replayed.same else str(replayed.difference)
        parity = {"decisions": replayed.decisions, "reproduced": same}
    validation = Validation.of(read_run(sim.resolve()), read_run(real.resolve()), parity)
    Console().print(sim_against_real(validation))
    if output is not None:
        validation.write(output)
        typer.echo(f"wrote {output}")
