"""``tilecast profile``: measure what batches cost, import published measurements, say how good they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Device, Dtype, ProfileOutput, Threads
from cli.verbs import Verbs
from reports.console import new_console, say
from traces.errors import BadInput
from traces.limits import DEVICES, IMAGES, NAME, STEPS, Range

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from rich.table import Table

    from predictors.profile import Profile

app = Verbs(
    name="profile",
    help="Measure what batches cost on this machine, or import and describe measurements.",
    no_args_is_help=True,
)

KernelsOption = Annotated[
    str, typer.Option(help="Use the kernels that suit the device (auto), or plain PyTorch (reference).")
]


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Run this model, a known one or a diffusers folder.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the profile to this file (Parquet).")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="Measure these sizes, like 512x512,768x1024; by default some around the native size."),
    ] = None,
    max_batch: Annotated[int, IMAGES, typer.Option(help="Measure batches of up to this many images.")] = 8,
    repeats: Annotated[int, Range(1, 10_000, whole=True), typer.Option(help="Measure each batch this many times.")] = 5,
    minutes: Annotated[
        float,
        Range(0, 100_000, "minutes"),
        typer.Option(help="Stop measuring after this many minutes, and say what was left out."),
    ] = 10.0,
    threads: Threads = None,
    executor: Annotated[
        str,
        typer.Option(
            help="Run batches by this executor: whole, or for mixed sizes patched (UNets) or packed (transformers)."
        ),
    ] = "whole",
    mixes: Annotated[
        int, Range(0, 10_000, whole=True), typer.Option(help="Measure this many batches of several sizes, too.")
    ] = 12,
    caching: Annotated[
        str | None, typer.Option(help="Measure with this cache, too, like first-block or interval:every=3,warmup=4.")
    ] = None,
    cache_patch: Annotated[
        int,
        Range(0, 65_536, "latent pixels", whole=True),
        typer.Option(help="Cut cached images into patches of at most this side, latent pixels."),
    ] = 32,
    patch_floor: Annotated[
        int | None,
        Range(1, 65_536, "latent pixels", whole=True),
        typer.Option(help="Cut no patch smaller than this side, latent pixels; by default what was measured to pay."),
    ] = None,
    canvases: Annotated[
        str | None, typer.Option(help="Measure requests of these sizes by tiles, too, like 1024x2048.")
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(help="Use tiles of at most this size with --canvases, like 512x512; by default the native size."),
    ] = None,
    kernels: KernelsOption = "auto",
    devices: Annotated[
        int,
        Range(1, 1024, whole=True),
        typer.Option(help="Measure denoising and decoding on up to this many devices, too."),
    ] = 1,
) -> None:
    """Measure the stages of a model on a device: tilecast profile --model tiny-image -o P.parquet.

    Until the profile is whole, its measurements are kept beside it, in P.parquet.rows.jsonl: after Ctrl-C or a kill the
    same command goes on from there.
    """
    if context.invoked_subcommand is not None:
        return
    from backend.folder import model_folder
    from predictors.profile import PROFILE
    from traces.output import check_file
    from traces.sizes import parse_size_list, parse_tile

    if model is None:
        raise BadInput("--model is missing; it says what to measure")
    if output is None:
        raise BadInput("--output is missing; it says which profile to write")
    check_file(output, PROFILE)
    wanted = None if sizes is None else parse_size_list(sizes, "--sizes")
    large = () if canvases is None else parse_size_list(canvases, "--canvases")
    largest_tile = None if tile is None else parse_tile(tile, "--tile")
    from importlib.metadata import version

    model_folder(model)  # before torch is there, which takes a while
    from backend.machine import hardware_name
    from backend.measured import KeptMeasurements
    from backend.profiling import measure_profile
    from reports.progress import shown
    from tilecast.caching import parse_caching_policy
    from tilecast.sections import usual_dtype
    from tilecast.signals import Interrupted

    asked: dict[str, Any] = {
        "model": model,
        "device": device,
        "dtype": usual_dtype(device) if dtype is None else dtype,
        "sizes": wanted,
        "max_batch": max_batch,
        "repeats": repeats,
        "minutes": minutes,
        "threads": threads,
        "mode": executor,
        "mixes": mixes,
        "cache_patch": cache_patch,
        "patch_floor": patch_floor,
        "canvases": large,
        "tile": largest_tile,
        "kernels": kernels,
        "devices": devices,
    }
    versions = {name: version(name) for name in ("torch", "diffusers")}
    facts = {**asked, **versions, "caching": caching, "hardware": hardware_name(device)}
    with KeptMeasurements(output, facts) as kept, shown() as tell:
        try:
            profile = measure_profile(
                **asked,
                caching=None if caching is None else parse_caching_policy(caching),
                progress=lambda done, planned: tell("measuring", planned, done),
                kept=kept,
            )
            profile.save(output)
        except KeyboardInterrupt:
            if not kept:
                raise
            raise Interrupted(
                f"interrupted: {len(kept)} measurements are kept in {kept.path}; the same command goes on from there"
            ) from None
        kept.done()
    say(f"{output}: {len(profile.frame)} measurements on {profile.hardware}")
    if cut := _cut_short(profile, repeats, minutes):
        say(f"note: {cut}")
    for note in profile.notes:
        say(f"note: {note}")


def _cut_short(profile: Profile, repeats: int, minutes: float) -> str:
    """What the time limit left out, and about how long the rest would have taken; empty: nothing."""
    counts = profile.repeats
    fewer = counts[counts < repeats]
    if not len(fewer):
        return ""
    least, most = int(fewer.min()), int(fewer.max())
    times = f"{most} time{'s' * (most > 1)}" if least == most else f"{least} to {most} times"
    needed = math.ceil(minutes * repeats * len(counts) / counts.sum())
    enough = f"; --minutes {needed} would do" if minutes else ""
    return (
        f"the limit of {minutes:g} minutes cut the measurement short: {len(fewer)} of {len(counts)} batches were "
        f"measured {times} instead of {repeats}{enough}"
    )


@app.command("import")
def import_files(
    files: Annotated[
        list[Path], typer.Argument(help="The files of measurements: CSV, Parquet, JSON or MLPerf's text.")
    ],
    output: ProfileOutput,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Read the files as mixfusion, mlperf, vllm-omni, sglang or published; by default as "
            "their contents show.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Say which model it was, where the files do not, by a known name like flux or FLUX.1-dev."),
    ] = None,
    hardware: Annotated[
        str | None, NAME, typer.Option(help="Say what hardware ran it, where the files do not.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Say of which size requests were, where the files do not, like 1024x1024 or 480x832x81."),
    ] = None,
    steps: Annotated[
        int | None, STEPS, typer.Option(help="Say how many denoising steps a request had, where the files do not.")
    ] = None,
    batch: Annotated[
        int | None, IMAGES, typer.Option(help="Say how many images ran together, where the files do not.")
    ] = None,
    gpus: Annotated[
        int | None, DEVICES, typer.Option(help="Say of how many devices the times are, where the files do not.")
    ] = None,
    guided: Annotated[
        bool | None,
        typer.Option(
            "--guided/--no-guided", help="Say whether classifier-free guidance was on; by default as the model has it."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Import only rows of system=NAME, engine=NAME, precision=NAME and the like; may be given "
            "several times."
        ),
    ] = None,
    add: Annotated[
        list[Path] | None, typer.Option(help="Add the rows of this profile; may be given several times.")
    ] = None,
) -> None:
    """Make a profile of measurements that others took: tilecast profile import results.csv -o P.parquet.

    A profile is of one system and one engine: --where engine=eager chooses among several. What the files do not say,
    such as the size of SGLang's requests, is asked for. Times of whole requests are divided between their stages, and
    the profile's note says how.
    """
    from predictors.importers.formats import import_measurements
    from predictors.importers.reported import ImportOptions
    from predictors.profile import PROFILE, Profile
    from traces.output import check_file
    from traces.sizes import parse_size_list

    check_file(output, PROFILE)
    asked_size = None if size is None else parse_size_list(size, "--size")
    if asked_size is not None and len(asked_size) > 1:
        raise BadInput(f"--size is {size!r}, expected one size, like 1024x1024")
    options = ImportOptions(
        model=model or "",
        hardware=(hardware or "").strip(),
        size=None if asked_size is None else asked_size[0],
        steps=steps,
        batch=batch,
        gpus=gpus,
        guided=guided,
        where=_conditions(where or []),
    )
    others = [Profile.load(path) for path in add or []]
    imported = import_measurements(files, file_format or "", options)
    profile = Profile.merge([*others, imported.profile]) if others else imported.profile
    profile.save(output)
    say(f"{output}: {len(profile.frame)} measurements on {profile.hardware}")
    for note in profile.notes:
        say(f"note: {note}")
    for remark in imported.remarks:
        say(remark)


def _conditions(pairs: list[str]) -> dict[str, str]:
    """What ``--where`` says, by name."""
    conditions: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or name.strip() in conditions:
            raise BadInput(f"--where {pair!r} is not like 'engine=eager', once a name")
        conditions[name.strip()] = value
    return conditions


@app.command()
def describe(
    path: Annotated[Path, typer.Argument(help="The profile (Parquet).")],
    every: Annotated[
        bool,
        typer.Option("--all", help="Print all columns, and the errors of all latency models by the number of images."),
    ] = False,
) -> None:
    """Say what a profile holds, which latency model is chosen, and how well it predicts what it did not see."""
    from rich.text import Text

    from predictors.evaluate import evaluate
    from predictors.latency import CANDIDATES
    from predictors.latency_model import LatencyModel
    from predictors.profile import Profile
    from traces.geometry import GEOMETRIES, geometry_from_json

    profile = Profile.load(path)
    geometries = dict(GEOMETRIES)
    if own := profile.metadata.get("geometry"):
        geometry = geometry_from_json(own)
        geometries[geometry.name] = geometry
    console = new_console()
    if every and console.width < _WIDE:
        console = new_console(width=_WIDE)
    for key, value in profile.metadata.items():
        if every or value[:1] not in ("{", "["):
            console.print(Text.assemble((key, "bold"), f": {value}"))
    console.print(Text.assemble(("content", "bold"), f": {profile.content_hash[:16]}"))
    console.print(_range_table(profile.frame, every))
    tables = [
        LatencyModel.fit(profile, model, executor, geometry=geometries.get(model))
        for model in profile.models
        for executor in profile.executors(model)
    ]
    chosen = {
        (table.model, executor, stage): table.fitted_models[stage]
        for table in tables
        for stage, executor in table.stage_executors.items()
    }
    errors = evaluate(profile, CANDIDATES, geometries=geometries)
    console.print(_error_table(errors, chosen) if every else _chosen_table(errors, chosen))
    for table in tables:
        for sentence in table.misfits:
            console.print(Text(f"! {table.model} {table.executor}, {sentence}"))


_WIDE = 140  # characters that all columns need


def _table(title: str, left: Sequence[str], right: Sequence[str], caption: str = "") -> Table:
    """A table that shows numbers whole however narrow the terminal is."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, caption=caption or None, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _range_table(frame: pd.DataFrame, every: bool) -> Table:
    from predictors.features import sizes_in
    from traces.composition import parse
    from traces.sizes import format_size

    models = frame["model"].unique()
    model = ["model"] if every or len(models) > 1 else []
    title = f"What was measured of {', '.join(models)}" if not model else "What was measured"
    several = ["devices"] if frame["devices"].max() > 1 else []
    counts = ["measurements", "compositions"] if every else ["rows"]
    left = [*model, "executor", "stage", *several]
    table = _table(title, left, [*counts, "images", "smallest", "largest", "ms/step"])
    for key, rows in frame.groupby(left, sort=False):
        compositions = [parse(text) for text in rows["composition"].unique()]
        images = [sum(n for _, n in c) for c in compositions]
        sizes = sorted(sizes_in(compositions), key=lambda size: (size[0] * size[1] * size[2], size))
        per_step = 1000 * rows["seconds"] / rows["steps"]
        table.add_row(
            *map(str, key),
            *[str(len(rows)), str(len(compositions))][: len(counts)],
            f"{min(images)}-{max(images)}",
            format_size(sizes[0]),
            format_size(sizes[-1]),
            f"{_short(per_step.min())}-{_short(per_step.max())}",
        )
    return table


def _chosen_table(errors: pd.DataFrame, chosen: dict[tuple[str, str, str], str]) -> Table:
    models = errors["model"].unique()
    model = ["model"] if len(models) > 1 else []
    held_out = list(dict.fromkeys(errors["held_out"]))
    table = _table(
        "Mean absolute error in % of what the latency model did not see",
        [*model, "executor", "stage", "latency model"],
        [*[f"a {name}" for name in held_out], "noise"],
        caption="noise: what is left to who knows the truth; more with --all",
    )
    taken = errors[(errors["images"] == "all")]
    for key, rows in taken.groupby(["model", "executor", "stage"], sort=False):
        of, executor, stage = map(str, key)
        fitted = chosen[of, executor, stage]
        own = rows[rows["latency_model"] == fitted].set_index("held_out")["mape"]
        cells = [_percent(own.get(name)) for name in held_out]
        noise = _percent(float(rows["perfect"].to_numpy()[0]))
        table.add_row(*([of] if model else []), executor, stage, fitted, *cells, noise)
    return table


def _error_table(errors: pd.DataFrame, chosen: dict[tuple[str, str, str], str]) -> Table:
    models = list(dict.fromkeys(errors["latency_model"]))
    table = _table(
        "Mean absolute error in %, cross-validated, by what was held out and the number of images",
        ["model", "executor", "stage", "held out", "images"],
        [*models, "noise", "attainable"],
        caption="*: the latency model that 'auto' chooses; noise: what that of repeated measurements would leave a "
        "predictor that knew the truth, were it normal; attainable: what a batch's own other repeats leave, freed of "
        "their noise",
    )
    for key, rows in errors.groupby(["model", "executor", "stage", "held_out", "images"], sort=False):
        model, executor, stage, *_ = map(str, key)
        taken = chosen[model, executor, stage]
        mape = dict(zip(rows["latency_model"], rows["mape"], strict=True))
        cells = {name: _percent(mape.get(name)) for name in models}
        cells[taken] = f"*{cells[taken]}"
        floors = [_percent(float(rows[name].to_numpy()[0])) for name in ("perfect", "attainable")]
        table.add_row(*map(str, key), *cells.values(), *floors)
    return table


def _short(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f}"
