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

Source = Annotated[Path, typer.Argument(help="The file to import.")]
Out = Annotated[Path, typer.Option("--output", "-o", help="Write the trace to this file: .parquet, .csv or .jsonl.")]
Model = Annotated[str, typer.Option(help="Let all requests ask for this model.")]
Seed = Annotated[
    int, SEED, typer.Option(help="Draw all random numbers from this seed; the same seed gives the same bytes.")
]
PromptsFile = Annotated[Path | None, typer.Option("--prompts", help="Draw prompts from this file, one a line.")]
RateScale = Annotated[float, FACTOR, typer.Option(help="Multiply the arrival rate by this factor.")]
Limit = Annotated[int | None, REQUESTS, typer.Option(help="Import this many arrivals, the first.")]


@app.command()
def gentd26(
    file: Source,
    output: Out,
    sizes: Annotated[
        str,
        typer.Option(
            help="Draw sizes, which the file lacks, from a file with height,width,weight, or from text "
            "like 512x512:2,768x768:1."
        ),
    ],
    statuses: Annotated[str, typer.Option(help="Import requests with these recorded statuses.")] = "SUCCEED,FAILED",
    spread_seconds: Annotated[
        bool, typer.Option("--spread-seconds", help="Spread arrivals of the same second within it.")
    ] = False,
    model: Model = "sdxl",
    prompts: PromptsFile = None,
    rate_scale: RateScale = 1.0,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Import Alibaba's GenTD26: lora_request_trace.csv as published, packed or not."""
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
    """Import a trace of MixFusion: CSV with arrival time(ms), resolution and steps."""
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
    """Import the requests of vLLM-Omni's diffusion benchmark: lines of Request(...), JSON lines or CSV."""
    from traces.importers.dit import import_dit

    check(output)
    finish(import_dit(file, model=model, limit=limit), output, prompts, rate_scale, seed)


@app.command()
def table(
    file: Source,
    output: Out,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Read a field from a column, as field=column, for a time with its unit, like "
            "arrival_s=ts:ms (ns, us, ms, s, min, h or date), of nested JSON by its path, like steps=body.steps, and "
            "of text like 1024x768 one side, like width=size:1 and height=size:2; may be given several times.",
        ),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option("--set", help="Give a field one value for all rows, as field=value; may be given several times."),
    ] = None,
    rebase: Annotated[
        bool, typer.Option("--rebase", help="Count times from the first arrival, as dates always are.")
    ] = False,
    prompts: PromptsFile = None,
    rate_scale: RateScale = 1.0,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Import any CSV, Parquet or JSON file (lines, or a list of objects), its columns named by --map."""
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
