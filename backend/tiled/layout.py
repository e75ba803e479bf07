"""How a tensor lays out the latents of a picture, found out from where numbered latents lie in it.

Pipelines lay latents out as [rows, channels, height, width], with frames before or after the channels, as tokens of
2 x 2 pixels, with conditions behind the channels or behind the tokens, or as a list. Here all of them are
[rows, channels, frames, height, width].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from traces.errors import BadInput

Extent = tuple[int, int]
"""(height, width) in latent pixels."""
_ORDER = "cfyvxu"
"""Channels, frames, rows of patches, rows in a patch, columns of patches, columns in a patch."""


@dataclass(frozen=True)
class Layout:
    """Where the latents lie in a tensor.

    Attributes:
        axes: for each axis after the rows what it counts, outermost first: ``c`` channels, ``f`` frames, ``y`` and
            ``x`` rows and columns of patches, ``v`` and ``u`` those within a patch; empty: one entry.
        patch: latent pixels along a patch's side.
        listed: whether it is a list of one tensor a row.
        more_tokens: whether tokens that are no latents follow.
    """

    axes: tuple[str, ...]
    patch: int = 1
    listed: bool = False
    more_tokens: bool = False

    @classmethod
    def found(cls, places: Sequence[torch.Tensor], shape: Sequence[int], listed: bool = False) -> Layout:
        """The layout in which latents lie at given places.

        Args:
            places: for each axis after the rows where a latent lies on it, [channels, frames, height, width]; -1 where
                it does not lie anywhere.
            shape: length of each of these axes.
            listed: see `Layout`.

        Raises:
            BadInput: they are laid out in no way that is known.
        """
        extents = places[0].shape
        known = (places[0] >= 0).transpose(0, 1).flatten(1).all(1)
        if not known.any():
            raise BadInput("the latents of its sampler are not found in it")
        frames = known.nonzero().flatten()
        lines = [[_line(place, axis, frames) for axis in range(4)] for place in places]
        for patch in range(1, min(extents[2:]) // 2 + 1):
            if extents[2] % patch or extents[3] % patch:
                continue
            axes = [_axis_of(of_place, extents, patch) for of_place in lines]
            layout = cls(tuple(axes), patch, listed) if None not in axes else None  # type: ignore[arg-type]
            if layout is not None and any(layout._holds(places, shape, frames, left) for left in (0, int(frames[0]))):
                tokens = [(names, n) for names, n in zip(layout.axes, shape, strict=True) if {"y", "x"} & set(names)]
                over = any(
                    not set(names) & set("cf") and n > math.prod(layout._sizes(extents)[name] for name in names)
                    for names, n in tokens
                )
                return cls(layout.axes, patch, listed, over)
        raise BadInput("its latents are laid out in no way that is known")

    def split(self, value: Any, canvas: Extent) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Latents of a canvas, [rows, channels, frames, height, width], and the tokens that follow them, if any.

        The first shares memory with ``value`` where that is possible.

        Raises:
            BadInput: they are not of the canvas's size.
        """
        tensor = torch.stack(list(value)) if self.listed else value
        sizes, shape, more = self._sizes((0, 0, *canvas)), [len(tensor)], None
        if tensor.ndim != len(self.axes) + 1:
            raise BadInput(f"the pipeline made latents of the shape {tuple(tensor.shape)}, not as it does elsewhere")
        for at, names in enumerate(self.axes, 1):
            length, own = tensor.shape[at], math.prod(sizes[name] for name in names if name in sizes)
            free = [name for name in names if name not in sizes]
            if not free and self.more_tokens and length > own:
                more, tensor, length = tensor.narrow(at, own, length - own), tensor.narrow(at, 0, own), own
            if length % max(1, own) or (not free and length != own):
                raise self._missized(tensor, canvas)
            shape += [length // own if name in free else sizes[name] for name in names]
        parts = tensor.reshape(shape)
        order = "".join(self.axes)
        parts = parts.permute(0, *(1 + order.index(name) for name in _ORDER if name in order))
        full = [len(parts)]
        rest = iter(parts.shape[1:])
        full += [next(rest) if name in order else 1 for name in _ORDER]
        parts = parts.reshape(full)
        return parts.reshape(full[0], full[1], full[2], full[3] * full[4], full[5] * full[6]), more

    def holds(self, value: torch.Tensor, canvas: Extent) -> bool:
        """Whether it has latents of a canvas of this size."""
        try:
            self.split(value, canvas)
        except BadInput:
            return False
        return True

    def join(self, latents: torch.Tensor, more: torch.Tensor | None = None) -> Any:
        """The way back from `split`."""
        order, patch = "".join(self.axes), self.patch
        parts = latents.unflatten(4, (-1, patch)).unflatten(3, (-1, patch))
        absent = [1 + at for at, name in enumerate(_ORDER) if name not in order]
        present = [name for name in _ORDER if name in order]
        parts = parts.reshape([n for at, n in enumerate(parts.shape) if at not in absent])
        parts = parts.permute(0, *(1 + present.index(name) for name in order))
        sides = iter(parts.shape[1:])
        parts = parts.reshape(len(parts), *(math.prod(next(sides) for _ in names) for names in self.axes))
        if more is not None:
            at = next(at for at, names in enumerate(self.axes, 1) if {"y", "x"} & set(names))
            parts = torch.cat([parts, more.to(parts)], dim=at)
        return list(parts.unbind()) if self.listed else parts

    def _sizes(self, extents: Sequence[int]) -> dict[str, int]:
        _, _, height, width = extents
        patch = self.patch
        return {"y": height // patch, "v": patch, "x": width // patch, "u": patch}

    def _holds(self, places: Sequence[torch.Tensor], shape: Sequence[int], frames: torch.Tensor, left: int) -> bool:
        """Whether latents really lie there, of the ``frames``, where so many are left out in front."""
        channels, count, height, width = places[0].shape
        sizes = {"c": channels, "f": count - left, **self._sizes(places[0].shape)}
        grid = torch.meshgrid(*(torch.arange(n) for n in (channels, count, height, width)), indexing="ij")
        patch = self.patch
        at = {"c": grid[0], "f": grid[1] - left, "y": grid[2] // patch, "v": grid[2] % patch}
        at |= {"x": grid[3] // patch, "u": grid[3] % patch}
        if any(set("cf") <= set(names) for names in self.axes):
            return False
        for names, place, length in zip(self.axes, places, shape, strict=True):
            expected, own = torch.zeros_like(place), 1
            for name in reversed(names):
                expected, own = expected + at[name] * own, own * sizes[name]
            if length < own or not torch.equal(expected[:, frames], place[:, frames]):
                return False
        return True

    def _missized(self, tensor: torch.Tensor, canvas: Extent) -> BadInput:
        wanted = " x ".join(map(str, canvas))
        at = {name: at for at, names in enumerate(self.axes, 1) for name in names}
        if at["y"] == at["x"]:
            return BadInput(f"the pipeline made {tensor.shape[at['y']]} tokens of a canvas of {wanted} latent pixels")
        found = " x ".join(str(tensor.shape[at[name]] * self.patch) for name in "yx")
        return BadInput(f"the pipeline made {found} latent pixels of a canvas of {wanted}")


def _line(place: torch.Tensor, axis: int, frames: torch.Tensor) -> torch.Tensor:
    """How far one moves in the tensor when one walks along one axis of the latents."""
    at: list[Any] = [0, int(frames[-1]), 0, 0]
    at[axis] = slice(None)
    line = place[tuple(at)]
    return line - line[frames[0]] if axis == 1 else line - line[0]


def _axis_of(lines: Sequence[torch.Tensor], extents: Sequence[int], patch: int) -> str | None:
    """What an axis of the tensor counts, outermost first; None: it does not count patches of this side."""
    strides: dict[str, tuple[int, int]] = {}
    for name, line, count in (("c", lines[0], extents[0]), ("f", lines[1], extents[1])):
        if count > 1 and (stride := int(line[-1] - line[-2])):
            strides[name] = (stride, count)
    for (outer, inner), line in zip((("y", "v"), ("x", "u")), lines[2:], strict=True):
        steps = torch.arange(len(line))
        of_patch, within = int(line[patch]), int(line[1]) if patch > 1 else 0
        if not torch.equal(line, steps // patch * of_patch + steps % patch * within):
            return None
        if of_patch:
            strides[outer] = (of_patch, len(line) // patch)
        if within:
            strides[inner] = (within, patch)
    return "".join(sorted(strides, key=lambda name: -strides[name][0]))


def numbered(shape: Sequence[int], digit: int, base: int) -> torch.Tensor:
    """A digit of the number of each entry of a tensor of this shape, counted from 1; float64."""
    numbers = torch.arange(1, math.prod(shape) + 1).reshape(tuple(shape))
    return (numbers // base**digit % base).double()


def places_of(numbers: torch.Tensor, at: torch.Tensor) -> list[torch.Tensor]:
    """Where entries lie in a tensor, for each of its axes.

    Args:
        numbers: the number of the entry that lies at each place; 0: none.
        at: numbers to look for, of any shape; 0: none.

    Returns:
        For each axis the places, of the shape of ``at``; -1 where it is not found.
    """
    flat = torch.full((int(max(numbers.max(), at.max())) + 1,), -1)
    flat[numbers.flatten()] = torch.arange(numbers.numel())
    flat[0] = -1
    found = flat[at]
    spans = [math.prod(numbers.shape[axis + 1 :]) for axis in range(numbers.ndim)]
    return [torch.where(found < 0, -1, found // span % n) for span, n in zip(spans, numbers.shape, strict=True)]
