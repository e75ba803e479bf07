"""``tilecast trace import``: one command for each format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.verbs import Verbs
from reports.console import say
from traces.errors import BadInput
from traces.limits import FACTOR, REQUESTS, SEED

if TYPE_CHECKING:
    from traces.importers.imported import Imported
    from traces.trace import Trace

app = Verbs(help="Make a trace of a file in another format.", no_args_is_help=True)

Source = Annotated[Path, typer.Argument(help="File to import.")]
Out = Annotated[Path, typer.Option("--output", "-o", help="Trace to write: .parquet, .csv or .jsonl.")]
Model = Annotated[str, typer.Option(help="What the requests ask for.")]
Seed = Annotated[int, SEED, typer.Option(help="Of all random draws; the same seed gives the same bytes.")]
PromptsFile = Annotated[Path | None, typer.Option("--prompts", help="Prompts to draw from, one a line.")]
RateScale = Annotated[float, FACTOR, typer.Option(help="Multiply the arrival rate.")]
Limit = Annotated[int | None, REQUESTS, typer.Option(help="Only the first arrivals.")]


@app.command()
def gentd26(
    file: Source,
    output: Out,
    sizes: Annotated[str, typer.Option(help="The file has no sizes. File with height,width,weight, or text.")],
    statuses: Annotated[str, typer.Option(help="Recorded statuses to import.")] = "SUCCEED,FAILED",
    spread_seconds: Annotated[
        bool, typer.Option("--spread-seconds", help="Spread arrivals of the same second within it.")
    ] = False,
    model: Model = "sdxl",
    prompts: PromptsFile = None,
    rate_scale: RateScale = 1.0,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Alibaba GenTD26: lora_request_trace.csv as published, packed or not."""
    from traces.importers.gentd26 import import_gentd26
    from traces.sizes import sizes_from

    check(output)
    imported = import_gentd26(
        file,
        sizes_from(sizes),
        seed=seed,
        model=model,
        statuses=tuple(dict.fromkeys(status.strip() for status in statuses.split(","))),
        spread_seconds=spread_seconds,
        limit=limit,
    )
    finish(imported, output, prompts, rate_scale, seed)


@app.command()
def mixfusion(
    file: Source,
    output: Out,
    model: Model = "",
    prompts: PromptsFile = None,
    rate_scale: RateScale = 1.0,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """MixFusion: CSV with arrival time(ms), resolution and steps."""
    from traces.importers.mixfusion import import_mixfusion

    check(output)
    finish(import_mixfusion(file, model=model, limit=limit), output, prompts, rate_scale, seed)


@app.command()
def dit(
    file: Source,
    output: Out,
    model: Model = "",
    prompts: PromptsFile = None,
    rate_scale: RateScale = 1.0,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """vLLM-Omni diffusion benchmark: lines of Request(...), JSON lines or CSV."""
    from traces.importers.dit import import_dit

    check(output)
    finish(import_dit(file, model=model, limit=limit), output, prompts, rate_scale, seed)


@app.command()
def table(
    file: Source,
    output: Out,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="field=column, with :ms (or ns, us, min, h, date) for a time; repeatable."),
    ] = None,
    constant: Annotated[list[str] | None, typer.Option("--set", help="field=value for all rows; repeatable.")] = None,
    rebase: Annotated[bool, typer.Option("--rebase", help="Count from the first arrival, as dates are.")] = False,
    prompts: PromptsFile = None,
    rate_scale: RateScale = 1.0,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Any CSV, Parquet or JSON lines file, its columns named by --map."""
    from traces.importers.table import import_table, parse_mapping

    check(output)
    constants = {}
    for pair in constant or []:
        field, equals, value = pair.partition("=")
        if not equals or field in constants:
            raise BadInput(f"--set {pair!r} is not like 'steps=30', once a field")
        constants[field] = value
    imported = import_table(file, parse_mapping(mapping or []), constants=constants, rebase=rebase, limit=limit)
    finish(imported, output, prompts, rate_scale, seed)


def check(output: Path) -> None:
    """Refuse what no trace can be written to, before there is one."""
    from traces.files import suffix_of
    from traces.output import check_file
    from traces.trace import TRACE

    suffix_of(output)
    check_file(output, TRACE)


def finish(imported: Imported, output: Path, prompts: Path | None, rate_scale: float, seed: int) -> None:
    """Give an imported trace its prompts and rate, write it, and then show the account of its rows."""
    from cli.trace_tables import show_report

    trace = imported.trace if rate_scale == 1.0 else imported.trace.scale_rate(rate_scale)
    trace = prompted(trace, prompts, seed)
    write(trace, output)
    show_report(imported.report)


def prompted(trace: Trace, prompts: Path | None, seed: int) -> Trace:
    """The trace with prompts drawn from a file, if one is given."""
    if prompts is None:
        return trace
    from traces.prompts import load_prompts
    from traces.streams import stream

    return trace.with_prompts(load_prompts(prompts), stream(seed, "prompts"))


def write(trace: Trace, output: Path) -> None:
    """Write a trace that has requests, and say so.

    Raises:
        BadInput: the trace has no request.
    """
    if not len(trace):
        raise BadInput(f"no request is left, so {output} is not written")
    trace.save(output)
    say(f"wrote {output}: {len(trace)} requests")
