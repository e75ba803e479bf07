"""Images of several sizes as one batch of equal patches: where each patch lies and who its neighbours are.

A *row* is one image of a denoiser's batch (a request with classifier-free guidance has two). Patches stand row by row,
and within a row line by line. Every table here depends on the sizes alone, so layouts are kept and shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from math import gcd
from typing import NamedTuple

import torch

from backend.kernels.attention import Segments, segments_of

Side = tuple[int, int]
"""(height, width) in latent pixels."""


class RowGroup(NamedTuple):
    """Neighbouring rows of one size: their patches are ``patches`` each, from patch ``start``, rows from ``row``."""

    row: int
    rows: int
    start: int
    patches: int


class Strip(NamedTuple):
    """Patches that have a neighbour in one direction, and these neighbours; both are indices of patches."""

    patch: torch.Tensor
    neighbour: torch.Tensor


DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


class PatchLayout:
    """Rows of ``sizes`` cut into patches of ``patch`` latent pixels.

    Args:
        sizes: (height, width) of each row, multiples of the patch; rows of one size should stand together.
        patch: (height, width).
        device: where the tables lie.

    Attributes:
        grids: (lines, columns) of patches of each row.
        starts: first patch of each row, and at the end the number of patches.
        row_of: [patches] row of each patch.
        neighbours: [patches, 3, 3] patch above left, above, ...; ``len(layout)`` outside the image.
    """

    def __init__(self, sizes: Sequence[Side], patch: Side, device: torch.device) -> None:
        for height, width in sizes:
            if height % patch[0] or width % patch[1]:
                raise ValueError(f"image of {height}x{width} latent pixels does not divide into {patch[0]}x{patch[1]}")
        self.sizes = tuple(sizes)
        self.patch = patch
        self.device = device
        self.grids = [(height // patch[0], width // patch[1]) for height, width in sizes]
        counts = [lines * columns for lines, columns in self.grids]
        self.starts = [0]
        for count in counts:
            self.starts.append(self.starts[-1] + count)
        total = self.starts[-1]
        neighbours = torch.full((total, 3, 3), total, dtype=torch.long)
        for start, (lines, columns) in zip(self.starts, self.grids, strict=False):
            framed = torch.full((lines + 2, columns + 2), total, dtype=torch.long)
            framed[1:-1, 1:-1] = torch.arange(start, start + lines * columns).view(lines, columns)
            around = framed.unfold(0, 3, 1).unfold(1, 3, 1)
            neighbours[start : start + lines * columns] = around.reshape(-1, 3, 3)
        self.neighbours = neighbours.to(device)
        self.row_of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(counts)).to(device)
        self.patches_of_row = torch.tensor(counts, device=device)
        self.whole = total == len(sizes)  # nothing is cut
        self._segments: dict[tuple[int, ...], Segments] = {}

    def __len__(self) -> int:
        return self.starts[-1]

    @cached_property
    def groups(self) -> list[RowGroup]:
        """Runs of rows of one size."""
        groups: list[RowGroup] = []
        for row, size in enumerate(self.sizes):
            patches = self.starts[row + 1] - self.starts[row]
            if groups and self.sizes[groups[-1].row] == size:
                groups[-1] = groups[-1]._replace(rows=groups[-1].rows + 1)
            else:
                groups.append(RowGroup(row, 1, self.starts[row], patches))
        return groups

    @cached_property
    def first_patches(self) -> torch.Tensor:
        """[rows] the first patch of each row."""
        return torch.tensor(self.starts[:-1], device=self.device)

    def segments(self, lengths: tuple[int, ...]) -> Segments:
        """Tokens of rows, for attention. The layout holds on to them: a recorded forward reads their tables."""
        return self._segments.setdefault(lengths, segments_of(lengths, self.device))

    def strips_of(self, selected: torch.Tensor) -> dict[Side, Strip]:
        """For each of `DIRECTIONS` (down, right) the patches with a neighbour there, of those selected.

        ``Strip.patch`` indexes ``selected``.
        """
        around = self.neighbours[selected]
        strips = {}
        for down, right in DIRECTIONS:
            neighbour = around[:, down + 1, right + 1]
            patch = (neighbour < len(self)).nonzero().flatten()
            strips[down, right] = Strip(patch, neighbour[patch])
        return strips

    def split(self, images: Iterable[torch.Tensor]) -> torch.Tensor:
        """Stacks of equal images, each [rows, channels, height, width], in row order -> [patches, channels, *patch]."""
        height, width = self.patch
        parts = []
        for stack in images:
            rows, channels, full_height, full_width = stack.shape
            lines, columns = full_height // height, full_width // width
            cut = stack.reshape(rows, channels, lines, height, columns, width)
            parts.append(cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height, width))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def join(self, patches: torch.Tensor) -> list[torch.Tensor]:
        """[patches, channels, h, w] -> for each of `groups` a stack [rows, channels, lines * h, columns * w]."""
        _, channels, height, width = patches.shape
        stacks = []
        for group in self.groups:
            lines, columns = self.grids[group.row]
            of_group = patches[group.start : group.start + group.rows * group.patches]
            cut = of_group.reshape(group.rows, lines, columns, channels, height, width)
            joined = cut.permute(0, 3, 1, 4, 2, 5)
            stacks.append(joined.reshape(group.rows, channels, lines * height, columns * width))
        return stacks


@lru_cache(maxsize=64)
def layout_of(sizes: tuple[Side, ...], patch: Side, device: torch.device) -> PatchLayout:
    """The layout of a composition, kept: a batch keeps its composition for many steps."""
    return PatchLayout(sizes, patch, device)


def patch_of(sizes: Iterable[Side]) -> Side:
    """The largest patch that divides every size: the greatest common divisor along each axis (PatchedServe)."""
    height = width = 0
    for h, w in sizes:
        height, width = gcd(height, h), gcd(width, w)
    return height, width


def group_sizes(sizes: Iterable[Side], floor: int) -> list[tuple[Side, ...]]:
    """Sizes that share a forward: sets whose greatest common divisors are at least ``floor`` along both axes.

    Cutting images into ever smaller patches to fit one odd size costs more than a forward of its own, so a size
    joins the first group whose patch stays large enough, largest images first; one size alone is never cut.
    """
    groups: list[list[Side]] = []
    for size in sorted(set(sizes), key=lambda s: (-s[0] * s[1], s)):
        for group in groups:
            if min(patch_of([*group, size])) >= floor:
                group.append(size)
                break
        else:
            groups.append([size])
    return [tuple(sorted(group)) for group in groups]
