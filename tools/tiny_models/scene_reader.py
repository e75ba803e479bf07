"""Read a picture back: which things stand where on which ground, and whether that is what a prompt asked.

Plain image analysis, no learned judge. Every pixel takes the nearest palette colour; what is not background
and hangs together is a blob; a blob's shape is the template that overlaps it best. The reader is checked on
drawn scenes, where the truth is known, before its verdict on generated ones means anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tools.tiny_models.scenes import PALETTE, SHAPES, Scene, draw

# Blobs below this share of the squared shorter side are specks; a drawn thing has at least 0.04.
SMALLEST_BLOB = 0.01
# The blended edge of a small thing takes other palette colours, its inside must not.
LEAST_PURITY = 0.65
LEAST_OVERLAP = 0.8
LARGEST_ELONGATION = 1.35

_NAMES = tuple(PALETTE)
_COLOURS = np.array([PALETTE[name] for name in _NAMES], dtype=np.float32)


@dataclass(frozen=True)
class Blob:
    """A connected region that is not background; `colour` or `shape` is None where none fits.

    `centre` is `(y, x)` as fractions of the canvas, `area` is in pixels.
    """

    colour: str | None
    shape: str | None
    centre: tuple[float, float]
    area: int


@dataclass(frozen=True)
class Reading:
    """What a picture shows; the largest blob comes first."""

    background: str
    blobs: tuple[Blob, ...]


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows what its scene says.

    Both verdicts ask for exactly the told number of things, placed as told. `colour` adds every thing's
    colour and the background's, `shape` adds every thing's shape.
    """

    colour: bool
    shape: bool


def read(picture: NDArray[np.uint8]) -> Reading:
    """Segment an RGB picture `(height, width, 3)` into background and blobs."""
    labels = _nearest_colours(picture)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    background = int(np.bincount(border).argmax())
    regions, _ = ndimage.label(labels != background)
    smallest = SMALLEST_BLOB * min(labels.shape) ** 2
    blobs = []
    for index, window in enumerate(ndimage.find_objects(regions), start=1):
        mask = regions[window] == index
        if mask.sum() >= smallest:
            blobs.append(_blob(mask, labels[window], window, labels.shape))
    return Reading(_NAMES[background], tuple(sorted(blobs, key=lambda blob: -blob.area)))


def judge(scene: Scene, picture: NDArray[np.uint8]) -> Verdict:
    """Compare what an RGB picture `(height, width, 3)` shows with what the scene says."""
    reading = read(picture)
    if len(reading.blobs) != len(scene.things):
        return Verdict(colour=False, shape=False)
    blobs = _in_told_order(scene, reading.blobs)
    if blobs is None:
        return Verdict(colour=False, shape=False)
    pairs = list(zip(blobs, scene.things, strict=True))
    return Verdict(
        colour=reading.background == scene.background and all(b.colour == t.colour for b, t in pairs),
        shape=all(b.shape == t.shape for b, t in pairs),
    )


def accuracy_on_drawn(scenes: Sequence[Scene], height: int, width: int, seed: int = 0) -> tuple[float, float]:
    """Shares of drawn (so surely right) scenes that `judge` calls right in colour and in shape."""
    rng = np.random.default_rng(seed)
    verdicts = [judge(scene, draw(scene, height, width, rng)) for scene in scenes]
    return share_right(verdicts)


def share_right(verdicts: Sequence[Verdict]) -> tuple[float, float]:
    """Shares (0..1) of verdicts that are right in colour and in shape."""
    colour = sum(verdict.colour for verdict in verdicts) / len(verdicts)
    shape = sum(verdict.shape for verdict in verdicts) / len(verdicts)
    return colour, shape


def _nearest_colours(picture: NDArray[np.uint8]) -> NDArray[np.intp]:
    # argmin |p - c|^2 over colours c, without the |p|^2 that all of them share
    pixels = picture.astype(np.float32)
    return ((_COLOURS**2).sum(axis=1) - 2 * pixels @ _COLOURS.T).argmin(axis=-1)


def _blob(
    mask: NDArray[np.bool_], labels: NDArray[np.intp], window: tuple[slice, slice], canvas: tuple[int, ...]
) -> Blob:
    votes = np.bincount(labels[mask], minlength=len(_NAMES))
    pure = votes.max() >= LEAST_PURITY * votes.sum()
    rows, columns = np.nonzero(mask)
    centre_y = (window[0].start + rows.mean() + 0.5) / canvas[0]
    centre_x = (window[1].start + columns.mean() + 0.5) / canvas[1]
    colour = _NAMES[int(votes.argmax())] if pure else None
    return Blob(colour, _shape_of(mask), (float(centre_y), float(centre_x)), int(mask.sum()))


def _shape_of(mask: NDArray[np.bool_]) -> str | None:
    """The shape whose template, stretched to the mask's bounding box, has the largest overlap (IoU)."""
    height, width = mask.shape
    if max(height, width) > LARGEST_ELONGATION * min(height, width):
        return None
    y = (np.arange(height)[:, None] + 0.5) / height
    x = (np.arange(width)[None, :] + 0.5) / width
    templates = {
        "circle": (y - 0.5) ** 2 + (x - 0.5) ** 2 <= 0.25,
        "square": np.ones_like(mask),
        "triangle": np.abs(x - 0.5) <= y / 2,
    }
    overlap = {shape: (mask & templates[shape]).sum() / (mask | templates[shape]).sum() for shape in SHAPES}
    best = max(overlap, key=lambda shape: overlap[shape])
    return best if overlap[best] >= LEAST_OVERLAP else None


def _in_told_order(scene: Scene, blobs: tuple[Blob, ...]) -> tuple[Blob, ...] | None:
    """The blobs in the order the scene names its things; None when they do not lie along the told axis."""
    if scene.relation is None:
        return blobs
    axis = 1 if scene.relation in ("left of", "right of") else 0
    near, far = sorted(blobs, key=lambda blob: blob.centre[axis])
    if far.centre[axis] - near.centre[axis] <= abs(far.centre[1 - axis] - near.centre[1 - axis]):
        return None
    return (near, far) if scene.relation in ("left of", "above") else (far, near)
