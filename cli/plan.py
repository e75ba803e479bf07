"""``tilecast plan``: the least hardware that keeps a promise."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cli.simulate import ProfileOption, ScenarioFile, SchedulerOption, SeedOption, SetOption, TraceOption, overrides
from reports.console import new_console, say
from traces.limits import DEVICES, REPLICAS, WORKERS, Range

_NOT_REPEATED = ("output", "workers")


def plan(
    context: typer.Context,
    scenario: ScenarioFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the plan; the same one goes on.")],
    attainment: Annotated[
        float | None,
        Range(1e-6, 1 - 1e-6),
        typer.Option("--attainment", help="Share of the requests that must finish in time."),
    ] = None,
    replicas: Annotated[
        int | None, REPLICAS, typer.Option("--replicas", help="Say what so many replicas carry; do not search.")
    ] = None,
    hardware: Annotated[
        str | None, typer.Option("--hardware", help="The only kind of plan.hardware to consider.")
    ] = None,
    devices: Annotated[int | None, DEVICES, typer.Option("--devices", help="Of a replica, with --replicas.")] = None,
    schedulers: Annotated[
        str | None, typer.Option("--schedulers", help="That the answer may use, like lookahead,fcfs.")
    ] = None,
    policies: Annotated[
        str | None, typer.Option("--policies", help="Schedulers of which the least cluster each is wanted, too.")
    ] = None,
    growth: Annotated[
        float | None, Range(-0.99, 10), typer.Option("--growth", help="Of the demand a month: 0.1 for 10 %.")
    ] = None,
    months: Annotated[
        int | None,
        Range(1, 120, "months", whole=True),
        typer.Option("--months", help="To look ahead, with --growth; by default 12."),
    ] = None,
    workers: Annotated[int | None, WORKERS, typer.Option("--workers", help="Processes; by default one a core.")] = None,
    trace: TraceOption = None,
    profile: ProfileOption = None,
    scheduler: SchedulerOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
) -> None:
    """Find the least hardware that keeps a promise, of what the scenario's plan section names, and what it would carry.

    Every simulation is kept in the output folder: a plan that was interrupted, or is asked for again with another
    --attainment, runs only what is new. Exit code 3: no cluster that was considered keeps the promise.
    """
    import os
    from dataclasses import replace
    from importlib.metadata import version

    from cli.failures import NEGATIVE
    from reports.plan.page import PLAN
    from reports.plan.terminal import show_plan
    from reports.plan.write import write_plan
    from tilecast.scenario import load_scenario
    from tilecast.studies.assess import Assessor
    from tilecast.studies.case import Case
    from tilecast.studies.planner import Wanted, make_plan
    from tilecast.studies.result_store import KeptPoints
    from tilecast.studies.simulator import Simulator
    from traces.errors import BadInput
    from traces.text import read_text

    if months is not None and growth is None:
        raise BadInput("--months goes with --growth, the share by which the demand grows a month")
    if devices is not None and replicas is None:
        raise BadInput("--devices goes with --replicas; a search tries the devices of plan.hardware")
    given = overrides(trace, profile, scheduler, seed, settings)
    if attainment is not None:
        given["plan.attainment"] = attainment
    if schedulers is not None:
        given["plan.schedulers"] = _names(schedulers)
    case = Case(scenario, given, load_scenario(scenario, given), tuple(_names(policies or "")), hardware)
    faults = case.scenario.faults
    if replicas is None and faults is not None and (faults.outages or faults.slow):
        raise BadInput(
            "faults.outages and faults.slow name replicas, whose number is what a plan looks for; expected "
            "faults.mtbf_s and faults.straggler_every_s, or --replicas"
        )
    cluster = None if replicas is None else case.cluster(replicas, devices)
    wanted = Wanted(cluster, case.schedulers, case.policies, growth or 0.0, 0 if growth is None else months or 12)
    slo, demand, options = case.slo(), case.demand(), case.options
    with KeptPoints(output, PLAN) as kept:
        with _shown() as progress:
            simulator = Simulator(case, kept, workers or os.cpu_count() or 1, progress)
            assess = Assessor(simulator, options, case.promise(), case.effort())
            made = make_plan(assess, wanted, demand, slo)
        made = replace(
            made,
            notes=(*made.notes, *case.notes()),
            noted=case.noted(),
            scenario=read_text(scenario),
            command=_command(context),
            tilecast=version("tilecast"),
            points=simulator.asked,
        )
        written = write_plan(made, output)
    show_plan(made)
    say(f"{made.points} simulations -> {written[0]}")
    if made.answer is None:
        raise typer.Exit(NEGATIVE)


@contextmanager
def _shown() -> Iterator[Callable[[str, int, int], None]]:
    """Show what is simulated; yields what is to be told so, see `tilecast.studies.simulator.Simulator`."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TimeElapsedColumn())
    what = TextColumn("{task.description}", markup=False)
    with Progress(*columns, what, console=new_console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def tell(what: str, total: int, done: int) -> None:
            bar.update(task, description=what, total=total, completed=done)

        yield tell


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _command(context: typer.Context) -> str:
    """The command that makes this plan again, wherever it is put and however many processes make it."""
    words = ["tilecast", "plan", "-o", "PLAN"]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if parameter.name in _NOT_REPEATED or value in (None, parameter.default):
            continue
        for each in value if isinstance(value, (list, tuple)) else [value]:
            words += [str(each)] if parameter.param_type_name == "argument" else [parameter.opts[0], str(each)]
    return shlex.join(words)
