"""The verbs of the ``tilecast`` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from cli import cache, hardware, profile, scenario, trace
from cli.ask import ask
from cli.check import check
from cli.examples import examples
from cli.options import limited
from cli.plan import plan
from cli.quality import quality
from cli.replay import replay
from cli.report import compare, report
from cli.simulate import simulate
from cli.sweep import sweep
from cli.tile_cache import calibrate, record_tiles
from cli.validate import validate
from cli.verbs import Verbs
from cli.why import why
from reports.console import say

RUN, READ, PREPARE = "Run and ask what if", "Read what came of it", "Prepare"
"""Headings of the verbs."""

app = Verbs(
    name="tilecast",
    help="What-if simulation and real-device execution for serving diffusion models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"tilecast {version('tilecast')}")
        raise typer.Exit


@app.callback()
def common(
    shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What-if simulation and real-device execution for serving diffusion models."""


app.add_typer(
    trace.app, name="trace", help="Import, generate, describe and transform request traces.", rich_help_panel=PREPARE
)
app.add_typer(
    profile.app,
    name="profile",
    help="Measure a model on this machine, or import measurements.",
    rich_help_panel=PREPARE,
)
app.add_typer(
    hardware.app,
    name="hardware",
    help="Hardware kinds, models' shapes, and estimates of one on the other.",
    rich_help_panel=PREPARE,
)
app.add_typer(
    cache.app, name="cache", help="Record cache signals, fit cache forests, describe both.", rich_help_panel=PREPARE
)
cache.app.command("record-tiles")(record_tiles)
cache.app.command("calibrate")(calibrate)
app.add_typer(
    scenario.app, name="scenario", help="Write a scenario, check one, list every key.", rich_help_panel=PREPARE
)
app.command(rich_help_panel=RUN)(simulate)
app.command(rich_help_panel=RUN)(plan)
app.command(rich_help_panel=RUN)(sweep)
app.command(rich_help_panel=RUN)(replay)
app.command(rich_help_panel=READ)(validate)
app.command(rich_help_panel=READ)(report)
app.command(rich_help_panel=READ)(compare)
app.command(rich_help_panel=PREPARE)(check)
app.command(rich_help_panel=READ)(why)
app.command(rich_help_panel=RUN)(ask)
app.command(rich_help_panel=READ)(quality)
app.command(rich_help_panel=PREPARE)(examples)
limited(app)
