"""Tile grids: a canvas of any size cut into windows that a model can see.

A tile has a *core*, the pixels it gives to the canvas, and a *window*, what the model sees. The cores of a step cover
every latent pixel exactly once, whatever the canvas, the grid and the shift; so nothing is left out and nothing is
done twice. The published grids know three canvas sizes and leave rows of a 1080p canvas uncovered.

How the grid moves from step to step (see `policies.tiling.shifts`):

- ``wrap``: round the canvas as if its opposite edges met. Tiles keep their sizes, but one that lies across an edge sees
  the opposite one.
- ``clamp``: to and fro. At the edges cores are cut, and their windows reach inwards instead of across.

With an ``overlap`` windows reach that far beyond their cores and the results are blended by `TileGrid.weights`.
All lengths are latent pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MODES = ("wrap", "clamp")


class Box(NamedTuple):
    """A rectangle of the canvas; in ``wrap`` mode it may run on past the last row or column to the first."""

    top: int
    left: int
    height: int
    width: int

    def rows(self, canvas_height: int) -> Ints:
        """Its rows, [height], modulo the canvas."""
        return np.arange(self.top, self.top + self.height) % canvas_height

    def columns(self, canvas_width: int) -> Ints:
        """Its columns, [width], modulo the canvas."""
        return np.arange(self.left, self.left + self.width) % canvas_width


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a step.

    Attributes:
        index: row by row, and the same from step to step.
        core: the pixels it gives to the canvas.
        window: what the model sees; holds the core, and its sides are multiples of the grid's ``multiple``.
    """

    index: int
    core: Box
    window: Box


class _Span(NamedTuple):
    """A tile along one axis: its place among the tiles, then where core and window start and how long they are."""

    place: int
    core: int
    core_length: int
    window: int
    window_length: int


@dataclass(frozen=True)
class TileGrid:
    """How a canvas is cut.

    Attributes:
        canvas: (height, width).
        rows: lengths of the tiles from top to bottom; their sum is the canvas's height.
        columns: from left to right.
        mode: ``wrap`` or ``clamp``.
        overlap: how far a window reaches beyond its core.
        multiple: what the sides of a window are multiples of; the canvas must be one, too.

    Raises:
        ValueError: lengths that do not cover the canvas, or any other impossible value.
    """

    canvas: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    mode: str = "wrap"
    overlap: int = 0
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}, expected one of {', '.join(MODES)}")
        if self.overlap < 0 or self.multiple < 1:
            raise ValueError(f"overlap is {self.overlap} and multiple {self.multiple}, expected at least 0 and 1")
        for axis, extent, lengths in zip(("rows", "columns"), self.canvas, (self.rows, self.columns), strict=True):
            if not lengths or min(lengths) < 1 or sum(lengths) != extent:
                raise ValueError(f"{axis} are {lengths}, expected lengths of at least 1 that sum to {extent}")
            if any(length % self.multiple for length in lengths):
                raise ValueError(f"{axis} are {lengths}, expected multiples of {self.multiple}")

    @property
    def most(self) -> int:
        """The most tiles a step can have."""
        return self._places(self.rows) * self._places(self.columns)

    def tiles(self, shift: tuple[int, int] = (0, 0)) -> tuple[Tile, ...]:
        """The tiles of a step whose grid is moved by ``shift`` (down, right), in order of their index."""
        across = self._places(self.columns)
        return tuple(
            Tile(
                row.place * across + column.place,
                Box(row.core, column.core, row.core_length, column.core_length),
                Box(row.window, column.window, row.window_length, column.window_length),
            )
            for row in self._spans(0, shift[0])
            for column in self._spans(1, shift[1])
        )

    def weights(self, shift: tuple[int, int], tile: Tile) -> Floats:
        """How much ``tile`` counts at each pixel of its window, [height, width].

        Over the tiles of a step the weights of a pixel sum to one.
        """
        across = self._places(self.columns)
        down, right = tile.index // across, tile.index % across
        along_rows = dict(zip([span.place for span in self._spans(0, shift[0])], self._ramps(0, shift[0]), strict=True))
        along_columns = dict(
            zip([span.place for span in self._spans(1, shift[1])], self._ramps(1, shift[1]), strict=True)
        )
        return np.outer(along_rows[down], along_columns[right])

    def _places(self, lengths: tuple[int, ...]) -> int:
        return len(lengths) + (self.mode == "clamp" and len(lengths) > 1)

    def _spans(self, axis: int, shift: int) -> tuple[_Span, ...]:
        lengths = (self.rows, self.columns)[axis]
        return _spans(lengths, self.mode, self.overlap, self.multiple, shift)

    def _ramps(self, axis: int, shift: int) -> tuple[Floats, ...]:
        lengths = (self.rows, self.columns)[axis]
        return _ramps(lengths, self.mode, self.overlap, self.multiple, shift)


def split(length: int, tile: int, multiple: int = 1) -> tuple[int, ...]:
    """Lengths of the fewest tiles of at most ``tile`` that cover ``length``, as even as multiples allow.

    Raises:
        ValueError: no tile can be that short, or ``length`` is no multiple of ``multiple``.
    """
    most = tile // multiple
    if most < 1 or length < 1 or length % multiple:
        raise ValueError(f"cannot cut {length} into tiles of at most {tile} that are multiples of {multiple}")
    return cut(length, -(-(length // multiple) // most), multiple)


def cut(length: int, tiles: int, multiple: int = 1) -> tuple[int, ...]:
    """Lengths of so many tiles that cover ``length``, as even as multiples allow, the longer ones first.

    Raises:
        ValueError: there are not so many multiples in ``length``.
    """
    units, rest = divmod(length, multiple)
    if rest or not 1 <= tiles <= units:
        raise ValueError(f"cannot cut {length} into {tiles} tiles that are multiples of {multiple}")
    each, more = divmod(units, tiles)
    return tuple((each + (i < more)) * multiple for i in range(tiles))


@lru_cache(maxsize=4096)
def _spans(lengths: tuple[int, ...], mode: str, overlap: int, multiple: int, shift: int) -> tuple[_Span, ...]:
    extent = sum(lengths)
    if len(lengths) == 1:
        return (_Span(0, 0, extent, 0, extent),)
    if mode == "wrap":
        starts = np.cumsum((0, *lengths[:-1])).tolist()
        return tuple(
            _wrapping(place, (start + shift) % extent, length, overlap, multiple, extent)
            for place, (start, length) in enumerate(zip(starts, lengths, strict=True))
        )
    lines = [0, *(min(line + shift, extent) for line in np.cumsum((0, *lengths[:-1])).tolist()), extent]
    least = -(-max(lengths) // 2)
    return tuple(
        _clamped(place=place, start=start, end=end, overlap=overlap, least=least, multiple=multiple, extent=extent)
        for place, (start, end) in enumerate(pairwise(lines))
        if end > start
    )


def _wrapping(place: int, start: int, length: int, overlap: int, multiple: int, extent: int) -> _Span:
    window = min(extent, _round_up(length + 2 * overlap, multiple))
    return _Span(place, start, length, (start - min(overlap, (window - length) // 2)) % extent, window)


def _clamped(place: int, start: int, end: int, overlap: int, least: int, multiple: int, extent: int) -> _Span:
    low, high = max(0, start - overlap), min(extent, end + overlap)
    window = min(extent, _round_up(max(high - low, least), multiple))
    first = min(max(0, low - (window - (high - low)) // 2), extent - window)
    return _Span(place, start, end - start, first, window)


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


@lru_cache(maxsize=4096)
def _ramps(lengths: tuple[int, ...], mode: str, overlap: int, multiple: int, shift: int) -> tuple[Floats, ...]:
    """For each span the weights along its window: linear from 0 to 1 across the borders of cores, summing to one."""
    extent = sum(lengths)
    spans = _spans(lengths, mode, overlap, multiple, shift)
    raw, total = [], np.zeros(extent)
    for span in spans:
        inside = (span.core - span.window) % extent if mode == "wrap" else span.core - span.window
        at: Floats = np.arange(span.window_length, dtype=np.float64) + 0.5 - inside  # from the start of the core
        weights = np.ones_like(at)
        edges = mode == "clamp" or len(spans) == 1  # at the edges of a canvas that does not wrap nothing is blended
        if not (edges and span.core == 0):
            weights = weights * _rise(at, overlap)
        if not (edges and span.core + span.core_length == extent):
            weights = weights * _rise(span.core_length - at, overlap)
        raw.append(weights)
        np.add.at(total, np.arange(span.window, span.window + span.window_length) % extent, weights)
    return tuple(
        weights / total[np.arange(span.window, span.window + span.window_length) % extent]
        for span, weights in zip(spans, raw, strict=True)
    )


def _rise(inward: Floats, overlap: int) -> Floats:
    """0 to 1 from ``overlap`` outside a border to as far inside it; a step where there is no overlap."""
    return np.clip(0.5 + inward / (2 * overlap), 0.0, 1.0) if overlap else (inward > 0).astype(np.float64)
