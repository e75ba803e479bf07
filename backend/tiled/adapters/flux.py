"""Flux: the pipeline packs 2 x 2 latent pixels into a token and passes each token's position."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch

from backend.coroutine import DenoiserCall
from backend.tiled.adapters.adapter import Adapter, Extent, replaced
from backend.tiled.adapters.rotary import Axis, ntk_base, token_places, turns
from policies.tiling.grid import Box
from policies.tiling.recipe import POSITIONS
from traces.errors import BadInput

SIDE = 2
"""Latent pixels along a token's side."""


class TiledFlux(Adapter):
    """``FluxTransformer2DModel``."""

    reads = frozenset(
        {
            "encoder_hidden_states",
            "pooled_projections",
            "timestep",
            "img_ids",
            "txt_ids",
            "guidance",
            "joint_attention_kwargs",
        }
    )

    def __init__(self, pipeline: Any, positions: str = "local", native: Extent | None = None) -> None:
        super().__init__(pipeline, positions, native)
        self._ids = lru_cache(maxsize=16)(self._new_ids)  # windows of one size share the object, and a forward

    @property
    def modes(self) -> tuple[str, ...]:
        return POSITIONS

    @property
    def channels(self) -> int:
        return super().channels // SIDE**2

    def conditions(self, call: DenoiserCall, box: Box, canvas: Extent) -> dict[str, Any]:
        ids = self.argument(call, "img_ids")
        if self.positions == "local":
            box = Box(0, 0, box.height, box.width)
        return {"img_ids": self._ids(box, canvas, ids.dtype, ids.device)}

    def _new_ids(self, box: Box, canvas: Extent, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        down, across = token_places(box, canvas, (SIDE, SIDE))
        if self.positions != "local":
            dtype = torch.promote_types(dtype, torch.float32)  # half precision has no halves beyond 128
        ids = torch.zeros(len(down), len(across), 3)
        ids[..., 1], ids[..., 2] = down[:, None], across[None]
        return ids.flatten(0, 1).to(device, dtype)

    def place(self, box: Box, canvas: Extent) -> Hashable:
        return canvas if self.positions == "ntk" else None

    def placed(self, box: Box, canvas: Extent) -> AbstractContextManager[None]:
        if self.positions != "ntk":
            return nullcontext()
        return replaced(self.denoiser.pos_embed, "forward", lambda ids: self._stretched(ids, canvas))

    def _stretched(self, ids: torch.Tensor, canvas: Extent) -> tuple[torch.Tensor, torch.Tensor]:
        """What ``FluxPosEmbed`` gives, with a base for each axis of the canvas."""
        embed = self.denoiser.pos_embed
        exact = torch.float32 if ids.device.type in ("mps", "npu") else torch.float64
        stretches = (1.0, *self.stretch(canvas))
        parts = [
            turns(Axis(positions, channels, ntk_base(embed.theta, stretch, channels)), exact)
            for positions, channels, stretch in zip(ids.float().unbind(1), embed.axes_dim, stretches, strict=True)
        ]
        return torch.cat([cos for cos, _ in parts], dim=-1), torch.cat([sin for _, sin in parts], dim=-1)

    def unpack(self, latents: torch.Tensor, canvas: Extent) -> torch.Tensor:
        down, across = canvas[0] // SIDE, canvas[1] // SIDE
        if latents.shape[1] != down * across:
            raise BadInput(
                f"the pipeline made {latents.shape[1]} tokens of a canvas of {canvas[0]} x {canvas[1]} latent pixels"
            )
        tokens = latents.reshape(len(latents), down, across, -1, SIDE, SIDE).permute(0, 3, 1, 4, 2, 5)
        return tokens.flatten(4, 5).flatten(2, 3)[:, :, None]

    def pack(self, latents: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        pixels = latents[:, :, 0].unflatten(3, (-1, SIDE)).unflatten(2, (-1, SIDE))
        return pixels.permute(0, 2, 4, 1, 3, 5).flatten(3, 5).flatten(1, 2).to(like)
