"""``tilecast sweep``: what if, over any keys of a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import ProfileOption, ScenarioFile, SchedulerOption, SeedOption, SetOption, TraceOption, overrides
from reports.console import new_console, say
from traces.limits import WORKERS, Range


def sweep(
    scenario: ScenarioFile,
    grid: Annotated[
        Path,
        typer.Option("--grid", help="Take the keys and their values from this grid, a TOML file as described above."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Keep the sweep in this folder, new or to be gone on with.")
    ],
    workers: Annotated[
        int | None, WORKERS, typer.Option(help="Run this many simulations at a time; by default one a core.")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Run on processes of this machine (joblib) or on a Ray cluster (ray).")
    ] = "joblib",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Use the Ray cluster at this address instead of RAY_ADDRESS; without either, one on this machine."
        ),
    ] = None,
    trace: TraceOption = None,
    profile: ProfileOption = None,
    scheduler: SchedulerOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    keep_logs: Annotated[
        bool,
        typer.Option(
            "--keep-logs", help="Write every run log to FOLDER/runs; points that were kept without one run again."
        ),
    ] = False,
    by: Annotated[str, typer.Option(help="Rank the points by this figure, like goodput_rps.")] = "slo_attainment",
    top: Annotated[int, Range(1, 100_000, whole=True), typer.Option(help="Show this many points.")] = 10,
) -> None:
    """Simulate every combination of a grid of scenario keys.

    GRID.toml names keys as --set does. Its section `grid` gives each a list of values, its `cases` are named
    combinations to go with each of them, `seeds = 3` repeats all with other noise (the trace stays the same),
    `samples = 100` draws some of them.

    Every finished point is kept in FOLDER/points.sqlite: after Ctrl-C, a kill or a changed grid the same command runs
    what is missing. FOLDER/sweep.parquet and sweep.csv have a row a point,
    FOLDER/sweep.html shows them. On a Ray cluster Tilecast is installed on
    every node, and files have the same paths there.

    Policies, keys and values that are wrong in themselves are said before anything runs. Exit code 3: the table is
    written, but points of it failed when they were simulated.
    """
    from cli.failures import NEGATIVE
    from reports.progress import shown
    from reports.sweep import best_points, check_figure
    from tilecast.scenario import load_scenario
    from tilecast.studies.run import sweep

    check_figure(by)
    given = overrides(trace, profile, scheduler, seed, settings)
    loaded = load_scenario(scenario, given)
    with shown() as progress:
        made = sweep(
            loaded,
            grid,
            output,
            workers=workers,
            executor=executor,
            ray_address=ray_address,
            keep_logs=keep_logs,
            given=given,
            progress=progress,
        )
    new_console().print(best_points(made.frame, made.keys, by, top))
    page = made.report(output / "sweep.html", by)
    say(f"{len(made.frame)} points, {made.before} of them kept from before -> {page}")
    if made.lost:
        missing = f"! {made.lost} of {len(made.frame)} points failed and are missing"
        say(f"{missing}; the same command tries them again", err=True)
        raise typer.Exit(NEGATIVE)
