"""Reference pictures: what an edit's denoiser sees beside the picture that it makes.

Editing models (Kontext, Qwen-Image-Edit, FLUX.2) turn each picture that they are shown into tokens, and attend to them
in every step. So an edit costs what a picture of all these tokens would, but is decoded as one of its own. Pipelines
resize what they are shown, most of them to about a megapixel whatever it was; which pixels are left is known from the
pipeline's class and the size of the file. Where the file is not at hand, it is taken to be a square megapixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from traces.errors import BadInput

Sides = tuple[int, int]
"""(height, width) in pixels."""

_QWEN_AREA = _FLUX2_AREA = 1024 * 1024
UNKNOWN: Sides = (1024, 1024)
"""A picture that is not at hand."""
SEPARATOR = ";"
"""Between the pictures of one request."""

_KONTEXT = (672, 688, 720, 752, 800, 832, 880, 944, 1024, 1104, 1184, 1248, 1328, 1392, 1456, 1504, 1568)
_KONTEXT_SIDES = tuple(zip(_KONTEXT, reversed(_KONTEXT), strict=True))
"""(width, height) that Kontext was trained on, in diffusers' order."""


def _kontext(sides: Sides) -> Sides:
    """The trained shape of the nearest ratio."""
    ratio = sides[1] / sides[0]
    _, width, height = min((abs(ratio - width / height), width, height) for width, height in _KONTEXT_SIDES)
    return height, width


def _qwen(sides: Sides) -> Sides:
    """A megapixel in the picture's ratio, in multiples of 32."""
    ratio = sides[1] / sides[0]
    width = math.sqrt(_QWEN_AREA * ratio)
    return round(width / ratio / 32) * 32, round(width / 32) * 32


def _flux2(sides: Sides) -> Sides:
    """A megapixel at most, in the picture's ratio."""
    height, width = sides
    if height * width <= _FLUX2_AREA:
        return sides
    scale = math.sqrt(_FLUX2_AREA / (width * height))
    return int(height * scale), int(width * scale)


class Reference(NamedTuple):
    """How a pipeline sees its reference pictures.

    Attributes:
        resized: the sides that it gives a picture of some sides; the same arithmetic as diffusers'.
        several: whether it sees more than one.
        needed: whether it makes nothing without one.
    """

    resized: Callable[[Sides], Sides]
    several: bool = False
    needed: bool = False

    def pixels(self, pictures: Iterable[Sides], multiple: int) -> int:
        """Pixels that are seen of pictures of these sides, in whole multiples of so many."""
        seen = [self.resized(sides) for sides in pictures]
        return sum([height // multiple * multiple * (width // multiple * multiple) for height, width in seen])


REFERENCES: dict[str, Reference] = {
    "Flux2KleinPipeline": Reference(_flux2, several=True),
    "Flux2Pipeline": Reference(_flux2, several=True),
    "FluxKontextPipeline": Reference(_kontext),
    "QwenImageEditPipeline": Reference(_qwen, needed=True),
    "QwenImageEditPlusPipeline": Reference(_qwen, several=True, needed=True),
}
"""By the class of the pipeline."""


def pictures_of(image: str) -> list[str]:
    """The names in a request's ``image``."""
    return [name.strip() for name in image.split(SEPARATOR) if name.strip()]


def sides_in(folder: Path | None) -> Callable[[str], Sides]:
    """Asks for the sides of pictures in a folder by their names; one that is not at hand is taken to be `UNKNOWN`.

    Raises:
        BadInput: when it is asked for a picture outside the folder.
    """

    @cache
    def sides(name: str) -> Sides:
        if folder is None:
            return UNKNOWN
        from PIL import Image, UnidentifiedImageError

        root = folder.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise BadInput(f"image {name!r} lies outside {folder}")
        try:
            with Image.open(path) as picture:  # its head alone is read
                return picture.height, picture.width
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            return UNKNOWN

    return sides
