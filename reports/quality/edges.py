"""Edge leak: what a canvas treated as a torus lets through from its opposite edge.

Under wrap, a tile at the edge has the opposite edge for a neighbour, and the model makes the two fit: an object that
the bottom cuts off goes on at the top. The outermost strip then resembles the opposite one beyond what the strip just
inside it explains.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from reports.quality.frames import Frames

STRIPS = 16
"""A strip is this part of the picture's side."""
NOISE = 8 / 255
"""Content of a strip that is weaker than this, root mean square, explains little."""

Profile = NDArray[np.float32]


def edge_leak(frames: Frames) -> float:
    """The share of an edge's content that comes from the opposite edge; about 0 or less: none.

    Content is what is left of a strip, averaged over its depth, without its mean colour: plain ground is no content.
    The share is ``a`` of the least-squares fit ``outer = b inner + a opposite``. Where it is as large with a strip from
    inside the picture for the opposite one, content only repeats (stripes, say): the largest such share is taken off,
    of all strips between, but for the nearest to the opposite edge, which look like it. The mean of two opposite edges;
    of rows and columns the larger. NaN for sides below 2 * `STRIPS` pixels.
    """
    views = (frames, frames.swapaxes(1, 2))
    shares = [(_excess(view) + _excess(view[:, ::-1])) / 2 for view in views if view.shape[1] >= 2 * STRIPS]
    return max(shares, default=math.nan)


def _excess(frames: Frames) -> float:
    height = frames.shape[1]
    depth = height // STRIPS
    outer, inner, opposite = (_content(frames, top, depth) for top in (0, depth, height - depth))
    inside = range(2 * depth, height - 4 * depth + 1, max(1, depth // 2))
    expected = max(_share(outer, inner, _content(frames, top, depth)) for top in inside)
    return _share(outer, inner, opposite) - expected


def _content(frames: Frames, top: int, depth: int) -> Profile:
    """[frames, columns, 3]"""
    strip = frames[:, top : top + depth].mean(1)
    return strip - strip.mean(1, keepdims=True)


def _share(outer: Profile, inner: Profile, source: Profile) -> float:
    noise = outer.size * NOISE**2
    both = float(np.sum(inner * source))
    normal = np.array([[np.sum(inner**2) + noise, both], [both, np.sum(source**2) + noise]])
    return float(np.linalg.solve(normal, np.array([np.sum(outer * inner), np.sum(outer * source)]))[1])
