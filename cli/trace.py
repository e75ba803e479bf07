"""``tilecast trace``: import, generate, fit, change and describe traces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import trace_import
from cli.verbs import Verbs
from reports.console import say
from traces.errors import BadInput
from traces.limits import FACTOR, GUIDANCE, INSTANT, POSITIVE_SPAN, RATE, REQUESTS, SEED, SIDE

if TYPE_CHECKING:
    from traces.trace import Trace
    from traces.workload import Workload

app = Verbs(help="Import, generate, fit, change and describe traces.", no_args_is_help=True)
app.add_typer(trace_import.app, name="import")

Out = Annotated[Path, typer.Option("--output", "-o", help="Write the trace to this file: .parquet, .csv or .jsonl.")]
Seed = Annotated[
    int, SEED, typer.Option(help="Draw all random numbers from this seed; the same seed gives the same bytes.")
]
PromptsFile = Annotated[Path | None, typer.Option("--prompts", help="Draw prompts from this file, one a line.")]
TraceFile = Annotated[
    Path, typer.Argument(help="The trace: .parquet, .csv or .jsonl, the latter two also packed as .gz.")
]


@app.command()
def generate(
    output: Out,
    duration: Annotated[float, POSITIVE_SPAN, typer.Option(help="Generate this many seconds of requests.")],
    rate: Annotated[
        float | None, RATE, typer.Option(help="Let this many requests arrive a second, in the mean over a day.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Start from this workload, a TOML file that 'trace fit' wrote.")
    ] = None,
    rate_scale: Annotated[float, FACTOR, typer.Option(help="Multiply the rate by this factor.")] = 1.0,
    arrivals: Annotated[
        str | None,
        typer.Option(
            help="Draw arrivals as poisson, gamma:CV, mmpp:RATIO:SECONDS, diurnal:AMPLITUDE, or both, "
            "like gamma:2+diurnal:0.5."
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Draw sizes from a file with height,width,weight, or from text like 512x512:2,768x512:1; "
            "by default the model's own."
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(help="Draw denoising steps from these, like 30 or 20:1,30:3; by default the model's, or 30."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Draw images a request from these, like 1 or 1:3,4:1; by default 1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Let all requests ask for this model.")] = None,
    guidance_scale: Annotated[
        float | None,
        GUIDANCE,
        typer.Option(help="Give all requests this guidance scale; by default the model's, or 5."),
    ] = None,
    prompts: PromptsFile = None,
    seed: Seed = 0,
) -> None:
    """Write a trace from a description, or from a workload and what to change in it."""
    from dataclasses import replace
    from typing import Any

    from traces.arrivals import parse_arrivals
    from traces.geometry import known_model
    from traces.mix import parse_counts
    from traces.sizes import sizes_from
    from traces.streams import stream
    from traces.workload import Workload

    trace_import.check(output)
    given: dict[str, Any] = {
        "rate": rate,
        "sizes": sizes_from(sizes) if sizes is not None else None,
        "arrivals": parse_arrivals(arrivals) if arrivals is not None else None,
        "steps": parse_counts(steps, "steps") if steps is not None else None,
        "images": parse_counts(images, "images") if images is not None else None,
        "model": model,
        "guidance_scale": guidance_scale,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if like is not None:
        workload = replace(Workload.load(like), **given)
    elif rate is None or (sizes is None and model is None):
        raise BadInput("generate needs --rate and --sizes or a --model, or --like with a workload")
    elif model is None or (sizes is not None and not known_model(model)):
        workload = Workload(**given)
    else:
        workload = Workload.asking(**given)
        _say_what_was_taken(workload, given)
    trace = workload.generate(duration, rate_scale, stream(seed, "workload"))
    trace_import.write(trace_import.prompted(trace, prompts, seed), output)


def _say_what_was_taken(workload: Workload, given: Mapping[str, object]) -> None:
    """What of a workload is the model's, and nobody said."""
    from traces.sizes import format_size

    taken = {
        "sizes": f"sizes {format_size(workload.sizes.values[0])}",
        "steps": f"steps {workload.steps.values[0]}",
        "guidance_scale": f"guidance scale {workload.guidance_scale:g}",
    }
    said = [text for name, text in taken.items() if name not in given]
    said += ["a negative prompt of a space, for true CFG"] if workload.negative_prompt else []
    if said:
        say(f"as {workload.model} is asked where nobody says: {', '.join(said)}")


@app.command()
def describe(trace: TraceFile) -> None:
    """Show what a trace asks for."""
    from cli.trace_tables import show_summary
    from traces.trace import Trace

    show_summary(Trace.load(trace))


@app.command()
def fit(
    trace: TraceFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the workload to this file (TOML).")],
) -> None:
    """Fit a workload to a trace: rate, burstiness, course of the day, mixes. Edit it, generate from it."""
    from traces.output import check_file
    from traces.trace import Trace
    from traces.workload import WORKLOAD
    from traces.workload import fit as fit_workload

    check_file(output, WORKLOAD)
    fit_workload(Trace.load(trace)).save(output)
    say(f"wrote {output}")


@app.command()
def transform(
    trace: TraceFile,
    output: Out,
    merge: Annotated[list[Path] | None, typer.Option(help="Merge this trace in; may be given several times.")] = None,
    start: Annotated[float, INSTANT, typer.Option(help="Leave out arrivals before this time, seconds.")] = 0.0,
    end: Annotated[float | None, INSTANT, typer.Option(help="Leave out arrivals from this time on, seconds.")] = None,
    rebase: Annotated[bool, typer.Option(help="Make --start the new time 0.")] = True,
    head: Annotated[int | None, REQUESTS, typer.Option(help="Keep this many requests, the first.")] = None,
    scale_rate: Annotated[float | None, FACTOR, typer.Option(help="Multiply the arrival rate by this factor.")] = None,
    scale_sizes: Annotated[
        str | None, typer.Option(help="Fit the sizes to this model, for which the requests then ask.")
    ] = None,
    size_factor: Annotated[
        float | None,
        FACTOR,
        typer.Option(
            help="Multiply each side by this factor, with --scale-sizes; by default from native to native size."
        ),
    ] = None,
    min_side: Annotated[
        int | None, SIDE, typer.Option(help="Make no side shorter than this with --scale-sizes, pixels.")
    ] = None,
    max_side: Annotated[
        int | None, SIDE, typer.Option(help="Make no side longer than this with --scale-sizes, pixels.")
    ] = None,
    scale_steps: Annotated[
        float | None, FACTOR, typer.Option(help="Multiply the denoising steps by this factor.")
    ] = None,
    resample: Annotated[
        int | None, REQUESTS, typer.Option(help="Draw this many requests and intervals with replacement.")
    ] = None,
    with_model: Annotated[str | None, typer.Option(help="Let all requests ask for this model.")] = None,
    slo: Annotated[
        str | None,
        typer.Option(
            help="Give requests without a deadline this many seconds: 10, or by size, like 512x512:5,1024x1024:20."
        ),
    ] = None,
    overwrite_slo: Annotated[bool, typer.Option(help="Replace deadlines that are there, too.")] = False,
    prompts: PromptsFile = None,
    seed: Seed = 0,
) -> None:
    """Change a trace. The changes happen in the order of the options listed here."""
    from traces.geometry import geometry_of
    from traces.streams import stream
    from traces.trace import Trace

    if scale_sizes is None and not (size_factor is None and min_side is None and max_side is None):
        raise BadInput("--size-factor, --min-side and --max-side need --scale-sizes with a model's name")
    trace_import.check(output)
    changed = Trace.load(trace)
    if merge:
        changed = changed.merge(*(Trace.load(path) for path in merge))
    if start != 0.0 or end is not None:
        changed = changed.slice(start, float("inf") if end is None else end, rebase=rebase)
    if head is not None:
        changed = changed.head(head)
    if scale_rate is not None:
        changed = changed.scale_rate(scale_rate)
    if scale_sizes is not None:
        geometry = geometry_of(scale_sizes)
        changed = changed.scale_sizes(geometry, size_factor, minimum=min_side, maximum=max_side)
    if scale_steps is not None:
        changed = changed.with_steps(scale_steps)
    if resample is not None:
        changed = changed.resample(resample, stream(seed, "resample"))
    if with_model is not None:
        changed = changed.with_model(with_model)
    if slo is not None:
        changed = _with_slo(changed, slo, overwrite_slo)
    trace_import.write(trace_import.prompted(changed, prompts, seed), output)


def _with_slo(trace: Trace, text: str, overwrite: bool) -> Trace:
    from traces.sizes import parse_sizes

    try:
        return trace.with_slo(float(text), overwrite=overwrite)
    except BadInput:
        raise
    except ValueError:
        spans = parse_sizes(text)
        by_size = dict(zip(spans.values, spans.weights, strict=True))
        return trace.with_slo(by_size, overwrite=overwrite)
