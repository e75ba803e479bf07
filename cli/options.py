"""Options that several commands have, and the limits of all: ``Annotated[int, SEED, typer.Option(...)]`` says them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from traces.errors import BadInput
from traces.limits import SEED, STEPS, THREADS, Range, Text

ScenarioFile = Annotated[
    Path, typer.Argument(help="The scenario to run, a TOML file; 'tilecast scenario init' writes one.")
]
TraceOption = Annotated[
    str | None, typer.Option("--trace", help="Take the requests from this trace instead of the scenario's.")
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="Take the measurements from this profile, a file or one that ships, instead of the scenario's.",
    ),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", help="Schedule by this policy, a name or file.py:Class, instead of the scenario's."),
]
SeedOption = Annotated[
    int | None, SEED, typer.Option("--seed", help="Draw all random numbers from this seed instead of the scenario's.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set any scenario key, as key=value, or take it out, back to its default, as key=; may be given several "
        "times, and of two the last counts.",
    ),
]
OutputOption = Annotated[
    Path, typer.Option("-o", "--output", help="Write the run log into this folder, new or of an earlier run.")
]
EveryOption = Annotated[
    bool, typer.Option("--all", help="Print all figures and tables, grouped, instead of the dozen lines.")
]
Device = Annotated[str, typer.Option(help="Run on this device: cpu, cuda, cuda:1, xpu or mps.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Hold the weights in this number format: float32, bfloat16 or float16; by default bfloat16 on cuda and "
        "xpu, else float32."
    ),
]
Threads = Annotated[int | None, THREADS, typer.Option(help="Use this many CPU threads; by default torch's own choice.")]
Prompts = Annotated[
    Path | None, typer.Option(help="Draw prompts from this file, one a line; by default there is no prompt.")
]
RecordingOutput = Annotated[Path, typer.Option("--output", "-o", help="Write the recording to this file (Parquet).")]
MaxAge = Annotated[
    int,
    Range(2, STEPS.most, "steps", whole=True),
    typer.Option(help="Record reuse of results that are up to this many steps old."),
]
ProfileOutput = Annotated[Path, typer.Option("--output", "-o", help="Write the profile to this file (Parquet).")]

_WORDS = Text(100_000, controls=True)


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


def prompt_lines(path: Path | None) -> list[str]:
    """The prompts of a file; one that is empty where there is none."""
    from traces.prompts import load_prompts

    return [""] if path is None else load_prompts(path)


def limited(app: typer.Typer) -> typer.Typer:
    """``app``, whose commands check their options before they run."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _checked(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            limited(group.typer_instance)
    if app.registered_callback is not None and app.registered_callback.callback is not None:
        app.registered_callback.callback = _checked(app.registered_callback.callback)
    return app


def limits_of(command: Callable[..., Any]) -> dict[str, Range | Text]:
    """The limits of a command's parameters that have some."""
    found = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        for limit in getattr(hint, "__metadata__", ()):
            if isinstance(limit, Range | Text):
                found[name] = limit
    return found


def _checked(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(**given: Any) -> Any:
        limits = limits_of(command)
        for name, value in given.items():
            option = f"--{name.replace('_', '-')}"
            for each in value if isinstance(value, list) else [value]:
                limit = limits.get(name, _WORDS if isinstance(each, str) else None)
                if each is not None and limit is not None and not limit.holds(each):
                    raise BadInput(f"{option} is {each!r}, expected {limit}")
        return command(**given)

    return run


ServedOption = Annotated[str, typer.Option("--model", help="Serve this model, one of 'tilecast hardware models'.")]
EstimatedOption = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        help="Estimate times for this kind of 'tilecast hardware list'; by default h100-sxm, unless there is a "
        "profile.",
    ),
]
MeasuredOption = Annotated[
    str | None,
    typer.Option("--profile", help="Take times from this profile, a file or one that ships, like cpu-1core."),
]
