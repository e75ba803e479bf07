"""Measure `tiny-image` on prompts it never trained on: is the picture what the sentence says, and how fast.

    python -m tools.tiny_models.measure_image [--model FOLDER] [--prompts 200] [-o FOLDER]

Prints shares of pictures with the right colours and the right shapes (see `scene_reader.Verdict`), the same
shares for drawn pictures of the same prompts (the reader's own accuracy), and milliseconds a denoising step
with guidance on one core. With `-o` it also saves the figures as JSON and the pictures as one grid.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from backend.pictures import picture_grid, write_picture
from tools.tiny_models.measuring import (
    MEASUREMENT,
    caption,
    load,
    measured,
    not_right,
    one_core,
    spread,
    step_ends,
    weights_bytes,
)
from tools.tiny_models.scene_reader import accuracy_on_drawn, judge, share_right
from tools.tiny_models.scenes import Scene, held_out_scenes
from tools.tiny_models.tiny_image import FOLDER, GUIDANCE_SCALE, NATIVE_SIZE, STEPS
from traces.files import write_json

BATCH = 20
VERDICTS = ("colour", "shape")


def chosen_scenes(count: int) -> list[Scene]:
    """`count` held-out scenes, evenly spread over the fixed order of all of them."""
    return spread(held_out_scenes(), count)


def generate(
    pipeline: Any,
    scenes: Sequence[Scene],
    size: tuple[int, int] = (NATIVE_SIZE, NATIVE_SIZE),
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
) -> NDArray[np.uint8]:
    """Pictures `(N, height, width, 3)` of scenes at `size` = (height, width); scene i has seed i."""
    pictures = []
    for start in range(0, len(scenes), BATCH):
        some = scenes[start : start + BATCH]
        output = pipeline(
            prompt=[scene.prompt for scene in some],
            height=size[0],
            width=size[1],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(some))],
            output_type="np",
        )
        pictures.append((output.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def step_ms(pipeline: Any, steps: int = STEPS, runs: int = 5) -> float:
    """Median milliseconds between denoising steps of one guided native-size request, on one core."""
    given = {"height": NATIVE_SIZE, "width": NATIVE_SIZE, "num_inference_steps": steps, "output_type": "latent"}
    prompt = "a red circle left of a blue square on green"
    with one_core():
        _, *rest = [  # the first run warms up
            np.diff(step_ends(pipeline, prompt=prompt, guidance_scale=GUIDANCE_SCALE, **given)) for _ in range(runs + 1)
        ]
    return float(np.median(np.concatenate(rest))) * 1e3


def measure(folder: Path, prompts: int, steps: int, guidance_scale: float, output: Path | None) -> dict:
    """Measure the model in `folder`; returns (and with `output` saves) the figures."""
    scenes = chosen_scenes(prompts)
    pipeline = load(folder)
    drawn_colour, drawn_shape = accuracy_on_drawn(scenes, NATIVE_SIZE, NATIVE_SIZE)
    pictures = generate(pipeline, scenes, steps=steps, guidance_scale=guidance_scale)
    verdicts = [judge(scene, picture) for scene, picture in zip(scenes, pictures, strict=True)]
    colour, shape = share_right(verdicts)
    figures = {
        "prompts": prompts,
        "size_px": [NATIVE_SIZE, NATIVE_SIZE],
        "steps": steps,
        "guidance_scale": guidance_scale,
        "colour_right": colour,
        "shape_right": shape,
        "drawn_colour_right": drawn_colour,
        "drawn_shape_right": drawn_shape,
        "step_ms_one_core": round(step_ms(pipeline), 2),
        "weights_bytes": weights_bytes(folder),
    }
    if output is not None:
        images = [Image.fromarray(picture) for picture in pictures]
        captions = [caption(scene, verdict, VERDICTS) for scene, verdict in zip(scenes, verdicts, strict=True)]
        write_picture(picture_grid(images, captions, columns=10), output / "pictures.png", MEASUREMENT)
        wrong = not_right(scenes, verdicts, VERDICTS)
        write_json(figures | {"not_right": wrong}, output / "figures.json", MEASUREMENT)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    figures = measured(
        measure,
        arguments,
        model=FOLDER,
        prompts=200,
        most=len(held_out_scenes()),
        steps=STEPS,
        guidance=GUIDANCE_SCALE,
        files="figures.json and pictures.png",
    )
    print(f"{figures['prompts']} held-out prompts, {NATIVE_SIZE} x {NATIVE_SIZE} px, {figures['steps']} steps")
    print(f"  colours right   {figures['colour_right']:7.1%}   (drawn: {figures['drawn_colour_right']:.1%})")
    print(f"  shapes right    {figures['shape_right']:7.1%}   (drawn: {figures['drawn_shape_right']:.1%})")
    print(f"  denoising step  {figures['step_ms_one_core']:7.1f} ms on one core, with guidance (median)")
    print(f"  weights         {figures['weights_bytes'] / 1e6:7.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
