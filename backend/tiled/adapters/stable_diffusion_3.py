"""Stable Diffusion 3 and 3.5: the model adds the middle of a table of positions."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext

import torch

from backend.tiled.adapters.adapter import Adapter, Extent, replaced
from backend.tiled.adapters.rotary import token_places
from policies.tiling.grid import Box
from traces.errors import BadInput


class TiledStableDiffusion3(Adapter):
    """``SD3Transformer2DModel``. Positions between two entries of its table are interpolated."""

    reads = frozenset(
        {"encoder_hidden_states", "pooled_projections", "timestep", "joint_attention_kwargs", "skip_layers"}
    )

    @property
    def modes(self) -> tuple[str, ...]:
        return ("local", "absolute")

    def place(self, box: Box, canvas: Extent) -> Hashable:
        return None if self.positions == "local" else (box, canvas)

    def placed(self, box: Box, canvas: Extent) -> AbstractContextManager[None]:
        """Raises:
        BadInput: the canvas has positions that the table does not.
        """
        if self.positions == "local":
            return nullcontext()
        embed = self.denoiser.pos_embed
        most = embed.pos_embed_max_size
        tokens = tuple(side // embed.patch_size for side in canvas)
        if max(tokens) > most:
            raise BadInput(
                f"tiling.positions 'absolute' is not possible on a canvas of {tokens[0]} x {tokens[1]} tokens: this "
                f"model knows {most} x {most} positions"
            )
        table = embed.pos_embed.unflatten(1, (most, most))
        places = token_places(box, canvas, (embed.patch_size, embed.patch_size))
        for axis, (at, side) in enumerate(zip(places, tokens, strict=True), start=1):
            table = between(table, at + (most - side) // 2, axis)
        return replaced(embed, "cropped_pos_embed", lambda _height, _width: table.flatten(1, 2))


def between(table: torch.Tensor, at: torch.Tensor, axis: int) -> torch.Tensor:
    """Entries of a table at fractional places along an axis, interpolated; beyond its end the last one."""
    last = table.shape[axis] - 1
    low = at.floor().long().clamp(max=last)
    share = (at - low).to(table).reshape([-1 if i == axis else 1 for i in range(table.ndim)])
    start, end = (table.index_select(axis, i.to(table.device)) for i in (low, (low + 1).clamp(max=last)))
    return torch.lerp(start, end, share)
