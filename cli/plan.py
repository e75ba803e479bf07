"""``tilecast plan``: the least hardware that keeps a promise."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import ProfileOption, ScenarioFile, SchedulerOption, SeedOption, SetOption, TraceOption, overrides
from reports.console import say
from traces.limits import DEVICES, REPLICAS, WORKERS, Range

_NOT_REPEATED = ("output", "workers")


def plan(
    context: typer.Context,
    scenario: ScenarioFile,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Write the plan into this folder; a plan that is there already is gone on with."
        ),
    ],
    attainment: Annotated[
        float | None,
        Range(1e-6, 1 - 1e-6),
        typer.Option("--attainment", help="Promise that this share of the requests finishes in time."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            help="Plan for this many requests, like 500/h, or by model, like flux=2000/h,wan-1.3b=500/h; "
            "by default for those of the trace.",
        ),
    ] = None,
    throughput: Annotated[
        str | None, typer.Option("--throughput", help="Promise that this many requests are completed, too, like 480/h.")
    ] = None,
    headroom: Annotated[
        str | None, typer.Option("--headroom", help="Keep the promise at this much more load, too, like 20%.")
    ] = None,
    replicas: Annotated[
        int | None,
        REPLICAS,
        typer.Option("--replicas", help="Say what this many replicas carry, instead of searching."),
    ] = None,
    hardware: Annotated[
        str | None, typer.Option("--hardware", help="Consider this kind of plan.hardware alone.")
    ] = None,
    devices: Annotated[
        int | None, DEVICES, typer.Option("--devices", help="Give each replica this many devices, with --replicas.")
    ] = None,
    policies: Annotated[
        str | None,
        typer.Option("--policies", help="Compare these schedulers and answer with the best, like lookahead,fcfs."),
    ] = None,
    growth: Annotated[
        float | None,
        Range(-0.99, 10),
        typer.Option("--growth", help="Let the demand grow by this share a month, 0.1 for 10 %."),
    ] = None,
    months: Annotated[
        int | None,
        Range(1, 120, "months", whole=True),
        typer.Option("--months", help="Look this many months ahead, with --growth; by default 12."),
    ] = None,
    workers: Annotated[
        int | None,
        WORKERS,
        typer.Option("--workers", help="Simulate in this many processes at a time; by default one a core."),
    ] = None,
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
    from dataclasses import replace

    from cli.failures import NEGATIVE
    from reports.plan.joint import JointPlan
    from reports.plan.terminal import show_joint_plan, show_plan
    from reports.plan.write import write_joint_plan, write_plan
    from reports.progress import shown
    from reports.terminal import show_scaling
    from tilecast.scenario import load_scenario
    from tilecast.studies.pools import plan_pool_scaling, plan_pools
    from tilecast.studies.run import plan
    from tilecast.studies.scaling import ScalingPlan, plan_scaling
    from traces.errors import BadInput
    from traces.rates import parse_percent, parse_rate
    from traces.text import read_text

    loaded = load_scenario(scenario, overrides(trace, profile, scheduler, seed, settings))
    if loaded.pool and replicas is not None:
        raise BadInput("--replicas is of one cluster; of pools: --set pool.NAME.replicas=N, and simulate")
    rates = _rates(rate, bool(loaded.pool))
    scaled: dict[str, ScalingPlan] = {}
    joint: dict[Path, JointPlan] = {}
    if loaded.plan.scaling:  # first, as it takes less
        with shown() as progress:
            alike: dict[str, Any] = {"rate_rps": rates, "workers": workers, "progress": progress}
            if loaded.pool:
                scaled = plan_pool_scaling(loaded, output, **alike)
            else:
                scaled = {"": plan_scaling(loaded, output, **alike)}
    with shown() as progress:
        asked: dict[str, Any] = {
            "attainment": attainment,
            "throughput_rps": None if throughput is None else parse_rate(throughput, "--throughput"),
            "headroom": None if headroom is None else parse_percent(headroom, "--headroom"),
            "replicas": replicas,
            "hardware": hardware,
            "devices": devices,
            "policies": _names(policies or ""),
            "growth": growth,
            "months": months,
            "workers": workers,
            "progress": progress,
        }
        if loaded.pool:
            pools = plan_pools(loaded, output, rate_rps=rates, **asked)
            plans = {output / name: made for name, made in pools.of.items()}
            joint = {output / name: each for name, each in pools.joint.items()}
        else:
            plans = {output: plan(loaded, output, rate_rps=rates, **asked)}
    text, command = read_text(scenario), _command(context)
    for folder, made in plans.items():
        made = replace(made, scenario=text, command=command)
        written = write_plan(made, folder)
        if loaded.pool:
            say(f"pool {folder.name}:")
        show_plan(made)
        say(f"{made.points} simulations -> {written[0]}")
    for folder, together in joint.items():
        together = replace(together, scenario=text, command=command)
        written = write_joint_plan(together, folder)
        say(f"pools {folder.name}:")
        show_joint_plan(together)
        say(f"{together.points} simulations -> {written[0]}")
    for name, found in scaled.items():
        if name:
            say(f"pool {name}:")
        show_scaling(found.rows(), found.how)
    if loaded.pool and pools.keeps:
        price = "" if math.isnan(pools.price_per_hour) else f", for {pools.price_per_hour:.2f} an hour"
        say(f"All pools: {', '.join([f'{count} of {name}' for name, count in pools.replicas.items()])}{price}.")
    unkept = [*[made.answer is None for made in plans.values()], *[made.answer is None for made in joint.values()]]
    if any(unkept):
        raise typer.Exit(NEGATIVE)


def _rates(text: str | None, by_model: bool) -> Any:
    """Requests a second, or of pools also by model, like ``flux=2000/h,wan-1.3b=500/h``."""
    from traces.errors import BadInput
    from traces.rates import parse_rate

    if text is None or "=" not in text:
        return None if text is None else parse_rate(text, "--rate")
    if not by_model:
        raise BadInput(f"--rate {text!r}: rates by model are of a scenario with pools; expected one like 500/h")
    items = [item.partition("=") for item in text.split(",")]
    return {model.strip(): parse_rate(rate, f"--rate {model.strip()}") for model, _, rate in items}


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
