"""Count the real models and write the table; see the package's docstring."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from backend.shapes.counting import Counts, count
from backend.shapes.fitting import fit
from backend.shapes.models import MODELS, Model, Shape, Stage
from predictors.polynomial import Polynomial
from traces.atomic import whole_file
from traces.geometry import GEOMETRIES

PICTURES: tuple[Shape, ...] = ((1, 64, 64), (1, 64, 96), (1, 96, 96), (1, 128, 128), (1, 160, 96), (1, 192, 192))
CLIPS: tuple[Shape, ...] = (
    *((frames, height, width) for height, width in ((48, 80), (60, 104), (90, 160)) for frames in (5, 9)),
    (13, 48, 80),
)
"""Latent shapes that are counted."""

ACTIVATION_QUANTITIES = ("flops", "bytes", "launches", "peak_bytes")
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
    text = "\n".join([_header(), *(_spell_model(name, MODELS[name]) for name in names)])
    with whole_file(asked.output) as temporary:
        temporary.write_text(text)


def count_stage(stage: Stage, modules: list[torch.nn.Module], rows: int, shape: Shape) -> Counts:
    """What ``rows`` rows of one latent shape take."""

    def run() -> None:
        with torch.device("meta"):
            stage.run(modules, rows, shape)

    return count(run)


def build(stage: Stage) -> list[torch.nn.Module]:
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
        if stage.note:
            lines.append(f'note = "{stage.note}"')
        lines += _spell_counts(name, model, title, stage, modules)
        lines.append("")
    return "\n".join(lines)


def _spell_counts(name: str, model: Model, title: str, stage: Stage, modules: list[torch.nn.Module]) -> list[str]:
    patch, frame_patch = GEOMETRIES[name].patch, model.frame_patch if title == "denoise" else 1
    shapes = CLIPS if model.video else PICTURES
    shapes = tuple(
        (-(-frames // frame_patch) * frame_patch, height, width) for frames, height, width in shapes
    )  # as pipelines pad
    if title == "encode":
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
    for quantity in ACTIVATION_QUANTITIES:
        polynomial, error = (
            (Polynomial(constant=per_row[quantity][0]), 0.0)
            if title == "encode"
            else fit(areas, frames, per_row[quantity])
        )
        terms = ", ".join(f"{term} = {value!r}" for term, value in polynomial.model_dump(exclude_defaults=True).items())
        remark = f"  # within {100 * error:.2g} %" if error > 1e-6 else ""
        lines.append(f"{quantity} = {{ {terms} }}{remark}")
    return lines


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
