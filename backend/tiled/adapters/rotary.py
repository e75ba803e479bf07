"""Rotary positions of a window of a larger canvas."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed

from backend.tiled.adapters.adapter import Adapter, Clips, Extent, replaced
from policies.tiling.grid import Box
from policies.tiling.recipe import POSITIONS


class Axis(NamedTuple):
    """Rotary positions along one axis.

    Attributes:
        positions: positions of each token, [tokens].
        channels: channels of a head that this axis turns.
        base: theta.
    """

    positions: torch.Tensor
    channels: int
    base: float


def ntk_base(base: float, stretch: float, channels: int) -> float:
    """The rotary base for positions that reach ``stretch`` times as far as in training.

    theta' = theta * s^(d / (d - 2)): the slowest of the d channels turns s times slower, so that it ends where it did,
    and the fastest as before, so that neighbours stay told apart ("NTK-Aware Scaled RoPE", bloc97, 2023).
    """
    return base * stretch ** (channels / (channels - 2)) if channels > 2 else base  # two channels turn by 1 a token


def token_places(box: Box, canvas: Extent, patch: Extent) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the tokens of a window begin on the canvas, in tokens: down, [tokens], and across, [tokens]."""
    down = torch.from_numpy(box.rows(canvas[0])[:: patch[0]]) / patch[0]
    across = torch.from_numpy(box.columns(canvas[1])[:: patch[1]]) / patch[1]
    return down, across


def turns(axis: Axis, exact: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines along one axis, [tokens, channels] each, angles computed in the precision ``exact``."""
    pairs: tuple[torch.Tensor, torch.Tensor] = get_1d_rotary_pos_embed(
        axis.channels,
        axis.positions,  # type: ignore[arg-type]
        axis.base,
        use_real=True,
        freqs_dtype=exact,
    )
    return pairs


def tables(axes: Sequence[Axis], exact: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of all tokens of a grid, [tokens, channels] each, the last axis running fastest.

    Args:
        axes: frames, height and width.
        exact: precision in which the model's own code computes angles.
        device: where to.
    """
    shape = [len(axis.positions) for axis in axes]
    parts = [turns(axis._replace(positions=axis.positions.to(exact).to(device)), exact) for axis in axes]

    def joined(kind: int) -> torch.Tensor:
        spread = []
        for at, part in enumerate(parts):
            along = [1] * len(shape)
            along[at] = shape[at]
            spread.append(part[kind].reshape(*along, -1).expand(*shape, -1))
        return torch.cat(spread, dim=-1).flatten(0, -2)

    return joined(0), joined(1)


class RotaryInside(Clips):
    """Base of families whose denoiser counts rotary positions itself, in its module ``rope``."""

    @property
    def modes(self) -> tuple[str, ...]:
        return POSITIONS

    def place(self, box: Box, canvas: Extent) -> Hashable:
        return None if self.positions == "local" else (box, canvas)

    def placed(self, box: Box, canvas: Extent) -> AbstractContextManager[None]:
        if self.positions == "local":
            return nullcontext()
        return replaced(self.denoiser.rope, "forward", lambda clip: self.rotary(clip, box, canvas))

    def rotary(self, clip: torch.Tensor, box: Box, canvas: Extent) -> Any:
        """What ``rope`` gives for a window's clip, [rows, channels, frames, height, width]."""
        raise NotImplementedError


def spatial_axes(
    adapter: Adapter, box: Box, canvas: Extent, patch: Extent, channels: tuple[int, int], base: float
) -> list[Axis]:
    """Height and width of a window whose tokens are counted one by one from the canvas's corner."""
    return [
        Axis(places, of_axis, ntk_base(base, stretch, of_axis))
        for places, of_axis, stretch in zip(
            token_places(box, canvas, patch), channels, adapter.stretch(canvas), strict=True
        )
    ]
