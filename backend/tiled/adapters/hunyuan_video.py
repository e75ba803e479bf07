"""HunyuanVideo: text to video, and image to video with the picture as channels or in place of the first frame."""

from __future__ import annotations

import torch

from backend.tiled.adapters.adapter import Extent
from backend.tiled.adapters.rotary import Axis, RotaryInside, spatial_axes, tables
from policies.tiling.grid import Box


class TiledHunyuanVideo(RotaryInside):
    """``HunyuanVideoTransformer3DModel``."""

    reads = frozenset(
        {
            "timestep",
            "encoder_hidden_states",
            "encoder_attention_mask",
            "pooled_projections",
            "guidance",
            "attention_kwargs",
        }
    )

    def rotary(self, clip: torch.Tensor, box: Box, canvas: Extent) -> tuple[torch.Tensor, torch.Tensor]:
        rope = self.denoiser.rope
        of_frames, of_height, of_width = rope.rope_dim
        patch = (rope.patch_size, rope.patch_size)
        axes = [
            Axis(torch.arange(clip.shape[2] // rope.patch_size_t), of_frames, rope.theta),
            *spatial_axes(self, box, canvas, patch, (of_height, of_width), rope.theta),
        ]
        return tables(axes, torch.float32, clip.device)
