"""Count the real models and write the table; see the package's docstring."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from backend.devices.bands import Undividable, bands_of
from backend.shapes.counting import Counts, MetaBand, count
from backend.shapes.fitting import fit
from backend.shapes.models import MODELS, Model
from backend.shapes.stages import Shape, StageWork, prompt_numbers
from predictors.polynomial import Polynomial
from predictors.shapes import KINDS
from predictors.shards import BandTraffic
from traces.files import write_document
from traces.geometry import GEOMETRIES, ModelGeometry
from traces.marks import OutputKind
from traces.output import check_file
from traces.stages import STAGES

PICTURES = ((512, 512), (512, 768), (768, 768), (1024, 1024), (1280, 768), (1536, 1536))
"""Heights and widths that are counted of pictures, px."""

CLIPS = (
    *((frames, height, width) for height, width in ((384, 640), (480, 832), (720, 1280)) for frames in (5, 9)),
    (13, 384, 640),
)
"""Latent frames, heights and widths (px) that are counted of clips."""

SHAPES = OutputKind("shapes")

_HEADER = """\
# What models compute and move, counted by 'python -m backend.shapes'. Do not edit.
# torch {torch}, diffusers {diffusers}, transformers {transformers}; bfloat16.
#
# flops, padding, bytes and peak_bytes are of one row of a batch (an image or clip; guidance has two), launches of a
# forward. padding is what fused attention computes beside flops, because it rounds the width of a head up. bytes are
# read and written by operators run one by one, parameters left out; peak_bytes is the most that activations hold at
# once. Each is a polynomial in the tokens of a frame (area), the frames, and their product (tokens); errors above one
# in a million are said. The parameters of a kind of operators are those that it reads in a forward. sequence is what
# can be shared by cutting the tokens of a row: layers that attend over all of them, and what these read and write.
# bands are what devices exchange that each decode some rows of a picture; the area of edge_bytes is the latent pixels
# of one row.
"""


def main() -> None:
    """Count everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="the table to write (TOML)")
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    asked = parser.parse_args()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    names = asked.models.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        parser.error(f"unknown model {unknown[0]!r}; known: {', '.join(MODELS)}")
    check_file(asked.output, SHAPES)
    counted = _Counted()
    text = "\n".join([_header(), *(_spell_model(name, MODELS[name], counted) for name in names)])
    write_document(SHAPES.comment(text, ".toml"), asked.output, SHAPES)


def count_stage(stage: StageWork, modules: list[torch.nn.Module], rows: int, shape: Shape) -> Counts:
    """What ``rows`` rows of one latent shape take."""

    def run() -> None:
        with torch.device("meta"):
            stage.run(modules, rows, shape)

    return count(run, modules)


def count_bands(stage: StageWork, modules: list[torch.nn.Module], shape: Shape) -> BandTraffic:
    """What a device sends that decodes the upper half of one row of this latent shape, and another the lower.

    ``key_bytes`` are of the whole picture, and ``given_bytes`` not counted.

    Raises:
        Undividable: devices cannot share it.
    """
    frames, height, width = shape
    rows = bands_of(height, 2)
    with torch.no_grad(), torch.device("meta"), MetaBand(rows) as band:
        stage.run(modules[:1], 1, (frames, rows[0], width))
    return BandTraffic(
        edge_bytes=band.sent["edges"],
        moment_bytes=band.sent["moments"],
        key_bytes=band.sent["keys"] * height / rows[0],
        given_bytes=0.0,
        exchanges=band.exchanges,
    )


def build(stage: StageWork) -> list[torch.nn.Module]:
    """The stage's networks on the meta device, in bfloat16."""
    return _on_meta(stage.modules)


def _on_meta(make: Callable[[], Sequence[Any]]) -> list[torch.nn.Module]:
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return [module.eval() for module in make()]
    finally:
        torch.set_default_dtype(torch.float32)


def _spell_model(name: str, model: Model, counted: _Counted) -> str:
    lines = [
        f'["{name}"]',
        f'source = "{model.source}"',
        f"guidance_rows = {model.guidance_rows}",
        f"frame_patch = {model.frame_patch}",
        *(["upcasts = true"] if model.upcasts else []),
        f"prompt_numbers = {_prompt_numbers(name, model)}",
        "",
    ]
    for title, stage in model.stages.items():
        print(f"{name} {title}", file=sys.stderr, flush=True)
        modules, table = build(stage), f'"{name}".{title}'
        held = [*modules, *_on_meta(stage.held)]
        lines += [f"[{table}]", f"parameters = {sum(p.numel() for module in held for p in module.parameters())}"]
        notes = [note] if (note := model.notes.get(title)) else []
        if stage.tiles is not None:
            tile, apart = ("x".join(map(str, shape)) for shape in stage.tiles)
            notes = [f"one clip after another in tiles of {tile} latent pixels, {apart} apart", *notes]
        lines += [f'note = "{"; ".join(notes)}"'] if notes else []
        if stage.tiles is not None:
            lines += _spell_tiles(table, GEOMETRIES[name], stage, modules)
        else:
            lines += _spell_counts(table, _sizes(name, title), stage, modules, counted)
    return "\n".join(lines)


def _prompt_numbers(name: str, model: Model) -> int:
    ((title, denoiser),) = [each for each in model.stages.items() if STAGES[each[0]].by_executor]
    return prompt_numbers(denoiser, build(denoiser)[0], _sizes(name, title).shapes[:2])


class _Counted:
    """Counts of stages that several models share."""

    def __init__(self) -> None:
        self._counts: dict[tuple[StageWork, int, Shape], Counts] = {}

    def of(self, stage: StageWork, modules: list[torch.nn.Module], rows: int, shape: Shape) -> Counts:
        """See `count_stage`."""
        key = (stage, rows, shape)
        if key not in self._counts:
            self._counts[key] = count_stage(stage, modules, rows, shape)
        return self._counts[key]


@dataclass(frozen=True)
class _Sizes:
    """What is counted of a stage: latent shapes, the tokens of a frame and the frames of each. Text has one."""

    shapes: Sequence[Shape]
    areas: Sequence[int]
    frames: Sequence[int]

    def fit(self, counts: Sequence[float]) -> tuple[Polynomial, float]:
        """The polynomial of a quantity that was counted so, and its largest relative error."""
        if not any(counts):
            return Polynomial(), 0.0
        if len(counts) == 1:
            return Polynomial(constant=counts[0]), 0.0
        return fit(self.areas, self.frames, counts)


def _sizes(name: str, title: str) -> _Sizes:
    model, geometry, network = MODELS[name], GEOMETRIES[name], STAGES[title].network
    patch, frame_patch = geometry.patch, model.frame_patch if network == "denoiser" else 1
    sizes = CLIPS if model.video else [(model.frames, height, width) for height, width in PICTURES]
    if network == "text":
        sizes = sizes[:1]
    token = geometry.latent_factor * patch
    shapes = [
        (-(-frames // frame_patch) * frame_patch, height // token * patch, width // token * patch)
        for frames, height, width in sizes
    ]  # as pipelines pad
    areas = [height // patch * (width // patch) for _, height, width in shapes]
    return _Sizes(shapes, areas, [frames // frame_patch for frames, *_ in shapes])


def _spell_counts(
    table: str, sizes: _Sizes, stage: StageWork, modules: list[torch.nn.Module], counted: _Counted
) -> list[str]:
    one = [counted.of(stage, modules, 1, shape) for shape in sizes.shapes]
    two = [counted.of(stage, modules, 2, shape) for shape in sizes.shapes]
    lines = [
        _spell("launches", *sizes.fit([pair.launches for pair in two])),
        _spell(
            "peak_bytes",
            *sizes.fit([pair.peak_bytes - single.peak_bytes for single, pair in zip(one, two, strict=True)]),
        ),
        "",
    ]
    for kind in KINDS:
        singles, pairs = [counts.kinds[kind] for counts in one], [counts.kinds[kind] for counts in two]
        flops = sizes.fit([pair.flops / 2 for pair in pairs])
        moved = sizes.fit([pair.bytes - single.bytes for single, pair in zip(singles, pairs, strict=True)])
        padding = sizes.fit([pair.padding / 2 for pair in pairs])
        lines += _spell_kind(table, kind, pairs[0].parameters, {"flops": flops, "padding": padding, "bytes": moved})
    row = STAGES[table.rpartition(".")[2]]
    if row.by_executor:
        lines += _spell_sequence(table, sizes, modules, one)
    if row.finishes:
        lines += _spell_bands(table, sizes, stage, modules)
    return lines


def _spell_bands(table: str, sizes: _Sizes, stage: StageWork, modules: list[torch.nn.Module]) -> list[str]:
    """What two devices send each other that decode together; nothing where they cannot."""
    try:
        found = [count_bands(stage, modules, shape) for shape in sizes.shapes]
    except Undividable as error:
        print(f"{table} is not divided: {error}", file=sys.stderr, flush=True)
        return []
    widths = replace(sizes, areas=[width for *_, width in sizes.shapes])
    spelled = [
        _spell("exchanges", *sizes.fit([band.exchanges for band in found])),
        _spell("edge_bytes", *widths.fit([band.edge_bytes for band in found])),
        _spell("moment_bytes", *sizes.fit([band.moment_bytes for band in found])),
        _spell("key_bytes", *sizes.fit([band.key_bytes for band in found])),
    ]
    return [f"[{table}.bands]", *[line for line in spelled if not line.endswith("{  }")], ""]


def _spell_sequence(table: str, sizes: _Sizes, modules: list[torch.nn.Module], counts: Sequence[Counts]) -> list[str]:
    """What attends over all tokens of a row; nothing where nothing does, or other operators mix tokens, too."""
    if any(isinstance(module, UNet2DConditionModel) for module in modules):
        return []
    layers, heads, moved = [], set(), []
    for of, area, frames in zip(counts, sizes.areas, sizes.frames, strict=True):
        over_all = {call: times for call, times in of.attended.items() if min(call[:2]) >= area * frames}
        layers.append(sum(over_all.values()))
        heads |= {heads for _, _, heads, _ in over_all}
        moved.append(sum([times * bytes_ for (*_, bytes_), times in over_all.items()]))
    if not all(layers):
        return []
    assert len(set(layers)) == len(heads) == 1, (layers, heads)
    spelled = [f"layers = {layers[0]}", f"heads = {heads.pop()}"]
    return [f"[{table}.sequence]", *spelled, _spell("bytes", *sizes.fit(moved)), ""]


def _spell_tiles(table: str, geometry: ModelGeometry, stage: StageWork, modules: list[torch.nn.Module]) -> list[str]:
    """What tiles take as if they filled the clip: each does the work of the tokens by which it lies from the next; the
    decoded clip is held beside one tile.
    """
    assert stage.tiles is not None
    tile, apart = stage.tiles
    counts = count_stage(stage, modules, 1, tile)
    tokens = math.prod(apart) / geometry.patch**2
    clip = 2 * 3 * geometry.frame_factor * (geometry.latent_factor * geometry.patch) ** 2
    lines = [
        _spell("launches", Polynomial(tokens=counts.launches / tokens)),
        _spell("peak_bytes", Polynomial(constant=counts.peak_bytes, tokens=clip)),
        "",
    ]
    for kind, found in counts.kinds.items():
        each = {"flops": found.flops, "padding": found.padding, "bytes": found.bytes}
        polynomials = {name: (Polynomial(tokens=value / tokens), 0.0) for name, value in each.items()}
        lines += _spell_kind(table, kind, found.parameters, polynomials)
    return lines


def _spell_kind(
    table: str, kind: str, parameters: int, quantities: Mapping[str, tuple[Polynomial, float]]
) -> list[str]:
    """The table of one kind of operators; nothing where there are none."""
    spelled = [f"parameters = {parameters}"] if parameters else []
    spelled += [_spell(name, *found) for name, found in quantities.items() if found[0] != Polynomial()]
    return [f"[{table}.{kind}]", *spelled, ""] if spelled else []


def _spell(quantity: str, polynomial: Polynomial, error: float = 0.0) -> str:
    terms = ", ".join(f"{term} = {value!r}" for term, value in polynomial.model_dump(exclude_defaults=True).items())
    remark = f"  # within {100 * error:.2g} %" if error > 1e-6 else ""
    return f"{quantity} = {{ {terms} }}{remark}"


def _header() -> str:
    import diffusers
    import transformers

    return _HEADER.format(
        torch=torch.__version__.partition("+")[0],
        diffusers=diffusers.__version__,
        transformers=transformers.__version__,
    )


if __name__ == "__main__":
    main()
