"""Wan 2.1 and 2.2: text to video, and image to video with the picture's latents appended as channels."""

from __future__ import annotations

from typing import Any

import torch

from backend.coroutine import DenoiserCall
from backend.tiled.adapters.adapter import Extent
from backend.tiled.adapters.rotary import Axis, RotaryInside, spatial_axes, tables
from policies.tiling.grid import Box

BASE = 10000.0
"""The rotary base of ``WanTransformer3DModel``, which keeps its tables and not the base."""


class TiledWan(RotaryInside):
    """``WanTransformer3DModel``. What an image encoder makes of a condition picture speaks of the whole canvas, as text
    does, and is not cut."""

    reads = frozenset({"timestep", "encoder_hidden_states", "encoder_hidden_states_image", "attention_kwargs"})

    def conditions(self, call: DenoiserCall, box: Box, canvas: Extent) -> dict[str, Any]:
        timestep = self.argument(call, "timestep")
        if timestep.ndim == 1:
            return {}
        _, down, across = self.config.patch_size  # a timestep a token (2.2 5B): that of the token a window's begins in
        of_tokens = timestep.unflatten(1, (-1, canvas[0] // down, canvas[1] // across))
        rows = torch.from_numpy(box.rows(canvas[0])[::down] // down)
        columns = torch.from_numpy(box.columns(canvas[1])[::across] // across)
        return {"timestep": of_tokens[:, :, rows][..., columns].flatten(1)}

    def rotary(self, clip: torch.Tensor, box: Box, canvas: Extent) -> tuple[torch.Tensor, torch.Tensor]:
        rope = self.denoiser.rope
        frames, down, across = rope.patch_size
        axes = [
            Axis(torch.arange(clip.shape[2] // frames), rope.t_dim, BASE),
            *spatial_axes(self, box, canvas, (down, across), (rope.h_dim, rope.w_dim), BASE),
        ]
        cos, sin = tables(axes, torch.float64, torch.device("cpu"))
        stock = rope.freqs_cos
        return cos.to(stock)[None, :, None], sin.to(stock)[None, :, None]
