"""Clips on disk: one file that plays anywhere a browser is, and one picture that shows the clip at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from policies.runlog import REPLAY
from traces.errors import BadInput
from traces.marks import SOFTWARE, OutputKind
from traces.output import whole_file

FRAMES_PER_SECOND = 8
STRIP_FRAMES = 9
STRIP_GAP = 2


def write_clip(
    path: Path, clip: np.ndarray[Any, Any], fps: float = FRAMES_PER_SECOND, kind: OutputKind = REPLAY
) -> None:
    """Write a clip [frames, height, width, 3] in 0..1 as an animated WebP: lossless, endless, ``fps`` frames a second.

    Equal frames in a row are stored once, for as long as all of them.

    Raises:
        BadInput: no such array, a rate that is not above 0, or a path that must not be written, see `traces.output`.
    """
    if not fps > 0:
        raise BadInput(f"a clip needs more than 0 frames a second, got {fps:g}")
    first, *others = [Image.fromarray(frame) for frame in to_bytes(clip)]
    exif = first.getexif()
    exif[SOFTWARE] = kind.generator
    with whole_file(path, kind) as temporary:
        first.save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=others,
            duration=round(1000 / fps),
            loop=0,
            lossless=True,
            exif=exif,
        )


def clip_strip(clip: np.ndarray[Any, Any], frames: int = STRIP_FRAMES) -> Image.Image:
    """At most ``frames`` evenly spaced frames of a clip [frames, height, width, 3] in 0..1, side by side.

    Its first and last frame are among them.

    Raises:
        BadInput: no such array, or no frame asked for.
    """
    if frames < 1:
        raise BadInput(f"a strip needs at least 1 frame, got {frames}")
    stills = to_bytes(clip)
    chosen = np.linspace(0, len(stills) - 1, min(frames, len(stills))).round().astype(int)
    _, height, width, _ = stills.shape
    strip = Image.new("RGB", (len(chosen) * (width + STRIP_GAP) - STRIP_GAP, height), "white")
    for place, index in enumerate(chosen):
        strip.paste(Image.fromarray(stills[index]), (place * (width + STRIP_GAP), 0))
    return strip


def to_bytes(clip: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """RGB bytes of a clip in 0..1; what lies outside is cut off.

    Raises:
        BadInput: not [frames, height, width, 3] with at least one frame.
    """
    if clip.ndim != 4 or clip.shape[-1] != 3 or 0 in clip.shape:
        raise BadInput(f"a clip is an array [frames, height, width, 3], got shape {list(clip.shape)}")
    return (clip.clip(0, 1) * 255).round().astype(np.uint8)
