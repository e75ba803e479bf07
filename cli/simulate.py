"""``tilecast simulate``: a scenario in virtual time."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from cli.options import (
    EveryOption,
    OutputOption,
    ProfileOption,
    ScenarioFile,
    SchedulerOption,
    SeedOption,
    SetOption,
    TraceOption,
    overrides,
)


def simulate(
    scenario: ScenarioFile,
    output: OutputOption,
    trace: TraceOption = None,
    profile: ProfileOption = None,
    scheduler: SchedulerOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    every: EveryOption = False,
    per_step: Annotated[
        bool,
        typer.Option(
            "--per-step", help="Simulate one event a step, the slow oracle, which turns predictor.online off."
        ),
    ] = False,
) -> None:
    """Run a scenario in virtual time and write its run log.

    Step by step gives the same completions as by quanta only when the policy's predictor does not learn meanwhile, so
    --per-step turns predictor.online off and says so. Exit code 3: the log is written, but no request finished.
    """
    from cli.failures import NEGATIVE
    from reports.notes import nothing_finished
    from reports.progress import shown
    from reports.terminal import show
    from tilecast.running import simulate
    from tilecast.scenario import load_scenario

    loaded = load_scenario(scenario, overrides(trace, profile, scheduler, seed, settings))
    with shown() as progress:
        result = simulate(loaded, output, per_step=per_step, progress=progress)
    count = len(result.requests)
    took = f"{count:,} requests in {result.wall_s:.2f} s"
    folder = shlex.quote(str(output))
    more = f"More: tilecast report {folder} --all; tilecast why {folder} ({took})"
    show(result.comparison, every=every, ending=[more])
    if nothing_finished(result.log):
        raise typer.Exit(NEGATIVE)
