"""``tilecast cache``: record what a cache would see, fit what decides by it, say how good both are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Device, Dtype, MaxAge, Prompts, RecordingOutput, Threads, prompt_lines
from cli.verbs import Verbs
from reports.console import new_console, say
from traces.errors import BadInput
from traces.limits import SEED32, STEPS, Range

if TYPE_CHECKING:
    from predictors.recording import Recording

app = Verbs(
    name="cache",
    help="Record cache signals on this machine, fit cache forests, describe both.",
    no_args_is_help=True,
)

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2)
RecordingFile = Annotated[Path, typer.Argument(help="The recording (Parquet).")]


@app.command()
def record(
    model: Annotated[str, typer.Option(help="Run this model, a known one or a diffusers folder with a UNet.")],
    output: RecordingOutput,
    sizes: Annotated[str, typer.Option(help="Run requests of these sizes in turn, like 512x512,768x1024.")],
    requests: Annotated[
        int, Range(2, 100_000, "requests", whole=True), typer.Option(help="Run this many requests.")
    ] = 24,
    steps: Annotated[
        int,
        Range(2, STEPS.most, "steps", whole=True),
        typer.Option(help="Give each request this many denoising steps."),
    ] = 20,
    patch: Annotated[
        int,
        Range(0, 65_536, "latent pixels", whole=True),
        typer.Option(help="Cut images into patches of at most this side, latent pixels; 0 records whole images."),
    ] = 8,
    max_age: MaxAge = 4,
    prompts: Prompts = None,
    seed: Annotated[int, SEED32, typer.Option(help="Draw the noise and the ages from this seed.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = None,
    threads: Threads = None,
    units: Annotated[
        int | None, Range(1, 2**31, whole=True), typer.Option(help="Keep only this many units of each request.")
    ] = None,
) -> None:
    """Run requests with everything computed, and record what reusing would have cost."""
    from predictors.recording import RECORDING
    from traces.output import check_file
    from traces.sizes import parse_size_list

    check_file(output, RECORDING)
    wanted = parse_size_list(sizes, "--sizes")
    lines = prompt_lines(prompts)
    try:
        from backend.machine import use_threads
        from backend.patched.record import record_signals
    except ImportError as error:
        raise BadInput(f"cache record needs {error.name}; install tilecast[backend]") from error

    from cli.tile_cache import facts_of
    from predictors.recording import COLUMNS, Recording
    from reports.progress import bar
    from tilecast.sections import usual_dtype

    use_threads(threads)
    with bar("recording", requests) as progress:
        frame = record_signals(
            model=model,
            sizes=wanted,
            requests=requests,
            steps=steps,
            patch=patch,
            max_age=max_age,
            seed=seed,
            prompts=lines,
            device=device,
            dtype=usual_dtype(device) if dtype is None else dtype,
            progress=lambda done, _: progress(done),
        )
    facts = {
        "model": Path(model).name,
        "patch": str(frame.attrs["patch_px"]),
        "floor": str(frame.attrs["floor_px"]),
        **facts_of(model, device),
    }
    recording = Recording(frame[list(COLUMNS)], facts)
    recording = recording if units is None else recording.thinned(units)
    recording.save(output)
    say(f"{output}: {len(recording.frame)} rows of {requests} requests, {recording.blocks} blocks")


@app.command()
def fit(
    recording: RecordingFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the forest to this file (Parquet).")],
    trees: Annotated[int, Range(1, 10_000, whole=True), typer.Option(help="Fit this many trees for each block.")] = 8,
    leaves: Annotated[
        int, Range(2, 100_000, whole=True), typer.Option(help="Give each tree at most this many leaves.")
    ] = 24,
    depth: Annotated[int, Range(1, 64, whole=True), typer.Option(help="Make no tree deeper than this.")] = 6,
    seed: Annotated[int, SEED32, typer.Option(help="Draw the forest and the requests held out from this seed.")] = 0,
) -> None:
    """Fit a cache forest, and say how good it would be on requests it did not see."""

    from predictors.forest import FOREST
    from predictors.forest_fit import fit_forest, trade_off
    from predictors.recording import Recording
    from traces.output import check_file

    check_file(output, FOREST)
    data = Recording.load(recording)
    known, held_out = data.split(seed=seed)
    table = trade_off(fit_forest(known, trees, leaves, depth, seed), held_out, THRESHOLDS)
    forest = fit_forest(data, trees, leaves, depth, seed)
    forest.save(output)
    title = f"Fitted on {len(known.requests)} requests, held against the other {len(held_out.requests)}"
    new_console().print(_trade_off_table(table, title))
    say(f"{output}: {len(forest.left)} nodes, {forest.blocks} blocks, {trees} trees each, fitted on all")


@app.command()
def describe(
    recording: RecordingFile,
    forest: Annotated[Path | None, typer.Option(help="Say what this forest answers for these requests, too.")] = None,
) -> None:
    """Say what a recording holds, and what each caching policy would compute of its requests."""
    from rich.text import Text

    from predictors.forest import Forest
    from predictors.forest_fit import trade_off
    from predictors.recording import Recording

    data = Recording.load(recording)
    console = new_console()
    for key, value in data.metadata.items():
        console.print(Text.assemble((key, "bold"), f": {value}"))
    console.print(Text.assemble(("requests", "bold"), f": {len(data.requests)} of {data.steps} steps"))
    console.print(_block_table(data))
    console.print(_share_table(data, forest))
    if forest is not None:
        table = trade_off(Forest.load(forest), data, THRESHOLDS)
        console.print(_trade_off_table(table, "The forest on this recording (which it may have been fitted on)"))


def _block_table(data: Recording) -> Any:
    frame = data.frame
    by_age = frame.groupby(["block", "age"])["output_change"].median().unstack()
    rows = [
        (str(block), f"{weight:.1%}", *(f"{change:.3g}" for change in by_age.loc[block]))
        for block, weight in enumerate(data.block_weights)
    ]
    names = ["block", "of a step", *(f"age {age}" for age in by_age.columns)]
    return _table("Median change of a block's output, by the age of what would be reused", names, rows)


def _share_table(data: Recording, forest: Path | None) -> Any:
    """What the policies compute of modelled requests, by size."""
    from policies.caching import CACHES, CachingPolicy
    from policies.caching.plan import CachePlans
    from predictors.reuse import ReuseModel
    from traces.request import Request

    reuse = ReuseModel.fit(data)
    sizes = sorted({donor.size for donor in reuse.donors})
    asked = [Request("modelled", 0.0, height, width, data.steps) for height, width in sizes]
    rows = []
    for name, policy in CACHES.items():
        if (name == "forest" and forest is None) or policy.needs_gain:
            continue
        make: Any = policy
        one: CachingPolicy = make(forest=str(forest)) if name == "forest" else make()
        plans = CachePlans(one, reuse)
        rows.append((name, *(f"{plans.expected_share(request, 8):.0%}" for request in asked)))
    names = ["policy", *(f"{height}x{width}" for height, width in sizes)]
    return _table("Share of the work that each policy computes with its default parameters, modelled", names, rows)


def _trade_off_table(table: Any, title: str) -> Any:
    names = {
        "threshold": "threshold",
        "possible": "below it",
        "reused": "reused",
        "violations": "of these wrong",
        "accuracy": "accuracy",
        "constant": "always the same",
        "threshold_rule": "input change alone",
    }
    rows = [(f"{row['threshold']:g}", *(f"{row[name]:.1%}" for name in list(names)[1:])) for _, row in table.iterrows()]
    return _table(title, list(names.values()), rows)


def _table(title: str, names: list[str], rows: list[tuple[str, ...]]) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table
