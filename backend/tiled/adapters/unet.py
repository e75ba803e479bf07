"""UNets of Stable Diffusion and SDXL: no positions; SDXL is told sizes and where a picture was cropped from."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from backend.coroutine import DenoiserCall
from backend.tiled.adapters.adapter import Adapter, Extent
from policies.tiling.grid import Box


class TiledUNet(Adapter):
    """``UNet2DConditionModel``. With SDXL's conditions an ``absolute`` window is a crop of a picture of the canvas's
    size."""

    input = "sample"
    reads = frozenset(
        {
            "timestep",
            "encoder_hidden_states",
            "timestep_cond",
            "cross_attention_kwargs",
            "added_cond_kwargs",
            "encoder_attention_mask",
        }
    )
    output = UNet2DConditionOutput

    @property
    def modes(self) -> tuple[str, ...]:
        return ("local", "absolute") if self.config.addition_embed_type == "text_time" else ("local",)

    def conditions(self, call: DenoiserCall, box: Box, canvas: Extent) -> dict[str, Any]:
        """``time_ids``: original size, top and left of the crop, and target size (SDXL, arXiv 2307.01952, section 2.2);
        a refiner has an aesthetic score in place of the last."""
        added = self.argument(call, "added_cond_kwargs")
        if not added or "time_ids" not in added:
            return {}
        local = self.positions == "local"
        window, whole = box[2:], box[2:] if local else canvas
        corner = (0, 0) if local else (box.top % canvas[0], box.left % canvas[1])
        ids = added["time_ids"].clone()
        told = [self.factor * side for side in (*whole, *corner, *window)][: 4 if ids.shape[1] == 5 else 6]
        ids[:, : len(told)] = torch.tensor(told).to(ids)
        return {"added_cond_kwargs": {**added, "time_ids": ids}}
