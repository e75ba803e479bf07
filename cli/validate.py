"""``tilecast validate``: a simulation held against a real run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reports.console import new_console, say


def validate(
    runs: Annotated[
        list[Path],
        typer.Argument(help="The run logs to compare: of the simulation, then of the real run; or more, in any order."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the figures to this file, as JSON, and a page beside it, FILE.html."
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Print every figure, instead of what is judged and most ask for.")
    ] = False,
) -> None:
    """Show how far a simulation is from a real run of the same trace, by figure and by request.

    Given more than two runs, in any order, it compares the mean of the simulated with the mean of the real ones, beside
    how far these lie apart. The recorded events of a real run are also fed to the same policy again: every decision
    must be reproduced.

    The first line is the verdict. Two runs differ by noise alone, the more the fewer requests they served; so beside
    the error of each figure stands where it lies, noise considered (95 % confidence). FAITHFUL: all of them lie within
    their limits. NOT FAITHFUL: one lies outside, or a decision came out otherwise. TOO SHORT TO TELL: neither is sure,
    and the line says about how many requests would tell.

    Exit code 0: FAITHFUL. 3: NOT FAITHFUL or TOO SHORT TO TELL; which of them stands in the JSON file as the answer.
    """

    from rich.text import Text

    from cli.failures import NEGATIVE
    from policies.runlog import read_run
    from reports.repeats import Repeats
    from reports.terminal import sim_against_real, sims_against_reals
    from reports.validate import VALIDATION, Validation
    from reports.validation_page import write_validation_page
    from traces.errors import BadInput
    from traces.output import check_file

    if len(runs) < 2:
        raise BadInput("validate takes the run log of a simulation and that of a real run; one is missing")
    written = [] if output is None else [output.with_suffix(".json") if _is_page(output) else output]
    written += [path.with_suffix(".html") for path in written]
    for path in written:
        check_file(path, VALIDATION)
    parity = _parity(runs)
    logs = [read_run(run.resolve()) for run in runs]
    console = new_console()
    compared: Validation | Repeats
    if len(logs) == 2:
        compared = Validation.of(logs[0], logs[1], parity)
        console.print(sim_against_real(compared, every))
    else:
        compared = Repeats.of(logs, parity)
        console.print(sims_against_reals(compared, every))
    if written:
        compared.write(written[0])
        write_validation_page(compared, written[1])
    if not every:
        console.print(Text("--all shows every figure."), style="dim")
    for path in written:
        say(f"wrote {path}")
    if not compared.fidelity.faithful:
        raise typer.Exit(NEGATIVE)


def _is_page(path: Path) -> bool:
    return path.suffix.lower() in (".html", ".htm")


def _parity(runs: list[Path]) -> dict[str, Any] | None:
    """The decisions of all real runs together; None where no events were recorded."""
    from reports.fidelity import REPRODUCED
    from tilecast.recorded import parity_of

    found = [parity for run in runs if (parity := parity_of(run)) is not None]
    if not found:
        return None
    different = [str(parity.difference) for parity in found if not parity.same]
    return {
        "decisions": sum(parity.decisions for parity in found),
        "reproduced": "; ".join(different) if different else REPRODUCED,
    }
