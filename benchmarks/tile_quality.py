"""What refining by tiles does to pictures and clips: requests of four times a model's native area.

    python -m benchmarks.tile_quality [--model tiny-image | tiny-video] [--prompts 8] [-o out/tile_quality]

Every variant refines the same sketches of held-out prompts from the same noise. In each part one or two options vary
and the others stay at the middle: `--refine`, clamped grids, windows that reach `--overlap` beyond their cores,
movement by 1/16 of a tile a step, native tiles, local positions. Prints a table a part, means over prompts with the
worst in brackets, and writes all figures and a sheet of pictures, a row a variant.

PSNR and SSIM compare with the enlarged sketch: they say how much of it is kept, and fall a little for each detail that
is added. Sharpness says whether anything is added; objects and the model's own judge say whether it is the right thing.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from backend.clips import clip_strip
from backend.pictures import picture_grid, write_picture
from backend.tiled.adapter import Adapter
from backend.tiled.pixels import enlarged
from backend.tiled.refiner import Refiner
from benchmarks.outputs import BENCHMARK, write_csv
from policies.tiling.recipe import TiledShape
from policies.tiling.shifts import STRIDE_SHARE
from reports.quality import Borders, measure
from reports.quality.edges import STRIPS
from reports.quality.fidelity import psnr_db
from reports.quality.frames import shrunk
from reports.quality.seams import seam_energy
from tools.tiny_models import (
    clip_reader,
    measure_image,
    measure_video,
    moving_scenes,
    scene_reader,
    tiny_image,
    tiny_video,
)
from tools.tiny_models.moving_scenes import MovingScene
from tools.tiny_models.scenes import Scene
from traces.geometry import GEOMETRIES
from traces.request import Request

Frames = npt.NDArray[np.float32]
"""[frames, height, width, 3] in 0..1; a picture has one frame."""

PROMPTS = {"tiny-image": 8, "tiny-video": 3}
"""Of each model by default, for a run of five minutes on one core."""
SHARES = (0.1, 0.15, 0.25, 0.5, 0.9)
SHOWN_FRAMES = 3
"""Of a clip on the sheet."""


@dataclass(frozen=True, order=True)
class Variant:
    """One way to refine.

    Attributes:
        refine: see `policies.tiling.recipe.TilingRule`, as for ``overlap`` (pixels), ``mode`` and ``stride``.
        grid: tiles down, and as many across; 0: the fewest of the native size.
        positions: see `backend.tiled.adapter`.
    """

    refine: float
    overlap: int
    mode: str = "clamp"
    stride: float = STRIDE_SHARE
    grid: int = 0
    positions: str = "local"

    def __str__(self) -> str:
        grid = f"{self.grid}x{self.grid}" if self.grid else "native"
        return (
            f"refine {self.refine:g}, {self.mode}, overlap {self.overlap}, stride {self.stride:g}, {grid} tiles, "
            f"{self.positions}"
        )


class Part(NamedTuple):
    """A question: the options that vary, the variants, and the figures that answer it."""

    options: tuple[str, ...]
    variants: tuple[Variant, ...]
    figures: tuple[str, ...]


class Figure(NamedTuple):
    """How a figure is shown: heading, digits after the point, and what the worst of several is."""

    label: str
    digits: int
    worst: Any = max


FIGURES = {
    "objects_off": Figure("objects off", 1),
    "right": Figure("right", 2, None),
    "psnr_db": Figure("PSNR", 1, min),
    "ssim": Figure("SSIM", 3, min),
    "sharpness": Figure("sharpness", 2, min),
    "seam_energy": Figure("seams", 2),
    "sketch_seam_energy": Figure("sketch's", 2),
    "edge_leak": Figure("edge leak", 2),
    "ring_db": Figure("ring PSNR", 1, min),
    "flicker": Figure("flicker", 3),
    "work": Figure("work", 2, None),
    "tiles": Figure("tiles", 0, None),
    "seconds": Figure("seconds", 2, None),
}
"""``objects_off``: objects more or fewer than in the sketch. ``right``: share of the judge's verdicts that are yes.
``sharpness``: `acutance` over that of the enlarged sketch. ``seam_energy``: at the borders of the last step, beside the
enlarged sketch's at the same lines. ``ring_db``: PSNR of the outermost 1/16 on each side. ``work``: latent pixels
of a step's windows over those of the canvas, the mean. ``tiles`` and CPU ``seconds``: of the whole refinement."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/tile_quality"))
    parser.add_argument("--model", choices=PROMPTS, default="tiny-image")
    parser.add_argument("--prompts", type=int, help="by default 8 pictures or 3 clips")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--refine", type=float, default=0.25, help="where the share does not vary")
    parser.add_argument("--overlap", type=int, default=None, help="where it does not vary, px; a quarter of a tile")
    parser.add_argument("--shown", type=int, default=4, help="prompts on the sheet")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    trial = Refiner(arguments.model)
    overlap = min(GEOMETRIES[arguments.model].native_size) // 4 if arguments.overlap is None else arguments.overlap
    asked = requests(arguments.model, arguments.prompts or PROMPTS[arguments.model], arguments.steps)
    study = parts(Variant(arguments.refine, overlap), trial.adapter.modes, asked[0].frames > 1)
    variants = tuple(dict.fromkeys(variant for part in study.values() for variant in part.variants))
    runs, pictures = refine_all(trial, asked, variants, arguments.shown)
    write_csv(runs, arguments.output / "tile_quality.csv")
    write_picture(sheet(pictures, asked[: arguments.shown]), arguments.output / "tile_quality.png", BENCHMARK)
    height, width, _ = asked[0].size
    print(f"{arguments.model}, {height}x{width}, {arguments.steps} steps, {len(asked)} prompts: means (worst)")
    for title, part in study.items():
        Console(width=160).print(table(runs, title, part))
    print(f"wrote {arguments.output / 'tile_quality.csv'} and {arguments.output / 'tile_quality.png'}")


def parts(base: Variant, positions: Sequence[str], clips: bool) -> dict[str, Part]:
    """The study around one variant."""
    far, step = (0, base.overlap), base.overlap // 2
    kept = ("objects_off", "right", "psnr_db", "ssim", "sharpness")
    flicker = ("flicker",) if clips else ()

    def every(**options: Sequence[Any]) -> tuple[Variant, ...]:
        variants = [base]
        for name, values in options.items():
            variants = [replace(variant, **{name: value}) for variant in variants for value in values]
        return tuple(variants)

    return {
        "Share of the steps that is repeated": Part(
            ("overlap", "refine"), every(overlap=far, refine=SHARES), (*kept, *flicker, "work", "seconds")
        ),
        "Across the edges or not": Part(
            ("overlap", "mode"),
            every(overlap=far, mode=("wrap", "clamp")),
            ("edge_leak", "ring_db", *kept, "work", "tiles", "seconds"),
        ),
        "Grids that stand or move, windows that reach beyond": Part(
            ("stride", "overlap"),
            every(stride=(0.0, STRIDE_SHARE, 4 * STRIDE_SHARE), overlap=(0, step, base.overlap)),
            ("seam_energy", "sketch_seam_energy", *kept, *flicker, "work"),
        ),
        "Positions": Part(("positions",), every(positions=positions), (*kept, "seam_energy", *flicker)),
        "Smaller tiles, and the whole canvas at once": Part(
            ("overlap", "grid"),
            (replace(base, grid=1, overlap=0, stride=0.0), *every(overlap=far, grid=(0, 3, 4))),
            ("seam_energy", *kept, *flicker, "work", "tiles", "seconds"),
        ),
    }


def requests(model: str, count: int, steps: int) -> list[Request]:
    """Requests of held-out prompts, twice the native height and width."""
    if model == "tiny-image":
        prompts = [scene.prompt for scene in measure_image.chosen_scenes(count)]
        frames, guidance = 1, tiny_image.GUIDANCE_SCALE
    else:
        prompts = [scene.prompt for scene in measure_video.chosen_scenes(count)]
        frames, guidance = moving_scenes.FRAMES, tiny_video.GUIDANCE_SCALE
    height, width = (2 * side for side in GEOMETRIES[model].native_size)
    return [
        Request(f"r{i}", 0.0, height, width, steps, frames, prompt=prompt, seed=i, guidance_scale=guidance)
        for i, prompt in enumerate(prompts)
    ]


def refine_all(
    trial: Refiner, asked: Sequence[Request], variants: Sequence[Variant], shown: int = 0
) -> tuple[pd.DataFrame, dict[str, list[Frames]]]:
    """(One row a prompt and variant, and one a prompt of its sketch; frames of the first ``shown`` prompts)."""
    rows: list[dict[str, Any]] = []
    pictures: dict[str, list[Frames]] = {}
    for prompt, request in enumerate(asked):
        drawn = trial.sketch(request)
        sketch, large = (_frames(pixels) for pixels in (drawn, enlarged(drawn, request.size)))
        made = {"sketch": large}
        side = min(sketch.shape[1:3])
        own = {"right": right(request.prompt, sketch), "flicker": measure(large).flicker}
        rows.append({"variant": "sketch", "prompt": prompt, **own})
        for variant in variants:
            tiled = of_variant(trial, variant, request)
            shape = tiled.rule.shape(request.size, request.steps)
            refined = tiled.refine(request, drawn)
            frames = refined.pixels[0].reshape(large.shape)
            made[str(variant)] = frames
            borders = last_borders(shape, trial.rule.geometry.latent_factor)
            quality = measure(frames, reference=large, borders=borders, sketch=sketch)
            rows.append(
                {
                    "variant": str(variant),
                    "prompt": prompt,
                    **asdict(variant),
                    **asdict(quality),
                    "objects_off": abs(quality.extra_objects),
                    "right": right(request.prompt, shrunk(frames, side)),
                    "sharpness": acutance(frames) / acutance(large),
                    "sketch_seam_energy": seam_energy(large, borders),
                    "ring_db": ring_db(frames, large),
                    "work": work(shape),
                    "tiles": refined.tiles,
                    "seconds": refined.seconds,
                }
            )
        if prompt < shown:
            for name, frames in made.items():
                pictures.setdefault(name, []).append(frames)
    return pd.DataFrame(rows), pictures


def of_variant(trial: Refiner, variant: Variant, request: Request) -> Refiner:
    """The same model, tiled in another way."""
    own = copy.copy(trial)
    grids = {request.size[:2]: (variant.grid, variant.grid)} if variant.grid else {}
    own.rule = replace(
        trial.rule,
        refine=variant.refine,
        overlap=variant.overlap,
        mode=variant.mode,
        stride=variant.stride,
        grids=grids,
    )
    geometry = own.rule.geometry
    height, width = (side // geometry.latent_factor for side in geometry.native_size)
    own.adapter = Adapter(trial.pipeline, variant.positions, (height, width))
    return own


def last_borders(shape: TiledShape, factor: int) -> Borders:
    """Where tiles meet in the last step, pixels: no later step can mend what is there."""
    tiles = shape.grid.tiles(shape.shifts.at(shape.refine_steps - 1))
    rows, columns = ({tile.core[axis] * factor for tile in tiles} - {0} for axis in (0, 1))
    return Borders(tuple(sorted(rows)), tuple(sorted(columns)))


def work(shape: TiledShape) -> float:
    """Latent pixels of a step's windows over those of the canvas, the mean over steps."""
    steps = [shape.grid.tiles(shape.shifts.at(step)) for step in range(shape.refine_steps)]
    seen = sum(tile.window.height * tile.window.width for tiles in steps for tile in tiles)
    return seen / len(steps) / math.prod(shape.grid.canvas)


def acutance(frames: Frames) -> float:
    """Mean gradient weighted by itself, ``sum |g|^2 / sum |g|``: about contrast over width of the edges there are.

    Energy at high frequencies would count each further edge, and so a picture that falls to pieces as sharp.
    """
    down, right = np.diff(frames, axis=1)[:, :, :-1], np.diff(frames, axis=2)[:, :-1]
    squares = (down**2 + right**2).sum(-1, dtype=np.float64)
    return float(squares.sum() / max(np.sqrt(squares).sum(), 1e-12))


def ring_db(frames: Frames, reference: Frames) -> float:
    """PSNR of the outermost 1/16 of the canvas on each side."""
    mask = np.ones(frames.shape[1:3], bool)
    height, width = frames.shape[1:3]
    mask[height // STRIPS : -(height // STRIPS), width // STRIPS : -(width // STRIPS)] = False
    return psnr_db(frames[:, mask], reference[:, mask])


def right(prompt: str, frames: Frames) -> float:
    """Share of verdicts (colours, shapes, a clip's motion) that are yes, by the model's own judge at native size."""
    seen = (frames * 255).round().astype(np.uint8)
    if len(seen) == 1:
        verdict: Any = scene_reader.judge(Scene.parse(prompt), seen[0])
    else:
        verdict = clip_reader.judge(MovingScene.parse(prompt), seen)
    return float(np.mean(list(asdict(verdict).values())))


def table(runs: pd.DataFrame, title: str, part: Part) -> Table:
    """One row a variant of the part, the sketches' own on top."""
    shown = Table(title=title)
    for option in part.options:
        shown.add_column(option)
    for name in part.figures:
        shown.add_column(FIGURES[name].label, justify="right")
    sketch = runs[runs["variant"] == "sketch"]
    own = [_cell(sketch[name].astype(float), FIGURES[name]) for name in part.figures]
    shown.add_row("sketch", *[""] * (len(part.options) - 1), *own)
    for variant in part.variants:
        rows = runs[runs["variant"] == str(variant)]
        values = [getattr(variant, name) for name in part.options]
        options = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        shown.add_row(*options, *(_cell(rows[name].astype(float), FIGURES[name]) for name in part.figures))
    return shown


def _cell(values: pd.Series[float], figure: Figure) -> str:
    if values.isna().all():
        return "–"
    mean = f"{values.mean():.{figure.digits}f}"
    return mean if figure.worst is None else f"{mean} ({figure.worst(values.dropna()):.{figure.digits}f})"


def sheet(pictures: dict[str, list[Frames]], asked: Sequence[Request]) -> Image.Image:
    """A row a variant, a column a prompt; a clip as a few of its frames."""
    images = [clip_strip(frames, SHOWN_FRAMES) for row in pictures.values() for frames in row]
    captions = [request.prompt if name == "sketch" else name for name in pictures for request in asked]
    return picture_grid(images, captions, columns=len(asked))


def _frames(pixels: torch.Tensor) -> Frames:
    """The first of [images, 3, frames, height, width]."""
    return np.ascontiguousarray(pixels[0].permute(1, 2, 3, 0).float().numpy())


if __name__ == "__main__":
    main()
