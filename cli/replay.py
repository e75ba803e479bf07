"""``tilecast replay``: a scenario on real devices."""

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
from reports.console import new_console
from traces.limits import FACTOR


def replay(
    scenario: ScenarioFile,
    output: OutputOption,
    trace: TraceOption = None,
    profile: ProfileOption = None,
    scheduler: SchedulerOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    device: Annotated[
        str | None, typer.Option(help="Run on this device, like cpu or cuda, instead of the scenario's.")
    ] = None,
    kernels: Annotated[
        str | None, typer.Option(help="Use these kernels, auto or reference, instead of the scenario's.")
    ] = None,
    speedup: Annotated[
        float, FACTOR, typer.Option(help="Let this many seconds of the trace pass in a real second.")
    ] = 1.0,
    save_images: Annotated[
        bool, typer.Option("--save-images", help="Write the pictures into the run folder, too.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted replay in the folder, if there is one.")
    ] = False,
    every: EveryOption = False,
) -> None:
    """Run a scenario in real time on real devices and write its run log, as it goes.

    Whatever ends it, what had ended stays, and the same command with --resume runs the requests that had not: those
    under way begin anew. Its clock goes on from the last event of the log, so that the time between does not count; the
    policy and the caches begin anew there. Without a log, --resume begins; with a whole one, nothing is to do. With
    --save-images, pictures of finished requests that are not there are made again first, which the log does not count.

    Exit code 3: the log is written, but no request finished.
    """
    from backend.ranks.environment import torchrun
    from cli.failures import NEGATIVE
    from policies.runlog import REPLAY
    from reports.notes import nothing_finished
    from reports.progress import bar
    from reports.terminal import show, told
    from tilecast.replaying import check_replayable, follows, replay_into
    from tilecast.results import read
    from tilecast.scenario import load_scenario
    from tilecast.setup import prepare
    from traces.output import check_folder, claim_folder

    place = torchrun()
    if place is None or place.rank == 0:
        check_folder(output, REPLAY, goes_on=resume)
    given = overrides(trace, profile, scheduler, seed, settings)
    if device is not None:
        given["cluster.device"] = device
    if kernels is not None:
        given["cluster.kernels"] = kernels
    loaded = load_scenario(scenario, given)
    if device is not None:
        loaded = loaded.replaced({f"pool.{pool.name}.device": device for pool in loaded.pool})
    if speedup != 1.0:
        loaded = loaded.replaced({"trace.rate_scale": loaded.trace.rate_scale * speedup})
    check_replayable(loaded)
    prepared = prepare(loaded)
    if follows(prepared):
        return
    for line in told(prepared.notes)[0]:  # again beside the figures, when it has taken its time
        new_console(stderr=True).print(line)
    count = len(prepared.requests)
    with claim_folder(output, REPLAY, goes_on=resume) as folder, bar("replaying", count) as progress:
        done = replay_into(prepared, folder, speedup, save_images, resume, progress)
    result = read(output)
    run = shlex.quote(str(output))
    more = f"More: tilecast report {run} --all; tilecast why {run} ({done})"
    show(result.comparison, every=every, ending=[more])
    if nothing_finished(result.log):
        raise typer.Exit(NEGATIVE)
