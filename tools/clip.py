"""Makes ``docs/images/tiny-video.webp``, the clip of the README: what `tiny-video` draws for two prompts.

    python -m tools.clip

The model never trained on these prompts. Two clips of 64 x 64 px are denoised: some seconds on one core.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.clips import write_clip
from tools.picture import ROOT
from tools.tiny_models.measure_video import generate
from tools.tiny_models.measuring import MEASUREMENT, load
from tools.tiny_models.moving_scenes import MovingScene
from tools.tiny_models.tiny_video import FOLDER

CLIP = ROOT / "docs" / "images" / "tiny-video.webp"
PROMPTS = (
    "a big yellow square moving up quickly on blue",
    "a small blue triangle moving down slowly on white",
)
GAP = 4  # px of white between two clips


def beside(clips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Clips [N, frames, height, width, 3] as one of 0..1, side by side with white between them."""
    white = np.full((*clips.shape[1:3], GAP, 3), 255, np.uint8)
    row = [part for clip in clips for part in (white, clip)][1:]
    return np.concatenate(row, axis=2) / 255.0


if __name__ == "__main__":
    scenes = [MovingScene.parse(prompt) for prompt in PROMPTS]
    write_clip(CLIP, beside(generate(load(FOLDER), scenes)), kind=MEASUREMENT)
    print(f"wrote {CLIP}")
