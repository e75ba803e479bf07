"""Pictures and clips that requests start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageSequence, UnidentifiedImageError

from traces.errors import BadInput
from traces.request import Request


class Start(NamedTuple):
    """What a request starts from: arguments of its pipeline, or pixels to refine, [1, 3, frames, height, width]."""

    arguments: dict[str, Any]
    pixels: torch.Tensor | None


def start_of(request: Request, folder: Path | None, takes_image: bool) -> Start:
    """What a request's ``image`` is to the pipeline.

    Args:
        request: which may name an image.
        folder: where it lies; None: nowhere.
        takes_image: whether the pipeline is shown an image (image to video) rather than refining it.

    Raises:
        BadInput: no such picture, one outside the folder, or a clip of another length.
    """
    if not request.image:
        if takes_image:
            raise BadInput(f"request {request.request_id!r}: image is empty, but the model makes clips from a picture")
        return Start({}, None)
    frames = _opened(request, folder)
    if takes_image:
        return Start({"image": frames[0]}, None)
    if len(frames) != request.frames:
        raise BadInput(
            f"request {request.request_id!r}: image {request.image!r} has {len(frames)} frames, expected the "
            f"{request.frames} that are to be refined"
        )
    pixels = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).to(torch.float32) / 255.0
    return Start({}, pixels.permute(3, 0, 1, 2)[None])


def _opened(request: Request, folder: Path | None) -> list[Image.Image]:
    """The frames of a request's image, in RGB."""
    if folder is None:
        raise BadInput(f"request {request.request_id!r} names image {request.image!r}; set trace.images to its folder")
    root = folder.resolve()
    path = (root / request.image).resolve()
    if not path.is_relative_to(root):
        raise BadInput(f"request {request.request_id!r}: image {request.image!r} lies outside {folder}")
    try:
        with Image.open(path) as picture:
            return [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadInput(f"request {request.request_id!r}: cannot open image {path.name!r}: {error}") from error
