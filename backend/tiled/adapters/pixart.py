"""PixArt-alpha and -sigma: the model lays the same positions over a picture of any size."""

from __future__ import annotations

from typing import Any

import torch

from backend.coroutine import DenoiserCall
from backend.tiled.adapters.adapter import Adapter, Extent
from policies.tiling.grid import Box


class TiledPixArt(Adapter):
    """``PixArtTransformer2DModel``. The variance that it learned beside the noise is what its pipelines throw away."""

    reads = frozenset(
        {"encoder_hidden_states", "timestep", "added_cond_kwargs", "cross_attention_kwargs", "encoder_attention_mask"}
    )

    @property
    def channels(self) -> int:
        return int(self.config.in_channels)

    def admit(self, own: Any) -> dict[str, Any]:
        """The pipelines would make one of a few sizes instead of the canvas."""
        return {"use_resolution_binning": False}

    def conditions(self, call: DenoiserCall, box: Box, canvas: Extent) -> dict[str, Any]:
        """PixArt-alpha at 1024 px is told the picture's size."""
        added = self.argument(call, "added_cond_kwargs")
        if not added or added.get("resolution") is None:
            return {}
        size = (box.height * self.factor, box.width * self.factor)
        resolution = torch.tensor([size]).expand_as(added["resolution"]).to(added["resolution"])
        ratio = torch.full_like(added["aspect_ratio"], size[0] / size[1])
        return {"added_cond_kwargs": {**added, "resolution": resolution, "aspect_ratio": ratio}}

    def answer(self, prediction: torch.Tensor, call: DenoiserCall) -> Any:
        learned = torch.zeros_like(prediction) if self.config.out_channels == 2 * self.channels else prediction[:, :0]
        return super().answer(torch.cat([prediction, learned], dim=1), call)
