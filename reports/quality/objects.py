"""Repeated objects: every tile sees the whole prompt, so it may draw the object once more.

Objects are connected regions of a colour that is not the ground's. That is exact for flat scenes; of
photographs it says little, and only against the sketch, as both are cut into regions alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reports.quality.frames import Frames, shrunk

SIDE = 128
"""Pixels of the shorter side that frames are averaged down to, at least."""
COLOUR_RADIUS = 0.25
"""Colours nearer than this, in RGB of 0..1, are one."""
COLOURS = 12
"""Colours of a palette at most."""
LEAST_AREA = 0.005
"""Part of the picture that a colour or an object covers at least."""
FRAMES = 5
"""Frames of a clip that are looked at, evenly spread."""

Palette = NDArray[np.float32]


def palette_of(frames: Frames, known: Palette | None = None) -> Palette:
    """The ``known`` colours and those that a clip has besides, [colours, 3], the most frequent first.

    The popularity algorithm (Heckbert, "Color image quantization for frame buffer display", 1982), each colour taking
    all within `COLOUR_RADIUS`, until what is left of one covers less than `LEAST_AREA`.
    """
    rest = _looked_at(frames).reshape(-1, 3)
    least = LEAST_AREA * len(rest)
    colours: list[NDArray[np.float32]] = [] if known is None else list(known)
    for colour in colours:
        rest = rest[np.linalg.norm(rest - colour, axis=1) >= COLOUR_RADIUS]
    while len(colours) < COLOURS and len(rest):
        bins = (rest * 15.999).astype(np.int32) @ (256, 16, 1)
        common = rest[bins == np.bincount(bins).argmax()].mean(0)
        near = np.linalg.norm(rest - common, axis=1) < COLOUR_RADIUS
        if near.sum() < least and colours:
            break
        colours.append(rest[near].mean(0))
        rest = rest[~near]
    return np.array(colours, np.float32)


def count_objects(frames: Frames, palette: Palette) -> float:
    """Objects of a picture, or the median over frames of a clip.

    Pixels take the nearest colour of the palette; the most frequent one is the ground. Of every other colour, regions
    that an opening by 3x3 pixels leaves and that cover `LEAST_AREA` count one each.
    """
    from scipy.ndimage import binary_opening, label

    counts = []
    for frame in _looked_at(frames):
        nearest = ((frame[..., None, :] - palette) ** 2).sum(-1).argmin(-1)
        ground = np.bincount(nearest.ravel()).argmax()
        count = 0
        for colour in set(range(len(palette))) - {int(ground)}:
            regions, _ = label(binary_opening(nearest == colour, np.ones((3, 3))))
            count += int((np.bincount(regions.ravel())[1:] >= LEAST_AREA * regions.size).sum())
        counts.append(count)
    return float(np.median(counts))


def _looked_at(frames: Frames) -> Frames:
    chosen = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    return shrunk(frames[chosen], SIDE)
