"""``tilecast scenario``: what a scenario file may say, a first one, and whether one is as it should be."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.options import (
    EstimatedOption,
    MeasuredOption,
    ProfileOption,
    ScenarioFile,
    SchedulerOption,
    SeedOption,
    ServedOption,
    SetOption,
    TraceOption,
    overrides,
)
from cli.verbs import Verbs
from reports.console import new_console, say
from traces.limits import REPLICAS, SEED

app = Verbs(help="Write a scenario, check one, list every key.", no_args_is_help=True)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Write the scenario to this file, which must not be there.")] = Path(
        "scenario.toml"
    ),
    model: ServedOption = "sdxl",
    hardware: EstimatedOption = None,
    profile: MeasuredOption = None,
    replicas: Annotated[int, REPLICAS, typer.Option(help="Serve with this many replicas.")] = 1,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Let this many requests arrive, like 500/h; by default as many as keep the replicas busy for 70 % of "
            "their time, one at a time."
        ),
    ] = None,
    seed: Annotated[int, SEED, typer.Option(help="Draw the requests from this seed.")] = 0,
) -> None:
    """Write a commented scenario that runs as it stands, and its trace beside it.

    Every key of its sections stands there with its meaning and its default.
    """
    from tilecast.starting import write_scenario
    from traces.rates import parse_rate

    beside = str(Path(profile).absolute()) if profile is not None and Path(profile).exists() else profile
    rate_rps = None if rate is None else parse_rate(rate, "--rate")
    for path in write_scenario(
        file, model, profile=beside, hardware=hardware, replicas=replicas, rate_rps=rate_rps, seed=seed
    ):
        say(f"wrote {path}")
    say(f"try: tilecast simulate {shlex.quote(str(file))} -o run")


@app.command()
def check(
    scenario: ScenarioFile,
    trace: TraceOption = None,
    profile: ProfileOption = None,
    scheduler: SchedulerOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
) -> None:
    """Check a scenario and everything that it names, without running it.

    Its keys, its trace, its profile or hardware, its policies and their parameters are loaded, checked and fitted as
    simulate does it. Exit code 0: it will run; 2: it will not, and the line says why.
    """
    from rich.text import Text

    from reports.terminal import told
    from tilecast.checking import check_scenario
    from tilecast.scenario import load_scenario

    checked = check_scenario(load_scenario(scenario, overrides(trace, profile, scheduler, seed, settings)))
    first, last = told(checked.notes)
    console = new_console()
    console.print(Text(f"{scenario}: as it should be.", style="bold"), soft_wrap=True)
    for line in [*map(Text, checked.sentences()), *first, *last]:
        console.print(line)


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
    from traces.errors import BadInput, nearest

    asked = "" if section is None else f"{section}.".replace("[]", "")
    found = [key for key in scenario_keys() if f"{key.name}.".replace("[]", "").startswith(asked)]
    if not found:
        names = [key.name for key in scenario_keys()]
        every = [*names, *dict.fromkeys(name.partition(".")[0].replace("[]", "") for name in names if "." in name)]
        meant = nearest(str(section), every)
        hint = "'tilecast scenario keys' lists all" if meant is None else f"did you mean {meant!r}?"
        raise BadInput(f"no scenario key begins with {section!r}; {hint}")
    if as_json:
        say(json.dumps([asdict(key) for key in found], indent=2, ensure_ascii=False))
        return
    heads = ("key", "takes", "default", "limits", "meaning")
    rows = [(key.name, key.takes, key.default, key.limits, key.meaning) for key in found]
    if markdown:
        for row in (heads, ["---"] * len(heads), *rows):
            say("| " + " | ".join([cell.replace("|", "\\|") for cell in row]) + " |")
        return
    from rich.padding import Padding
    from rich.text import Text

    console = new_console()
    for key in found:
        takes = f"{key.takes}, {key.limits}" if key.limits else key.takes
        default = "required" if key.default == "required" else f"default {key.default}" if key.default else "not set"
        console.print(Text.assemble((key.name, "bold"), f"  {takes}; {default}"), soft_wrap=True)
        console.print(Padding(Text(key.meaning), (0, 0, 0, 4)))
    say(f"{len(found)} keys; in a file [faults] mtbf_s = 3600, on the command line --set faults.mtbf_s=3600")
