"""Pictures and clips from files: PNG, WebP and GIF, still or animated, alone, in a folder or in a run's ``images``."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reports.quality.frames import Frames
from traces.errors import BadInput

SUFFIXES = (".png", ".webp", ".gif")
STRIP = "-strip"
"""How the overview of a clip is called after the clip; it is no picture of its own."""

_FRAME = re.compile(r"(.+)-f\d+")


class Picture(NamedTuple):
    """Frames as stored, [frames, height, width, 3] in 0..1, and how long each is shown (0: not said)."""

    frames: Frames
    durations_ms: tuple[int, ...]


def gather(path: Path) -> dict[str, tuple[Path, ...]]:
    """Files by name, in order of name: one file each, or the frames of a clip (``NAME-f000.png`` and so on).

    Raises:
        BadInput: no such file or folder, or a folder without pictures.
    """
    if path.is_file():
        return {path.stem: (path,)}
    if not path.is_dir():
        raise BadInput(f"{path}: no such file or folder")
    folder = path / "images" if (path / "images").is_dir() else path
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    stems = Counter(file.stem for file in files)
    gathered: dict[str, tuple[Path, ...]] = {}
    for file in files:
        if file.stem.endswith(STRIP) and file.stem.removesuffix(STRIP) in stems:
            continue
        frame = _FRAME.fullmatch(file.stem)
        name = frame[1] if frame else file.stem if stems[file.stem] == 1 else file.name
        gathered[name] = (*gathered.get(name, ()), file) if frame else (file,)
    if not gathered:
        raise BadInput(f"{folder}: no picture, expected files that end in {', '.join(SUFFIXES)}")
    return gathered


def read_picture(files: tuple[Path, ...]) -> Picture:
    """One picture or clip from its file, or from one file a frame.

    Raises:
        BadInput: a file that is no picture, or frames of different sizes.
    """
    from PIL import Image, ImageSequence

    frames: list[Frames] = []
    durations: list[int] = []
    for file in files:
        try:
            with Image.open(file) as image:
                for still in ImageSequence.Iterator(image):
                    frames.append(np.asarray(still.convert("RGB")).astype(np.float32) / np.float32(255))
                    durations.append(round(still.info.get("duration", 0)))
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise BadInput(f"{file}: no readable picture ({error})") from error
        if frames[-1].shape != frames[0].shape:
            (height, width), (first_height, first_width) = frames[-1].shape[:2], frames[0].shape[:2]
            raise BadInput(f"{file}: {height}x{width}, expected {first_height}x{first_width} as the first frame")
    return Picture(np.stack(frames), tuple(durations))


def in_step(pictures: list[Picture]) -> list[Frames]:
    """The frames of pictures that belong together, at one frame rate.

    Encoders store equal frames in a row as one that is shown longer. Where all durations of all clips are multiples of
    the shortest one, each frame is repeated as often as it is shown; otherwise each counts once.
    """
    times = [time for picture in pictures if len(picture.frames) > 1 for time in picture.durations_ms]
    unit = min(times, default=0)
    if unit <= 0 or any(time % unit for time in times):
        return [picture.frames for picture in pictures]
    return [
        np.repeat(picture.frames, [max(1, time // unit) for time in picture.durations_ms], axis=0)
        for picture in pictures
    ]
