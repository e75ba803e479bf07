"""Count the real models and write the table; see the package's docstring."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from pathlib import Path

import torch

from backend.shapes.counting import Counts, count
from backend.shapes.fitting import fit
from backend.shapes.models import MODELS, Model
from backend.shapes.stages import Shape, StageWork
from predictors.polynomial import Polynomial
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

QUANTITIES = ("flops", "bytes", "launches", "peak_bytes")
_HEADER = """\
# What models compute and move, counted by 'python -m backend.shapes'. Do not edit.
# torch {torch}, diffusers {diffusers}, transformers {transformers}; bfloat16.
#
# flops, bytes and peak_bytes are of one row of a batch (an image or clip; guidance has two), launches of a forward.
# bytes are read and written by operators run one by one, parameters left out; peak_bytes is the most that activations
# hold at once. Each is a polynomial in the tokens of a frame (area), the frames, and their product (tokens); errors
# above one in a million are said.
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

    return count(run)


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
        "",
    ]
    for title, stage in model.stages.items():
        print(f"{name} {title}", file=sys.stderr, flush=True)
        modules = build(stage)
        parameters = sum(p.numel() for module in modules for p in module.parameters())
        lines += [f'["{name}".{title}]', f"parameters = {parameters}"]
        if stage.tiles is not None:
            tile, apart = ("x".join(map(str, shape)) for shape in stage.tiles)
            lines.append(f'note = "one clip after another in tiles of {tile} latent pixels, {apart} apart"')
            lines += _spell_tiles(GEOMETRIES[name], stage, modules)
        else:
            lines += _spell_counts(name, model, title, stage, modules)
        lines.append("")
    return "\n".join(lines)


def _spell_counts(name: str, model: Model, title: str, stage: StageWork, modules: list[torch.nn.Module]) -> list[str]:
    patch, frame_patch = GEOMETRIES[name].patch, model.frame_patch if STAGES[title].network == "denoiser" else 1
    shapes = CLIPS if model.video else PICTURES
    shapes = tuple(
        (-(-frames // frame_patch) * frame_patch, height, width) for frames, height, width in shapes
    )  # as pipelines pad
    if STAGES[title].network == "text":
        shapes = shapes[:1]
    one = [count_stage(stage, modules, 1, shape) for shape in shapes]
    two = [count_stage(stage, modules, 2, shape) for shape in shapes]
    per_row = {
        "flops": [pair.flops / 2 for pair in two],
        "bytes": [pair.bytes - single.bytes for single, pair in zip(one, two, strict=True)],
        "launches": [pair.launches for pair in two],
        "peak_bytes": [pair.peak_bytes - single.peak_bytes for single, pair in zip(one, two, strict=True)],
    }
    areas = [height // patch * (width // patch) for _, height, width in shapes]
    frames = [count // frame_patch for count, *_ in shapes]
    lines = []
    for quantity in QUANTITIES:
        if STAGES[title].network == "text":
            lines.append(_spell(quantity, Polynomial(constant=per_row[quantity][0])))
        else:
            lines.append(_spell(quantity, *fit(areas, frames, per_row[quantity])))
    return lines


def _spell_tiles(geometry: ModelGeometry, stage: StageWork, modules: list[torch.nn.Module]) -> list[str]:
    """What tiles take as if they filled the clip: each does the work of the tokens by which it lies from the next; the
    decoded clip is held beside one tile.
    """
    assert stage.tiles is not None
    tile, apart = stage.tiles
    counts = count_stage(stage, modules, 1, tile)
    tokens = math.prod(apart) / geometry.patch**2
    clip = 2 * 3 * geometry.frame_factor * (geometry.latent_factor * geometry.patch) ** 2
    return [
        *(_spell(name, Polynomial(tokens=getattr(counts, name) / tokens)) for name in QUANTITIES[:-1]),
        _spell("peak_bytes", Polynomial(constant=counts.peak_bytes, tokens=clip)),
    ]


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
