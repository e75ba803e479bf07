"""``tilecast hardware``: what devices can do, what models ask of them, and an estimate of one on the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli.verbs import Verbs
from reports.console import new_console, say
from traces.errors import BadInput
from traces.limits import STEPS

app = Verbs(
    name="hardware", help="Hardware kinds, models' shapes, and estimates of one on the other.", no_args_is_help=True
)

_WIDEST = 200  # characters; in a narrower terminal lines wrap, nothing is cut off

Kind = Annotated[str, typer.Option(help="A kind of 'tilecast hardware list', or of a file: mine.toml, mine.toml:kind.")]


@app.command("list")
def list_kinds() -> None:
    """The hardware kinds that ship with Tilecast."""
    from predictors.hardware import shipped_hardware

    rows = [
        (
            name,
            *(_scaled(rate, 1e12) for rate in (kind.bfloat16_flops, kind.float32_flops)),
            _scaled(kind.memory_bytes, 1e9),
            _scaled(kind.memory_bytes_per_s, 1e9),
            _scaled(kind.link_bytes_per_s, 1e9),
            _scaled(kind.example_price_per_hour, 1),
        )
        for name, kind in shipped_hardware().items()
    ]
    _print(("name", "bf16 TFLOP/s", "fp32 TFLOP/s", "memory GB", "GB/s", "link GB/s", "example $/h"), rows, words=1)
    say("Dense peaks of data sheets; prices are examples, not offers. 'tilecast hardware show NAME' has sources.")


@app.command()
def show(name: Annotated[str, typer.Argument(help="A kind, or a file's: mine.toml:kind.")]) -> None:
    """Everything known of a hardware kind, and where it is from."""
    from predictors.hardware import find_hardware

    for key, value in find_hardware(name).model_dump().items():
        say(f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}")


@app.command()
def models() -> None:
    """The models whose shapes were counted, at their native size and, clips, 81 frames."""
    from predictors.shapes import shipped_shapes
    from traces.geometry import geometry_of
    from traces.sizes import format_size

    rows = []
    for name, shape in shipped_shapes().items():
        geometry = geometry_of(name)
        size = (*geometry.native_size, 81 if geometry.frame_factor > 1 else 1)
        for stage in ("encode", "denoise", "decode"):
            of, at = shape.stage(stage), shape.tokens(stage, geometry, size)
            rows.append(
                (
                    name,
                    stage,
                    format_size(size),
                    f"{of.parameters / 1e9:.3f}",
                    f"{of.flops.at(*at) / 1e12:.3g}",
                    f"{of.bytes.at(*at) / 1e9:.3g}",
                    f"{of.launches.at(*at):.0f}",
                    f"{of.peak_bytes.at(*at) / 1e9:.3g}",
                )
            )
    columns = ("model", "stage", "size", "G parameters", "TFLOP", "GB moved", "kernels", "peak GB")
    _print(columns, rows, words=3)
    say(
        "TFLOP, GB moved by operators run one by one and GB held at most, of a row in bfloat16: an image or clip; "
        "guidance has two."
    )


@app.command()
def estimate(
    model: Annotated[str, typer.Option(help="A model of 'tilecast hardware models'.")],
    hardware: Kind,
    sizes: Annotated[str, typer.Option(help="Comma-separated, such as 512x512,480x832x81.")],
    batch: Annotated[str, typer.Option(help="Images of a batch, comma-separated.")] = "1",
    steps: Annotated[int, STEPS, typer.Option(help="Denoising steps of a request.")] = 50,
    executor: Annotated[str, typer.Option(help="whole, patched or packed.")] = "whole",
    dtype: Annotated[
        str | None, typer.Option(help="Precision of the denoiser, such as float16, tf32, fp8 or int8-weights.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="What runs it: eager, compile or vendor (TensorRT, OneDiff, ...).")
    ] = "eager",
    profile: Annotated[Path | None, typer.Option(help="Measurements on this hardware that calibrate it.")] = None,
    guided: Annotated[bool, typer.Option(help="With classifier-free guidance.")] = True,
) -> None:
    """What a step and a request take on hardware that was not measured, or hardly: by its roofline."""
    from predictors.costs import Batch
    from predictors.estimate import RooflineCost, estimated_table
    from predictors.hardware import find_hardware
    from predictors.memory import footprint, largest_batch
    from predictors.profile import EXECUTORS, Profile
    from predictors.shapes import shape_of
    from tilecast.latency import trust
    from traces.geometry import geometry_of
    from traces.sizes import format_size, parse_size_list
    from traces.stages import ORDINARY

    if executor not in EXECUTORS:
        raise BadInput(f"--executor is {executor!r}, expected one of {', '.join(EXECUTORS)}")
    kind, shape, geometry = find_hardware(hardware), shape_of(model), geometry_of(model)
    dtype = kind.dtype if dtype is None else dtype
    calibration = None if profile is None else Profile.load(profile)
    table = estimated_table(model, kind, executor, dtype, engine=engine, calibration=calibration)
    denoise = table.costs["denoise"]
    assert isinstance(denoise, RooflineCost)
    rows = []
    for size in parse_size_list(sizes, "--sizes"):
        most = largest_batch(shape, geometry, size, kind.memory_bytes, dtype, guided)
        for images in _counts(batch):
            together, share = ((size, images),), float(guided and geometry.guidance == "scale")
            each = {stage: table.step_s(stage, Batch(table.model, together, share)) for stage in ORDINARY}
            alone = each["encode"] + steps * each["denoise"] + each["decode"]
            needed = footprint(shape, geometry, size, images, dtype, guided).needed_bytes
            rows.append(
                (
                    format_size(size),
                    str(images),
                    *(f"{seconds:.3g}" for seconds in each.values()),
                    f"{alone:.3g}",
                    denoise.roofline.bound(denoise.roofline.work(together, share)),
                    f"{needed / 1e9:.3g}{'' if images <= most else '!'}",
                    str(most),
                    "yes" if table.extrapolates("denoise", together) else "no",
                )
            )
    times = ("encode s", "step s", "decode s", "total s")
    _print(("size", "batch", *times, "bound by", "GB", "most", "beyond"), rows, words=1)
    say(f"{model} in {dtype}, {steps} steps, on {kind.name}, {kind.memory_bytes / 1e9:g} GB.")
    say("total: of the batch; bound by: a step; GB: needed, with ! more than there is; most: images that fit;")
    say("beyond: outside the range of the measurements.")
    for note in trust(table, calibration):
        say(note)


def _counts(text: str) -> list[int]:
    try:
        counts = [int(item) for item in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise BadInput(f"--batch is {text!r}, expected whole numbers of at least 1, like 1,4,8")
    return counts


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.4g}"


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
