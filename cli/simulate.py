"""``tilecast simulate``: a scenario in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reports.console import say
from traces.limits import SEED

ScenarioFile = Annotated[Path, typer.Argument(help="Scenario (TOML).")]
TraceOption = Annotated[str | None, typer.Option("--trace", help="Trace file instead of the scenario's.")]
ProfileOption = Annotated[str | None, typer.Option("--profile", help="Profile instead of the scenario's.")]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="Scheduling policy: a name, or file.py:Class.")
]
SeedOption = Annotated[int | None, SEED, typer.Option("--seed", help="Seed instead of the scenario's.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Any scenario key: key=value, repeatable.")]
OutputOption = Annotated[Path, typer.Option("-o", "--output", help="Run folder to write.")]


def overrides(
    trace: str | None, profile: str | None, scheduler: str | None, seed: int | None, settings: list[str] | None
) -> dict[str, Any]:
    """Scenario keys that the command line sets. Files named there are relative to the working folder."""
    from tilecast.scenario import parse_setting

    given: dict[str, Any] = {}
    if scheduler is not None:  # first, so that settings of its parameters are laid over it
        if ".py:" in scheduler:
            scheduler = str(Path(scheduler).absolute())
        given["policies.scheduling"] = {"name": scheduler}
    given |= dict(parse_setting(text) for text in settings or [])
    if trace is not None:
        given["trace.path"] = str(Path(trace).absolute())
    if profile is not None:
        given["predictor.profile"] = str(Path(profile).absolute()) if Path(profile).exists() else profile
    if seed is not None:
        given["seed"] = seed
    return given


def simulate(
    scenario: ScenarioFile,
    output: OutputOption,
    trace: TraceOption = None,
    profile: ProfileOption = None,
    scheduler: SchedulerOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    per_step: Annotated[
        bool, typer.Option("--per-step", help="One event a step: the slow oracle, for predictor.online=false.")
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
    show(result.comparison)
    count = len(result.requests)
    say(f"{count} requests in {result.wall_s:.2f} s ({count / result.wall_s:,.0f} requests/s) -> {output}")
    if nothing_finished(result.log):
        raise typer.Exit(NEGATIVE)
