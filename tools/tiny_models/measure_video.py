"""Measure `tiny-video` on prompts it never trained on: does the clip show what the sentence says, and how fast.

    python -m tools.tiny_models.measure_video [--model FOLDER] [--prompts 130] [-o FOLDER]

Prints shares of clips with the right colours, shapes and motions (see `clip_reader.Verdict`), the same shares for
drawn clips of the same prompts (the reader's own accuracy), how well the VAE gives drawn clips back, and milliseconds
a denoising step with guidance and a decoding on one core. With `-o` it also saves the figures as JSON, a strip of
every clip in one picture, and the first clips to play.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from backend.clips import clip_strip, write_clip
from backend.pictures import picture_grid, write_picture
from tools.tiny_models.clip_reader import accuracy_on_drawn, judge, share_right
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
from tools.tiny_models.moving_scenes import FRAMES, MovingScene, draw_clip, held_out_scenes
from tools.tiny_models.tiny_video import FOLDER, GUIDANCE_SCALE, NATIVE_SIZE, STEPS
from traces.files import write_json

BATCH = 10
PLAYABLE_CLIPS = 10
VERDICTS = ("colour", "shape", "motion")


def chosen_scenes(count: int) -> list[MovingScene]:
    """`count` held-out scenes, evenly spread over the fixed order of all of them."""
    return spread(held_out_scenes(), count)


def generate(
    pipeline: Any,
    scenes: Sequence[MovingScene],
    size: tuple[int, int] = (NATIVE_SIZE, NATIVE_SIZE),
    frames: int = FRAMES,
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
) -> NDArray[np.uint8]:
    """Clips `(N, frames, height, width, 3)` of scenes at `size` = (height, width); scene i has seed i."""
    clips = []
    for start in range(0, len(scenes), BATCH):
        some = scenes[start : start + BATCH]
        output = pipeline(
            prompt=[scene.prompt for scene in some],
            height=size[0],
            width=size[1],
            num_frames=frames,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(some))],
            output_type="np",
        )
        clips.append((output.frames * 255).round().astype(np.uint8))
    return np.concatenate(clips)


@torch.no_grad()
def reconstruction_psnr(pipeline: Any, scenes: Sequence[MovingScene], height: int, width: int, seed: int = 0) -> float:
    """Mean PSNR in dB of drawn clips of the scenes that went through the VAE and back."""
    rng = np.random.default_rng(seed)
    decibels = []
    for scene in scenes:
        clip = torch.from_numpy(draw_clip(scene, height, width, rng)).float().permute(3, 0, 1, 2)[None] / 127.5 - 1
        decoded = pipeline.vae.decode(pipeline.vae.encode(clip).latent_dist.mode()).sample
        decibels.append(-10 * torch.log10((decoded - clip).square().mean() / 4).item())
    return float(np.mean(decibels))


def times_ms(pipeline: Any, steps: int = STEPS, runs: int = 3) -> tuple[float, float]:
    """Median milliseconds of a guided native-size denoising step and of decoding its clip, on one core."""
    given = {"height": NATIVE_SIZE, "width": NATIVE_SIZE, "num_frames": FRAMES, "num_inference_steps": steps}
    prompt = "a big red circle moving right slowly on blue"
    intervals: list[float] = []
    decodings: list[float] = []
    with one_core():
        for run in range(runs + 1):
            ends = step_ends(pipeline, prompt=prompt, guidance_scale=GUIDANCE_SCALE, **given)
            if run > 0:  # the first run warms up
                decodings.append(time.perf_counter() - ends[-1])
                intervals.extend(np.diff(ends))
    return float(np.median(intervals)) * 1e3, float(np.median(decodings)) * 1e3


def measure(folder: Path, prompts: int, steps: int, guidance_scale: float, output: Path | None) -> dict:
    """Measure the model in `folder`; returns (and with `output` saves) the figures."""
    scenes = chosen_scenes(prompts)
    pipeline = load(folder)
    drawn = accuracy_on_drawn(scenes, NATIVE_SIZE, NATIVE_SIZE)
    clips = generate(pipeline, scenes, steps=steps, guidance_scale=guidance_scale)
    verdicts = [judge(scene, clip) for scene, clip in zip(scenes, clips, strict=True)]
    step_ms, decode_ms = times_ms(pipeline)
    figures = {
        "prompts": prompts,
        "size_px": [NATIVE_SIZE, NATIVE_SIZE],
        "frames": FRAMES,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "right": share_right(verdicts),
        "drawn_right": drawn,
        "vae_psnr_db": round(reconstruction_psnr(pipeline, scenes[:40], NATIVE_SIZE, NATIVE_SIZE), 2),
        "step_ms_one_core": round(step_ms, 2),
        "decode_ms_one_core": round(decode_ms, 2),
        "weights_bytes": weights_bytes(folder),
    }
    if output is not None:
        strips = [clip_strip(clip / 255.0) for clip in clips]
        captions = [caption(scene, verdict, VERDICTS) for scene, verdict in zip(scenes, verdicts, strict=True)]
        write_picture(picture_grid(strips, captions, columns=2), output / "strips.png", MEASUREMENT)
        for index, clip in enumerate(clips[:PLAYABLE_CLIPS]):
            write_clip(output / f"{index:03d}.webp", clip / 255.0, kind=MEASUREMENT)
        wrong = not_right(scenes, verdicts, VERDICTS)
        write_json(figures | {"not_right": wrong}, output / "figures.json", MEASUREMENT)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    figures = measured(
        measure,
        arguments,
        model=FOLDER,
        prompts=130,
        most=len(held_out_scenes()),
        steps=STEPS,
        guidance=GUIDANCE_SCALE,
        files="figures.json, strips.png and a few clips",
    )
    print(
        f"{figures['prompts']} held-out prompts, {FRAMES} x {NATIVE_SIZE} x {NATIVE_SIZE} px, {figures['steps']} steps"
    )
    for name in VERDICTS:
        print(f"  {name + 's right':16}{figures['right'][name]:7.1%}   (drawn: {figures['drawn_right'][name]:.1%})")
    print(f"  VAE back and forth {figures['vae_psnr_db']:.1f} dB")
    print(f"  denoising step  {figures['step_ms_one_core']:7.1f} ms on one core, with guidance (median)")
    print(f"  decoding a clip {figures['decode_ms_one_core']:7.1f} ms on one core (median)")
    print(f"  weights         {figures['weights_bytes'] / 1e6:7.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
