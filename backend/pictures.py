"""Pictures on disk: what a replay delivers, as PNG files and, where it moves, as a clip that plays."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from backend.clips import clip_strip, write_clip
from policies.runlog import REPLAY
from traces.marks import OutputKind
from traces.output import whole_file
from traces.request import Request


class PictureFolder:
    """Saves finished requests as ``000012.png``, numbered by their place in the trace; this file comes last.

    A second image of a request is ``000012-1.png``; a clip is ``000012.webp``, which plays, and ``000012-strip.png``,
    frames of it side by side. Names come from the trace's order, never from its ids, so no input can lead out of the
    folder.
    """

    def __init__(self, folder: Path, requests: Sequence[Request]) -> None:
        self._folder = folder
        self._number = {request.request_id: number for number, request in enumerate(requests)}

    def save(self, request: Request, pixels: np.ndarray[Any, Any]) -> None:
        """Save [images, height, width, 3], or [clips, frames, height, width, 3], in 0..1."""
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = self._stem(request)
        for index, picture in reversed(list(enumerate(pixels))):
            name = stem if index == 0 else f"{stem}-{index}"
            if picture.ndim == 3:
                still = Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))
                write_picture(still, self._folder / f"{name}.png", REPLAY)
            else:
                write_picture(clip_strip(picture), self._folder / f"{name}-strip.png", REPLAY)
                write_clip(self._folder / f"{name}.webp", picture)

    def holds(self, request: Request) -> bool:
        """Whether all that there is to save of a request lies there."""
        return any((self._folder / f"{self._stem(request)}{suffix}").is_file() for suffix in (".png", ".webp"))

    def _stem(self, request: Request) -> str:
        return f"{self._number[request.request_id]:06d}"


class PictureWriter:
    """Encodes and writes pictures on a thread of its own, so that a replica goes on with its next launch meanwhile.

    Args:
        save: writes those of one request, as `PictureFolder.save`.
        waiting: requests whose pixels may wait in memory; then `put` waits, too.

    Attributes:
        failed: what could not be written, by request id, a line each.
    """

    def __init__(self, save: Callable[[Request, np.ndarray[Any, Any]], None], waiting: int = 8) -> None:
        self.failed: dict[str, str] = {}
        self._save = save
        self._room = threading.Semaphore(waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")

    def put(self, request: Request, pixels: np.ndarray[Any, Any]) -> None:
        """Take the pixels of a finished request, on any thread."""
        self._room.acquire()
        self._thread.submit(self._write, request, pixels)

    def close(self) -> None:
        """Wait until all is written."""
        self._thread.shutdown()

    def _write(self, request: Request, pixels: np.ndarray[Any, Any]) -> None:
        try:
            self._save(request, pixels)
        except Exception as error:
            self.failed[request.request_id] = f"{type(error).__name__}: {error}".splitlines()[0]
        finally:
            self._room.release()


def write_picture(picture: Image.Image, path: Path, kind: OutputKind) -> None:
    """Write a picture as PNG with the mark of its kind, whole or not at all.

    Raises:
        BadInput: ``path`` must not be written, see `traces.output`.
    """
    with whole_file(path, kind) as temporary:
        picture.save(temporary, format="PNG", pnginfo=kind.png())


def picture_grid(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 5) -> Image.Image:
    """The pictures in rows, each with its caption below, words wrapped."""
    width = max(192, *(picture.width for picture in pictures))
    height = max(picture.height for picture in pictures)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 8), rows * (height + 40)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = index % columns * (width + 8) + 4, index // columns * (height + 40) + 4
        sheet.paste(picture, (x + (width - picture.width) // 2, y))
        pen.text((x, y + height + 2), textwrap.fill(caption, width // 6), fill="black")
    return sheet
