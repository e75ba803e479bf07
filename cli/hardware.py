"""``tilecast hardware``: what devices can do, what models ask of them, and an estimate of one on the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.verbs import Verbs
from reports.console import new_console, say
from traces.errors import BadInput
from traces.limits import STEPS

if TYPE_CHECKING:
    from predictors.degree_fit import DegreeAssessment
    from predictors.degrees import ParallelCosts
    from predictors.efficiency_fit import PublishedCase
    from predictors.latency_model import LatencyModel
    from traces.composition import Composition

app = Verbs(
    name="hardware", help="Hardware kinds, models' shapes, and estimates of one on the other.", no_args_is_help=True
)

_WIDEST = 200  # characters; in a narrower terminal lines wrap, nothing is cut off

Kind = Annotated[
    str,
    typer.Option(help="Take this kind of hardware, one of 'tilecast hardware list' or of a file, as mine.toml:kind."),
]


@app.command("list")
def list_kinds() -> None:
    """The hardware kinds that ship with Tilecast."""
    from predictors.hardware import shipped_hardware

    rows = [
        (
            name,
            kind.generation or "-",
            *(_scaled(kind.rate(types), 1e12) for types in (("bfloat16", "float16"), ("tf32",), ("float32",))),
            *(_scaled(kind.rate((name,)), 1e12) for name in ("int8", "fp8", "fp4")),
            _scaled(kind.memory_bytes, 1e9),
            _scaled(kind.memory_bytes_per_s, 1e9),
            _scaled(kind.link_bytes_per_s, 1e9),
            _scaled(kind.example_price_per_hour, 1),
        )
        for name, kind in shipped_hardware().items()
    ]
    rates = ("16-bit TFLOP/s", "tf32", "fp32", "int8", "fp8", "fp4")
    _print(("name", "generation", *rates, "memory GB", "GB/s", "link GB/s", "example $/h"), rows, words=2)
    say("Dense peaks of data sheets; prices are examples, not offers. 'tilecast hardware show NAME' has sources.")


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="The kind, one of 'tilecast hardware list' or of a file, as mine.toml:kind.")
    ],
) -> None:
    """Everything known of a hardware kind, and where it is from."""
    from predictors.hardware import find_hardware

    for key, value in find_hardware(name).model_dump().items():
        say(f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}")


@app.command()
def models() -> None:
    """The models whose shapes were counted, at the size and the steps that they are asked for where nobody says."""
    from predictors.shapes import shape_of, shipped_shapes
    from traces.geometry import KNOWN_MODELS
    from traces.sizes import format_size
    from traces.stages import ORDINARY, STAGES

    rows = []
    counted = [(name, known) for name, known in KNOWN_MODELS.items() if known.shape in shipped_shapes()]
    for name, known in counted:
        shape, defaults = shape_of(name), known.defaults
        for stage in ORDINARY:
            of, at = shape.stage(stage), shape.tokens(stage, known.geometry, defaults.size)
            rows.append(
                (
                    name,
                    stage,
                    format_size(defaults.size),
                    str(defaults.steps if STAGES[stage].sampler else 1),
                    str(2 if defaults.guided and STAGES[stage].guided else 1),
                    f"{of.parameters / 1e9:.3f}",
                    f"{of.flops.at(*at) / 1e12:.3g}",
                    f"{of.bytes.at(*at) / 1e9:.3g}",
                    f"{of.launches.at(*at):.0f}",
                    f"{of.peak_bytes.at(*at) / 1e9:.3g}",
                )
            )
    columns = ("model", "stage", "size", "steps", "rows", "G parameters", "TFLOP", "GB moved", "kernels", "peak GB")
    _print(columns, rows, words=3)
    say(
        "size, steps and rows are those of a request where nobody says. "
        "TFLOP, GB moved by operators run one by one and GB held at most, of a row in bfloat16: an image or clip; "
        "guidance has two."
    )


@app.command()
def estimate(
    model: Annotated[str, typer.Option(help="Estimate this model, one of 'tilecast hardware models'.")],
    hardware: Kind,
    sizes: Annotated[
        str | None, typer.Option(help="Estimate these sizes, like 512x512,480x832x81; by default the model's own.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Estimate batches of this many images, like 1,4.")] = "1",
    steps: Annotated[
        int | None, STEPS, typer.Option(help="Give a request this many denoising steps; by default the model's own.")
    ] = None,
    executor: Annotated[str, typer.Option(help="Run batches by this executor: whole, patched or packed.")] = "whole",
    dtype: Annotated[
        str | None, typer.Option(help="Run the denoiser in this precision, such as float16, tf32, fp8 or int8-weights.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Run it by this engine: eager, compile or vendor (TensorRT, OneDiff and the like).")
    ] = "eager",
    profile: Annotated[
        Path | None, typer.Option(help="Calibrate the estimate by this profile, measured on the same hardware.")
    ] = None,
    guided: Annotated[
        bool | None,
        typer.Option(help="Say whether classifier-free guidance or true CFG is on; by default as the model has it."),
    ] = None,
    devices: Annotated[str, typer.Option(help="Run a step on this many devices, like 1,2,4.")] = "1",
) -> None:
    """What a step and a request take on hardware that was not measured, or hardly: by its roofline."""
    from predictors.costs import Batch
    from predictors.estimate import RooflineCost, estimated_table
    from predictors.hardware import find_hardware
    from predictors.memory import footprint, largest_batch
    from predictors.profile import EXECUTORS, Profile
    from predictors.shapes import shape_of
    from tilecast.degrees import degree_notes, on_devices
    from tilecast.latency import trust
    from traces.geometry import model_called
    from traces.sizes import format_size, parse_size_list
    from traces.stages import ORDINARY

    if executor not in EXECUTORS:
        raise BadInput(f"--executor is {executor!r}, expected one of {', '.join(EXECUTORS)}")
    kind, shape, known = find_hardware(hardware), shape_of(model), model_called(model)
    geometry, defaults = known.geometry, known.defaults
    model = geometry.name
    steps = defaults.steps if steps is None else steps
    if guided and geometry.guidance == "never":
        raise BadInput(f"--guided: {model} evaluates no negative prompt")
    guided = defaults.guided if guided is None else guided
    dtype = kind.dtype if dtype is None else dtype
    calibration = None if profile is None else Profile.load(profile)
    table = estimated_table(model, kind, executor, dtype, engine=engine, calibration=calibration)
    denoise = table.costs["denoise"]
    assert isinstance(denoise, RooflineCost)
    asked_sizes = (defaults.size,) if sizes is None else parse_size_list(sizes, "--sizes")
    degrees = _counts(devices, "--devices")
    rows = []
    for size in asked_sizes:
        most = largest_batch(shape, geometry, size, kind.memory_bytes, dtype, guided)
        for images in _counts(batch, "--batch"):
            together, share = ((size, images),), float(guided)
            each = {stage: table.step_s(stage, Batch(table.model, together, share)) for stage in ORDINARY}
            alone = each["encode"] + steps * each["denoise"] + each["decode"]
            needed = footprint(shape, geometry, size, images, dtype, guided).needed_bytes
            rows.append(
                (
                    format_size(size),
                    str(images),
                    *(f"{seconds:.3g}" for seconds in each.values()),
                    f"{alone:.3g}",
                    _interval(table, together, share, steps),
                    denoise.roofline.bound(denoise.roofline.work(together, share)),
                    f"{needed / 1e9:.3g}{'' if images <= most else '!'}",
                    str(most),
                    "yes" if table.extrapolates("denoise", together) else "no",
                )
            )
    times = ("encode s", "step s", "decode s", "total s")
    _print(("size", "batch", *times, "80 % interval", "bound by", "GB", "most", "beyond"), rows, words=1)
    rows_of = "two rows an image" if guided else "one row an image"
    say(f"{model} in {dtype}, {engine}, {steps} steps, {rows_of}, on {kind.name}, {kind.memory_bytes / 1e9:g} GB.")
    say("total: of the batch; bound by: a step; GB: needed, with ! more than there is; most: images that fit;")
    say("beyond: outside the range of the measurements.")
    for note in trust(table, calibration):
        say(note)
    if max(degrees) > 1:
        costs = on_devices(table, max(degrees), geometry=geometry, kind=kind, profile=calibration, engine=engine)
        batches = [((size, images),) for size in asked_sizes for images in _counts(batch, "--batch")]
        _print_degrees(costs, degrees, batches, float(guided), steps)
        for note in degree_notes(costs, model):
            say(note)


@app.command()
def check(
    published: Annotated[
        Path | None,
        typer.Option(
            help="Check against these measurements, with the columns of profiles/published.csv; by "
            "default against those."
        ),
    ] = None,
    by: Annotated[str, typer.Option(help="Break the errors down by these fields.")] = (
        "hardware,model,engine,precision"
    ),
    held_out_half: Annotated[
        bool,
        typer.Option(
            "--held-out-half",
            help="Choose structure and priors of the fit on half of the sources and report on the other, "
            "which takes minutes.",
        ),
    ] = False,
) -> None:
    """How far estimates are from what others measured.

    Of the measurements that ship, to which the efficiencies were fitted, also how far an estimate is that has not seen
    the source, the device, its generation, the model or the class.
    """
    from collections import Counter
    from math import exp

    import numpy as np

    from predictors.degree_fit import as_shipped, assess_degrees, degree_cases
    from predictors.efficiency import shipped_efficiencies
    from predictors.efficiency_fit import (
        LEAST_GROUPS,
        SPLITS,
        ErrorSummary,
        assess,
        cases_of,
        effective_groups,
        estimated_errors,
        reported_class,
    )
    from predictors.published import Published, load_published, shipped_published

    fields = by.split(",")
    if unknown := [field for field in fields if field not in Published.model_fields]:
        raise BadInput(f"--by has {unknown[0]!r}, expected some of {', '.join(Published.model_fields)}")
    if held_out_half and published is not None:
        raise BadInput("--held-out-half is of the measurements that ship, to which the fit was made; leave --published")
    rows = shipped_published() if published is None else load_published(published)
    cases, shared = cases_of(rows), degree_cases(rows)
    for reason, count in Counter(row.skipped for row in rows if row.skipped).most_common():
        say(f"skipped {count}: {reason}")
    if not cases:
        raise BadInput(f"none of {len(rows)} measurements can be compared with an estimate")
    if held_out_half:
        _halves(cases)
        return
    errors, log_sds = estimated_errors(cases, shipped_efficiencies())
    columns, found = ["estimate"], {"estimate": (errors, log_sds)}
    if published is None:
        assessed = assess(cases)
        columns += [f"-{split}" for split in SPLITS]
        found |= {f"-{split}": (assessed.errors[split], assessed.log_sds(split)) for split in SPLITS}
    classes = np.array([reported_class(case) for case in cases])
    lines, unjudged = [], []
    for name in [*np.unique(classes).tolist(), "all"]:
        among = (classes == name) | (name == "all")
        figures = []
        for column in columns:
            each = ErrorSummary.of(found[column][0][among], found[column][1][among])
            covered = f"{100 * each.covered:.0f}"
            if (split := column.removeprefix("-")) in SPLITS and split != "class":
                groups = assessed.groups(split)[among]
                if effective_groups(groups) < LEAST_GROUPS:
                    covered = "-"
                    unjudged.append(f"{name} by {split} ({len(groups)} rows, {_plural(len(set(groups)), split)})")
            figures.append(f"{each.mape:.1f} {each.bias:+.2f} {covered}")
        lines.append((str(name), str(int(among.sum())), *figures))
    _print(("class", "rows", *columns), lines, words=1)
    say("Each: mean absolute error in %; mean of log(estimated / measured); % of rows inside the 80 % interval.")
    if unjudged:
        say(f"- is not judged, because one group has most of the rows: {', '.join(unjudged)}.")
    if published is None:
        say("-device and the like: of an estimate that had none of it. The estimate itself was fitted to these rows.")
    keys = [tuple(str(getattr(case.row, field)) for field in fields) for case in cases]
    shown = columns[:1] if published is not None else ["estimate", "-device", "-model"]
    table = []
    for key in sorted(set(keys)):
        among = np.array([each == key for each in keys])
        summaries = [ErrorSummary.of(found[column][0][among]) for column in shown]
        table.append((*key, str(summaries[0].count), *(f"{each.mape:.1f} {each.bias:+.2f}" for each in summaries)))
    _print((*fields, "rows", *shown), table, words=len(fields))
    if shared and published is not None:
        _print_shared(as_shipped(shared), [case.estimated_s for case in shared], "by what ships")
    elif shared:
        off = {id(case.row): exp(error) for case, error in zip(cases, assessed.errors["source"], strict=True)}
        without_source = [case.one.seconds * off[id(case.one)] for case in shared]
        which = "from the other configurations, one device's seconds from other sources"
        _print_shared(assess_degrees(shared), without_source, which)


def _print_shared(assessed: DegreeAssessment, estimated_s: Sequence[float], which: str) -> None:
    """How far seconds on several devices are from what was measured.

    Args:
        assessed: the measurements.
        estimated_s: of each, on one device.
        which: what the estimates have seen, in words.
    """
    import numpy as np

    from predictors.degree_fit import PAYS
    from predictors.efficiency_fit import ErrorSummary

    measured, predicted = assessed.stops(predicted=False), assessed.stops(predicted=True)
    lines = []
    for configuration in measured:
        own = [place for place, of in enumerate(assessed.configurations) if of == configuration]
        rows = [(assessed.cases[place], float(assessed.errors[place])) for place in own]
        found = [(str(case.row.devices), case.one.seconds / case.row.seconds, error) for case, error in rows]
        speed_ups = (f"{speed_up:.2f}" for _, speed_up, _ in found)
        said = (f"{speed_up * np.exp(-error):.2f}" for _, speed_up, error in found)
        stops = f"{measured[configuration]} {predicted[configuration]}"
        lines.append(
            (*configuration, " ".join(degree for degree, *_ in found), " ".join(speed_ups), " ".join(said), stops)
        )
    heads = ("source", "hardware", "model", "size", "engine", "devices", "speed-up", "predicted", "stops paying")
    _print(heads, lines, words=5)
    log_sds = np.full(len(assessed.cases), assessed.log_sd)
    speed, seconds = (ErrorSummary.of(errors, log_sds) for errors in (-assessed.errors, assessed.errors))
    whole = ErrorSummary.of(assessed.errors_where(estimated_s))
    right = sum([measured[each] == predicted[each] for each in measured])
    say(f"{speed.count} on several devices, {_plural(len(measured), 'configuration')}; predicted {which}:")
    say(f"speed-up: {speed.mape:.1f} % off in the mean, {100 * speed.covered:.0f} % inside the 80 % interval;")
    say(f"seconds: {seconds.mape:.1f} % where those on one device are known, {whole.mape:.1f} % where they are not;")
    say(f"degree where one more saves less than {100 * PAYS:.0f} %: right in {right} of {len(measured)}.")


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _halves(cases: Sequence[PublishedCase]) -> None:
    """What is chosen on half of the sources, and its worth on the other half, both ways."""
    import numpy as np

    from predictors.efficiency_fit import ErrorSummary, reported_class
    from predictors.efficiency_halves import VARIANTS, held_out_halves

    reports = held_out_halves(cases)
    _print(
        ("variant", "first half", "second half"),
        [(name, *(f"{report.scores[name]:.1f}" for report in reports)) for name in VARIANTS],
        words=1,
    )
    say("Mean error in % of devices left out, by either half of the sources alone, each class counted once.")
    lines = []
    for half, report in zip(("second", "first"), reports, strict=True):
        classes = np.array([reported_class(case) for case in report.other])
        for name in [*np.unique(classes).tolist(), "all"]:
            among = (classes == name) | (name == "all")
            shipped, left_out = (ErrorSummary.of(errors[among]) for errors in (report.shipped, report.left_out))
            judged = among & ~np.isnan(report.log_sds)
            alone = ErrorSummary.of(report.alone[among])
            covered = (
                f"{100 * ErrorSummary.of(report.alone[judged], report.log_sds[judged]).covered:.0f}"
                if judged.any()
                else "-"
            )
            figures = (f"{shipped.mape:.1f}", f"{left_out.mape:.1f}", f"{alone.mape:.1f}", covered)
            lines.append((half, name, str(shipped.count), report.chosen, *figures))
    heads = ("half", "class", "rows", "chosen by the other", "as shipped", "as chosen", "other half alone", "in 80 %")
    _print(heads, lines, words=2)
    say("as shipped, as chosen: mean error in % on this half, fitted to both without the device; the last two columns:")
    say("fitted to the other half alone, with intervals learnt there; - where it has nothing of the class.")


def _interval(table: LatencyModel, together: Composition, guided: float, steps: int) -> str:
    """The middle 80 % of what the total may be, should all stages be off alike."""
    from predictors.costs import Batch
    from predictors.efficiency import Z80
    from traces.stages import ORDINARY

    batch, ends = Batch(table.model, together, guided), []
    for z in (-Z80, Z80):
        each = {stage: table.shifted(z).step_s(stage, batch) for stage in ORDINARY}
        ends.append(each["encode"] + steps * each["denoise"] + each["decode"])
    return f"{ends[0]:.3g}-{ends[1]:.3g}"


def _print_degrees(
    costs: ParallelCosts, degrees: Sequence[int], batches: Sequence[Composition], guided: float, steps: int
) -> None:
    """Seconds of a step and of all by the degree."""
    from math import exp, hypot

    from predictors.costs import Batch
    from predictors.efficiency import Z80
    from predictors.latency_model import LatencyModel
    from predictors.parallel import Parallel
    from predictors.paying import paying
    from traces.request import Request
    from traces.sizes import format_size
    from traces.stages import STAGES

    table = costs.table
    assert isinstance(table, LatencyModel)
    (denoise,) = STAGES.named(lambda stage: stage.divides and stage.sampler)
    rows, pays = [], {}
    for height, width, frames in dict.fromkeys([size for ((size, _),) in batches]):
        like = Request("one", 0.0, height, width, steps, frames=frames, model=table.model, guidance_scale=1 + guided)
        for of in paying(costs, like, degrees, dict.fromkeys([images for ((_, images),) in batches])):
            pays[of.size, of.images, of.devices] = of
    for ((size, images),) in batches:
        one = Batch(table.model, ((size, images),), guided, 1)
        one_s = costs.step_s(denoise, one)
        for degree in degrees:
            on = one._replace(devices=degree)
            step_s = costs.step_s(denoise, on)
            off = exp(Z80 * hypot(table.log_sds[denoise], costs.rates.log_sd_of(degree) if degree > 1 else 0.0))
            rows.append(
                (
                    format_size(size),
                    str(images),
                    str(degree) if degree in costs.degrees(table.model) else f"{degree}!",
                    str(Parallel.of(degree, images, bool(guided))) or "-",
                    f"{step_s:.3g}",
                    f"{step_s / off:.3g}-{step_s * off:.3g}",
                    f"{one_s / step_s:.2f}",
                    f"{pays[size, images, degree].latency_s:.3g}",
                    f"{pays[size, images, degree].images_per_s:.3g}",
                    f"{max(degrees) * pays[size, images, degree].images_per_s:.3g}",
                    costs.bound(on) if degree > 1 else "-",
                    pays[size, images, degree].best_for or "-",
                )
            )
    heads = ("size", "batch", "devices", "parallel", "step s", "80 % interval", "speed-up", "total s")
    _print((*heads, "images/s device", "all", "bound by", "best for"), rows, words=1)
    say("Encoding runs on one device, decoding on all where that is faster.")
    say("devices: with ! a degree that heads and guidance rows do not allow; total: of the batch;")
    say(f"images/s: of a device, and of all {max(degrees)} kept busy so; best for: of all rows of the size;")
    say("bound by: what hosts start, what devices compute, or what the link moves.")


def _counts(text: str, option: str) -> list[int]:
    try:
        counts = [int(item) for item in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise BadInput(f"{option} is {text!r}, expected whole numbers of at least 1, like 1,4,8")
    return counts


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.{5 if value >= 1e4 * unit else 4}g}"


def _print(columns: Iterable[str], rows: Sequence[tuple[str, ...]], words: int) -> None:
    """A table; its first ``words`` columns are to the left, the others numbers."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < words else "right")
    for row in rows:
        table.add_row(*row)
    new_console(width=_WIDEST).print(table)
