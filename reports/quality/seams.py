"""Seams: steps along the borders of tiles that the picture's own content does not explain.

The step at a border is the difference of the means on its two sides, less the trend on either side, so that smooth
shading counts nothing (as in the mean squared difference of slopes of Minami and Zakhor, "An optimization approach for
removing blocking effects in transform coding", 1995). With boxes ``q-2 q-1 | q0 q1`` of ``width`` pixels
across the border:

    step = (q0 - q-1) - ((q-1 - q-2) + (q1 - q0)) / 2

A seam runs along the whole border of a tile and an object's edge does not. So the strength of a stretch of border is a
low percentile of the steps along it, and it is compared with parallel lines that are no border. Several widths are
tried, because a VAE spreads a step between latent pixels over some pixels of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reports.quality.frames import Frames
from traces.errors import BadInput

WIDTHS = (1, 4, 8)
"""Pixels a box on either side of a border."""
PERCENTILE = 25
"""Of the steps along a stretch: below the half, so that an object's edge along part of a border does not count."""
GREY_LEVEL = 1 / 255
"""Added to both sides of each ratio: in a flat picture, a ratio of 1 + n is a step of n grey levels."""
LEAST_PERIOD = 16
"""Pixels between two borders, at least, where they are searched for."""
LEAST_SIDE = 16
"""Widths of a box that the picture's side must hold, where borders are searched for."""
MARGIN = 9
"""Lines along the picture's edge where none are searched for: decoders draw the edge a little differently."""
SHUFFLES = 15
"""Random orders of the lines that say how strong a regular grid of them gets by chance."""

Floats = NDArray[np.float64]


class Borders(NamedTuple):
    """Where tiles meet, in pixels: a border at row r lies between rows r - 1 and r. Increasing, inside the picture."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def check(self, height: int, width: int) -> None:
        """Raises BadInput where a border is not inside a picture of that size, or they do not increase."""
        for name, lines, length in (("rows", self.rows, height), ("columns", self.columns, width)):
            stops = (0, *lines, length)
            if any(b <= a for a, b in pairwise(stops)):
                given = ", ".join(map(str, lines))
                raise BadInput(f"border {name} {given}: expected increasing numbers in 1..{length - 1}")


class SeamGrid(NamedTuple):
    """Seams as found: ``axis`` lines at ``offset + n * period`` pixels; period 0: one line."""

    energy: float
    axis: str = ""
    period: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.axis} {self.offset}" + (f" + {self.period} n" if self.period else "") if self.axis else ""


def seam_energy(frames: Frames, borders: Borders) -> float:
    """Strength of the given borders against that of parallel lines inside the tiles on both sides; 1: no seam.

    Each stretch of border between two tiles gives the ratio of its strength to the mean strength, over the same span,
    of the lines of both tiles that are far enough from any border not to see it. The result is the geometric mean over
    all stretches, at the width where it is largest; with few stretches, detailed pictures without seams reach 1.8 by
    chance. NaN without borders or where tiles are too small for such a line.

    Raises:
        BadInput: a border outside the picture.
    """
    borders.check(*frames.shape[1:3])
    return max((ratio for width in WIDTHS if not math.isnan(ratio := _ratio(frames, borders, width))), default=math.nan)


def find_seams(frames: Frames) -> SeamGrid:
    """The regular grid of lines, of any period and offset, that stands out most; energy about 1: no seams.

    Pictures without seams reach 1.5, so a smaller energy says something only beside that of a picture without tiles.
    A grid has at least two lines. Each line, over the whole picture, weighs as much as the logarithm of its strength
    over that of the median line; a grid weighs the sum over the root of the number of its lines, their score if lines
    were independent. Random orders of the same lines hold such grids too: what the heaviest weighs more than the
    heaviest by chance (the median of `SHUFFLES`) is spread over its lines, and its exponential is the energy. So a few
    strong edges of the picture's own do not look like a grid. One border only, in the middle or with one across it on
    the other axis, is a grid too: its energy is its strength against that of the strongest line off it, with two the
    smaller. All this sees much less than `seam_energy`. NaN for sides below 4 * `LEAST_PERIOD` pixels.
    """
    found = []
    for width in WIDTHS:
        lone = []
        for axis, view in (("rows", frames.swapaxes(1, 2)), ("columns", frames)):
            length = view.shape[2]
            if length >= max(4 * LEAST_PERIOD, LEAST_SIDE * width):
                strength = np.log(_strength(view, width, (0, view.shape[1]))[0] + GREY_LEVEL)
                strength[:MARGIN] = strength[-MARGIN:] = math.nan
                found.append(_heaviest(axis, strength))
                lone.append(_strongest(axis, strength, width))
                if 2 * lone[-1].offset == length:
                    found.append(lone[-1])
        if len(lone) == 2:
            found.append(min(lone))
    return max(found, default=SeamGrid(math.nan))


def _ratio(frames: Frames, borders: Borders, width: int) -> float:
    logs: list[Floats] = []
    for view, lines, across in (
        (frames, borders.columns, borders.rows),
        (frames.swapaxes(1, 2), borders.rows, borders.columns),
    ):
        strength = _strength(view, width, (0, *across, view.shape[1]))
        stops = np.array((0, *lines, view.shape[2]))
        for before, border, behind in zip(stops, stops[1:], stops[2:], strict=False):
            others = np.arange(before, behind + 1)
            others = others[np.abs(others[:, None] - stops).min(1) >= 2 * width]
            if len(others) and not np.isnan(strength[0, border]):
                elsewhere = strength[:, others].mean(1)
                logs.append(np.log((strength[:, border] + GREY_LEVEL) / (elsewhere + GREY_LEVEL)))
    return float(np.exp(np.concatenate(logs).mean())) if logs else math.nan


def _strength(frames: Frames, width: int, stops: Sequence[int]) -> Floats:
    """[stretches, columns + 1]: strength of each column line between each two stops, the mean over frames.

    NaN for lines less than two boxes from the picture's edge.
    """
    columns = frames.shape[2]
    strength = np.full((len(stops) - 1, columns + 1), math.nan)
    lines = columns - 4 * width + 1
    if lines < 1:
        return strength
    total = np.zeros((len(stops) - 1, lines))
    for frame in frames:
        steps = _steps(frame, width, lines)
        total += [np.percentile(steps[top:bottom], PERCENTILE, axis=0) for top, bottom in pairwise(stops)]
    strength[:, 2 * width : 2 * width + lines] = total / len(frames)
    return strength


def _steps(frame: NDArray[np.float32], width: int, lines: int) -> Floats:
    """[rows, lines]: the step across each column line, root mean square over channels; the first line is 2 * width."""
    sums = np.pad(frame.cumsum(1, dtype=np.float64), ((0, 0), (1, 0), (0, 0)))
    boxes = (sums[:, width:] - sums[:, :-width]) / width
    outer_left, left, right, outer_right = (boxes[:, at * width : at * width + lines] for at in range(4))
    step = (right - left) - ((left - outer_left) + (outer_right - right)) / 2
    return np.sqrt((step**2).mean(-1))


def _strongest(axis: str, strength: Floats, width: int) -> SeamGrid:
    line = int(np.nanargmax(strength))
    others = np.delete(strength, np.s_[line - 2 * width + 1 : line + 2 * width])
    return SeamGrid(float(np.exp(strength[line] - np.nanmax(others))), axis, 0, line)


def _heaviest(axis: str, strength: Floats) -> SeamGrid:
    length = len(strength) - 1
    known = np.flatnonzero(~np.isnan(strength))
    random = np.random.default_rng(0)
    orders = np.full((1 + SHUFFLES, length + 1), math.nan)
    orders[0, known] = strength[known] - np.median(strength[known])
    for order in orders[1:]:
        order[known] = random.permutation(orders[0, known])
    best = np.full(len(orders), -math.inf)
    period, offset, lines = 0, 0, 1
    for spacing in range(LEAST_PERIOD, length // 2 + 1):
        weights, counts = _grid_weights(orders, spacing, length)
        here = weights.argmax(1)
        top = weights[np.arange(len(orders)), here]
        if top[0] > best[0]:
            period, offset, lines = spacing, int(here[0]), int(counts[here[0]])
        best = np.maximum(best, top)
    excess = (best[0] - np.median(best[1:])) / math.sqrt(lines)
    return SeamGrid(float(np.exp(excess)), axis, period, offset)


def _grid_weights(orders: Floats, spacing: int, length: int) -> tuple[Floats, NDArray[np.int64]]:
    """[orders, offsets]: sum of the lines of each grid of that spacing, over the root of their number; [offsets]: that.

    Minus infinity for what is no grid.
    """
    rows = -(-(length + 1) // spacing)
    padded = np.full((len(orders), rows * spacing), math.nan)
    padded[:, : length + 1] = orders
    grids = padded.reshape(len(orders), rows, spacing)
    lines = (~np.isnan(grids[0])).sum(0)
    return np.where(lines >= 2, np.nansum(grids, 1) / np.sqrt(np.maximum(lines, 1)), -math.inf), lines
