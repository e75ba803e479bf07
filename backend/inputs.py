"""Pictures and clips that requests start from."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageSequence, UnidentifiedImageError

from traces.errors import BadInput
from traces.request import Request
from traces.strength import IMAGE_TO_IMAGE

ImageUse = Literal["none", "optional", "required"]
"""Whether a pipeline is shown a picture: it takes none, can do without, or makes everything from one."""

_FROM_A_PICTURE = re.compile(
    "Image(To|2)Video|I2V|I2I|Img2Img|Edit|Pix2Pix|Upscale|SuperResolution|Refiner|Variation|VideoToWorld|Layered|ControlNet|Adapter"
)
"""In the names of classes whose signature lets the picture out, but whose code does not."""
_NOT_ASKED_FOR = ("mask_image", "control_image", "video", "hint", "source_prompt", "image_embeds")
"""Arguments of pipelines that no request has."""


def image_use(pipeline: Any) -> ImageUse:
    """Whether a pipeline is shown a picture."""
    known = inspect.signature(type(pipeline).__call__).parameters
    if "image" not in known:
        return "none"
    needed = known["image"].default is inspect.Parameter.empty or "strength" in known
    return "required" if needed or _FROM_A_PICTURE.search(type(pipeline).__name__) else "optional"


def check_arguments(pipeline: Any) -> None:
    """See that requests have what a pipeline must be called with.

    Raises:
        BadInput: the first argument that they do not have, or a way to make images from images that is not known.
    """
    name, known = type(pipeline).__name__, inspect.signature(type(pipeline).__call__).parameters
    asked = [
        argument
        for argument, parameter in known.items()
        if argument in ("mask_image", "control_image")
        or (argument in _NOT_ASKED_FOR and (parameter.default is inspect.Parameter.empty or "image" not in known))
    ]
    if asked:
        raise BadInput(f"{name} needs {asked[0]!r}, which requests do not have")
    if "prompt" not in known or "num_inference_steps" not in known:
        raise BadInput(f"{name} makes no pictures from a prompt in steps, which is all that is served")
    if "strength" in known and name not in IMAGE_TO_IMAGE:
        raise BadInput(f"{name} takes a strength in a way that is not known; known: {', '.join(IMAGE_TO_IMAGE)}")


class Start(NamedTuple):
    """What a request starts from: arguments of its pipeline, or pixels to refine, [1, 3, frames, height, width]."""

    arguments: dict[str, Any]
    pixels: torch.Tensor | None


def check_start(request: Request, folder: Path | None, pipeline: Any) -> None:
    """See, without work, that a request can start: its picture is there, or it needs none.

    Raises:
        BadInput: as `start_of`; or the pipeline makes pictures of its picture's size, and that is another.
    """
    use = image_use(pipeline)
    if not request.image and use != "required":
        return
    start = start_of(request, folder, use != "none")
    shown = start.arguments.get("image")
    if shown is None or "height" in inspect.signature(type(pipeline).__call__).parameters:
        return
    if shown.size != (request.width, request.height):
        raise BadInput(
            f"request {request.request_id!r}: image {request.image!r} is {shown.height}x{shown.width}, expected the "
            f"{request.height}x{request.width} of the request: {type(pipeline).__name__} makes its picture's size"
        )


def start_of(request: Request, folder: Path | None, takes_image: bool, required: bool = True) -> Start:
    """What a request's ``image`` is to the pipeline.

    Args:
        request: which may name an image.
        folder: where it lies; None: nowhere.
        takes_image: whether the pipeline is shown an image (image to video) rather than refining it.
        required: whether it cannot do without.

    Raises:
        BadInput: no such picture, one outside the folder, or a clip of another length.
    """
    if not request.image:
        if takes_image and required:
            raise BadInput(f"request {request.request_id!r}: image is empty, but the model makes all from a picture")
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
