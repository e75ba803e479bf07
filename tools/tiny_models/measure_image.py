"""Measure `tiny-image` on prompts it never trained on: is the picture what the sentence says, and how fast.

    python -m tools.tiny_models.measure_image [--model FOLDER] [--prompts 200] [-o FOLDER]

Prints shares of pictures with the right colours and the right shapes (see `scene_reader.Verdict`), the same
shares for drawn pictures of the same prompts (the reader's own accuracy), and milliseconds a denoising step
with guidance on one core. With `-o` it also saves the figures as JSON and the pictures as one grid.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from backend.pictures import picture_grid, write_picture
from tools.tiny_models.scene_reader import Verdict, accuracy_on_drawn, judge, share_right
from tools.tiny_models.scenes import Scene, held_out_scenes
from tools.tiny_models.tiny_image import FOLDER, GUIDANCE_SCALE, NATIVE_SIZE, STEPS
from traces.files import write_json
from traces.marks import OutputKind

MEASUREMENT = OutputKind("measurement")

BATCH = 20


def chosen_scenes(count: int) -> list[Scene]:
    """`count` held-out scenes, evenly spread over the fixed order of all of them."""
    scenes = held_out_scenes()
    if not 1 <= count <= len(scenes):
        raise ValueError(f"there are {len(scenes)} held-out prompts, cannot take {count}")
    return [scenes[int(index)] for index in np.linspace(0, len(scenes) - 1, count)]


def load(folder: Path) -> Any:
    """The stock pipeline in `folder`, without a progress bar."""
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    intervals: list[float] = []
    try:
        for run in range(runs + 1):
            ends: list[float] = []

            def note(_pipeline: Any, _step: int, _timestep: Any, inputs: dict, ends: list[float] = ends) -> dict:
                ends.append(time.perf_counter())
                return inputs

            pipeline(
                prompt="a red circle left of a blue square on green",
                height=NATIVE_SIZE,
                width=NATIVE_SIZE,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE_SCALE,
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
                callback_on_step_end=note,
            )
            if run > 0:  # the first run warms up
                intervals.extend(np.diff(ends))
    finally:
        torch.set_num_threads(threads)
    return float(np.median(intervals)) * 1e3


def weights_bytes(folder: Path) -> int:
    """Size of all weights in a model folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def caption(scene: Scene, verdict: Verdict) -> str:
    """The prompt, and what the picture has wrong."""
    wrong = [name for name in ("colour", "shape") if not getattr(verdict, name)]
    return f"WRONG {' and '.join(wrong).upper()}: {scene.prompt}" if wrong else scene.prompt


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
        captions = [caption(scene, verdict) for scene, verdict in zip(scenes, verdicts, strict=True)]
        write_picture(picture_grid(images, captions, columns=10), output / "pictures.png", MEASUREMENT)
        wrong = {
            scene.prompt: {"colour": verdict.colour, "shape": verdict.shape}
            for scene, verdict in zip(scenes, verdicts, strict=True)
            if not (verdict.colour and verdict.shape)
        }
        write_json(figures | {"not_right": wrong}, output / "figures.json", MEASUREMENT)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure tiny-image on held-out prompts.")
    parser.add_argument("--model", type=Path, default=FOLDER, help="a folder saved by train_image")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE_SCALE, help="guidance scale")
    parser.add_argument("-o", "--output", type=Path, help="folder for figures.json and pictures.png")
    options = parser.parse_args(arguments)
    most = len(held_out_scenes())
    if not (options.model / "model_index.json").is_file():
        parser.error(f"{options.model} is no model folder: it has no model_index.json")
    if not 1 <= options.prompts <= most:
        parser.error(f"--prompts must be 1 to {most}, got {options.prompts}")
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")
    if options.output is not None and options.output.is_file():
        parser.error(f"{options.output} is a file; name a folder")

    figures = measure(options.model, options.prompts, options.steps, options.guidance, options.output)
    print(f"{figures['prompts']} held-out prompts, {NATIVE_SIZE} x {NATIVE_SIZE} px, {options.steps} steps")
    print(f"  colours right   {figures['colour_right']:7.1%}   (drawn: {figures['drawn_colour_right']:.1%})")
    print(f"  shapes right    {figures['shape_right']:7.1%}   (drawn: {figures['drawn_shape_right']:.1%})")
    print(f"  denoising step  {figures['step_ms_one_core']:7.1f} ms on one core, with guidance (median)")
    print(f"  weights         {figures['weights_bytes'] / 1e6:7.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
