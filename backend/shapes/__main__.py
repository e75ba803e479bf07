"""Count the real models and write the table; see the package's docstring."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.shapes.counting import Counts, count
from backend.shapes.fitting import fit
from backend.shapes.models import MODELS, Model
from backend.shapes.stages import Shape, StageWork
from predictors.polynomial import Polynomial
from predictors.shapes import KINDS
from traces.files import write_document
from traces.geometry import GEOMETRIES, ModelGeometry
from traces.marks import OutputKind
from traces.output import check_file
from traces.stages import STAGES

PICTURES: tuple[Shape, ...] = ((1, 64, 64), (1, 64, 96), (1, 96, 96), (1, 128, 128), (1, 160, 96), (1, 192, 192))
CLIPS: tuple[Shape, ...] = (
    *((frames, height, width) for height, width in ((48, 80), (60, 104), (90, 160)) for frames in (5, 9)),
    (13, 48, 80),
)
"""Latent shapes that are counted."""

SHAPES = OutputKind("shapes")

_HEADER = """\
# What models compute and move, counted by 'python -m backend.shapes'. Do not edit.
# torch {torch}, diffusers {diffusers}, transformers {transformers}; bfloat16.
#
# flops, bytes and peak_bytes are of one row of a batch (an image or clip; guidance has two), launches of a forward.
# bytes are read and written by operators run one by one, parameters left out; peak_bytes is the most that activations
# hold at once. Each is a polynomial in the tokens of a frame (area), the frames, and their product (tokens); errors
# above one in a million are said. The parameters of a kind of operators are those that it reads in a forward.
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
    text = "\n".join([_header(), *(_spell_model(name, MODELS[name]) for name in names)])
    write_document(SHAPES.comment(text, ".toml"), asked.output, SHAPES)


def count_stage(stage: StageWork, modules: list[torch.nn.Module], rows: int, shape: Shape) -> Counts:
    """What ``rows`` rows of one latent shape take."""

    def run() -> None:
        with torch.device("meta"):
            stage.run(modules, rows, shape)

    return count(run, modules)


def build(stage: StageWork) -> list[torch.nn.Module]:
    """The stage's networks on the meta device, in bfloat16."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return [module.eval() for module in stage.modules()]
    finally:
        torch.set_default_dtype(torch.float32)


def _spell_model(name: str, model: Model) -> str:
    lines = [
        f'["{name}"]',
        f'source = "{model.source}"',
        f"guidance_rows = {model.guidance_rows}",
        f"frame_patch = {model.frame_patch}",
        *(["upcasts = true"] if model.upcasts else []),
        "",
    ]
    for title, stage in model.stages.items():
        print(f"{name} {title}", file=sys.stderr, flush=True)
        modules = build(stage)
        table = f'"{name}".{title}'
        lines += [f"[{table}]", f"parameters = {sum(p.numel() for module in modules for p in module.parameters())}"]
        if stage.tiles is not None:
            tile, apart = ("x".join(map(str, shape)) for shape in stage.tiles)
            lines.append(f'note = "one clip after another in tiles of {tile} latent pixels, {apart} apart"')
            lines += _spell_tiles(table, GEOMETRIES[name], stage, modules)
        else:
            lines += _spell_counts(table, _sizes(name, title), stage, modules)
    return "\n".join(lines)


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
    model, network = MODELS[name], STAGES[title].network
    patch, frame_patch = GEOMETRIES[name].patch, model.frame_patch if network == "denoiser" else 1
    shapes = CLIPS if model.video else PICTURES
    shapes = tuple(
        (-(-frames // frame_patch) * frame_patch, height, width) for frames, height, width in shapes
    )  # as pipelines pad
    if network == "text":
        shapes = shapes[:1]
    areas = [height // patch * (width // patch) for _, height, width in shapes]
    return _Sizes(shapes, areas, [frames // frame_patch for frames, *_ in shapes])


def _spell_counts(table: str, sizes: _Sizes, stage: StageWork, modules: list[torch.nn.Module]) -> list[str]:
    one = [count_stage(stage, modules, 1, shape) for shape in sizes.shapes]
    two = [count_stage(stage, modules, 2, shape) for shape in sizes.shapes]
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
        lines += _spell_kind(table, kind, pairs[0].parameters, flops, moved)
    return lines


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
        flops, moved = ((Polynomial(tokens=each / tokens), 0.0) for each in (found.flops, found.bytes))
        lines += _spell_kind(table, kind, found.parameters, flops, moved)
    return lines


def _spell_kind(
    table: str, kind: str, parameters: int, flops: tuple[Polynomial, float], moved: tuple[Polynomial, float]
) -> list[str]:
    """The table of one kind of operators; nothing where there are none."""
    spelled = [f"parameters = {parameters}"] if parameters else []
    spelled += [
        _spell(name, *found) for name, found in (("flops", flops), ("bytes", moved)) if found[0] != Polynomial()
    ]
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
