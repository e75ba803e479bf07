"""Pictures and clips that requests start from, and the masks of what is painted anew."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageSequence, UnidentifiedImageError

from traces.errors import BadInput
from traces.references import REFERENCES, pictures_of
from traces.request import Request
from traces.strength import IMAGE_TO_IMAGE

ImageUse = Literal["none", "optional", "required"]
"""Whether a pipeline is shown a picture: it takes none, can do without, or makes everything from one."""

_FROM_A_PICTURE = re.compile(
    "Image(To|2)Video|I2V|I2I|Img2Img|Edit|Pix2Pix|Upscale|SuperResolution|Refiner|Variation|VideoToWorld|Layered|ControlNet|Adapter"
)
"""In the names of classes whose signature lets the picture out, but whose code does not."""
_NOT_ASKED_FOR = ("control_image", "video", "hint", "source_prompt", "image_embeds")
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
        if argument == "control_image"
        or (argument in _NOT_ASKED_FOR and (parameter.default is inspect.Parameter.empty or "image" not in known))
        if not (argument == "video" and "mask" in known)  # without it, all of the clip is to be made
    ]
    if asked:
        raise BadInput(f"{name} needs {asked[0]!r}, which requests do not have")
    if "prompt" not in known or "num_inference_steps" not in known:
        raise BadInput(f"{name} makes no pictures from a prompt in steps, which is all that is served")
    if "ar_step" in known:
        raise BadInput(f"{name} samples each frame by a sampler of its own, which cannot be followed step by step")
    if "strength" in known and name not in IMAGE_TO_IMAGE:
        raise BadInput(f"{name} takes a strength in a way that is not known; known: {', '.join(IMAGE_TO_IMAGE)}")


def takes_mask(pipeline: Any) -> bool:
    """Whether a pipeline paints inside a mask; then it cannot do without."""
    return "mask_image" in inspect.signature(type(pipeline).__call__).parameters


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
    name = type(pipeline).__name__
    if len(pictures_of(request.image)) > 1 and not (name in REFERENCES and REFERENCES[name].several):
        raise BadInput(f"request {request.request_id!r}: image names several pictures, but {name} starts from one")
    start = start_of(request, folder, use != "none", masked=takes_mask(pipeline))
    shown = start.arguments.get("image")
    if shown is None or "height" in inspect.signature(type(pipeline).__call__).parameters:
        return
    if shown.size != (request.width, request.height):
        raise BadInput(
            f"request {request.request_id!r}: image {request.image!r} is {shown.height}x{shown.width}, expected the "
            f"{request.height}x{request.width} of the request: {type(pipeline).__name__} makes its picture's size"
        )


def start_of(
    request: Request, folder: Path | None, takes_image: bool, required: bool = True, masked: bool = False
) -> Start:
    """What a request's ``image`` and ``mask`` are to the pipeline.

    Args:
        request: which may name an image.
        folder: where it lies; None: nowhere.
        takes_image: whether the pipeline is shown an image (image to video) rather than refining it.
        required: whether it cannot do without.
        masked: whether it paints inside a mask.

    Raises:
        BadInput: no such picture, one outside the folder, a clip of another length, or a mask of another size than its
            picture.
    """
    if not request.image:
        if takes_image and required:
            raise BadInput(f"request {request.request_id!r}: image is empty, but the model makes all from a picture")
        return Start({}, None)
    names = pictures_of(request.image)
    pictures = [_opened(request, folder, "image", name) for name in names]
    frames = pictures[0]
    if takes_image:
        shown = [picture[0] for picture in pictures]
        arguments: dict[str, Any] = {"image": shown if len(shown) > 1 else shown[0]}
        if masked:
            arguments["mask_image"] = _mask(request, folder, frames[0].size)
        return Start(arguments, None)
    if len(frames) != request.frames:
        raise BadInput(
            f"request {request.request_id!r}: image {request.image!r} has {len(frames)} frames, expected the "
            f"{request.frames} that are to be refined"
        )
    pixels = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).to(torch.float32) / 255.0
    return Start({}, pixels.permute(3, 0, 1, 2)[None])


def _mask(request: Request, folder: Path | None, size: tuple[int, int]) -> Image.Image:
    """The mask of a request, of the (width, height) of its picture; white where it is painted anew."""
    if not request.mask:
        raise BadInput(f"request {request.request_id!r}: mask is empty, but the model paints inside one")
    mask = _opened(request, folder, "mask", request.mask, "L")[0]
    if mask.size != size:
        raise BadInput(
            f"request {request.request_id!r}: mask {request.mask!r} is {mask.height}x{mask.width}, expected the "
            f"{size[1]}x{size[0]} of image {request.image!r}"
        )
    return mask


def _opened(request: Request, folder: Path | None, field: str, name: str, mode: str = "RGB") -> list[Image.Image]:
    """The frames of a picture that a field of a request names."""
    if folder is None:
        raise BadInput(f"request {request.request_id!r} names {field} {name!r}; set trace.images to its folder")
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise BadInput(f"request {request.request_id!r}: {field} {name!r} lies outside {folder}")
    try:
        with Image.open(path) as picture:
            return [frame.convert(mode) for frame in ImageSequence.Iterator(picture)]
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadInput(f"request {request.request_id!r}: cannot open {field} {path.name!r}: {error}") from error
