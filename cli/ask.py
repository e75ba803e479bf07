"""``tilecast ask``: so many users wait so long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import EstimatedOption, MeasuredOption, ServedOption
from reports.console import new_console
from traces.limits import REPLICAS, SEED, SPAN, Range


def ask(
    users: Annotated[
        int, Range(1, 100_000, "users", whole=True), typer.Option(help="Let this many users ask, each again and again.")
    ],
    model: ServedOption = "sdxl",
    think: Annotated[
        float,
        SPAN,
        typer.Option(help="Let a user think so many seconds, in the mean, between an answer and a request."),
    ] = 30.0,
    hardware: EstimatedOption = None,
    profile: MeasuredOption = None,
    replicas: Annotated[int, REPLICAS, typer.Option(help="Serve them with this many replicas.")] = 1,
    within: Annotated[
        float | None,
        Range(1e-3, 1e6, "s"),
        typer.Option(help="Find the fewest replicas with which 95 % of the requests are answered in so many seconds."),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="Draw sizes from these, like 512x512:2,1024x1024:1, or from a file; by default the model's."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Draw denoising steps from these, like 30 or 20:1,30:3; by default the model's.")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Run batches by this executor: whole, or for mixed sizes patched or packed.")
    ] = "whole",
    scheduler: Annotated[str, typer.Option(help="Schedule by this policy, a name or file.py:Class.")] = "lookahead",
    seeds: Annotated[
        int, Range(2, 1000, "seeds", whole=True), typer.Option(help="Simulate this many times, for the interval.")
    ] = 5,
    seed: Annotated[int, SEED, typer.Option(help="Draw all random numbers from this seed.")] = 0,
) -> None:
    """Say how long so many users wait: tilecast ask --users 40 --model sdxl --within 20.

    Each user asks, waits for the answer, thinks, and asks again: a closed loop, in which a slow cluster is asked less.
    P50 and P95 of the wait come with their 95 % intervals over the seeds. With --within, the fewest replicas of which
    95 % of the requests are answered in that time; exit code 3: none are enough, as a request alone takes longer.
    """
    from rich.text import Text

    from cli.failures import NEGATIVE
    from reports.brief import WIDEST
    from reports.progress import shown
    from reports.terminal import told
    from tilecast.asking import ask
    from traces.mix import parse_counts
    from traces.sizes import sizes_from

    with shown() as progress:
        answer = ask(
            model,
            users=users,
            think_s=think,
            hardware=hardware,
            profile=str(Path(profile).absolute()) if profile is not None and Path(profile).exists() else profile,
            replicas=replicas,
            limit_s=within,
            sizes=None if sizes is None else sizes_from(sizes),
            steps=None if steps is None else parse_counts(steps, "steps"),
            executor=executor,
            scheduler=scheduler,
            seeds=seeds,
            seed=seed,
            progress=progress,
        )
    console = new_console()
    first, last = told(answer.notes)
    for line in [*map(Text, answer.sentences()), *first, *last]:
        console.print(line, width=min(console.width, WIDEST))
    if within is not None and answer.enough is None:
        raise typer.Exit(NEGATIVE)
