"""CogVideoX 1.0 and 1.5: frames before channels; the pipeline computes rotary positions and passes them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

from backend.coroutine import DenoiserCall
from backend.tiled.adapters.adapter import Adapter, Extent, sized
from backend.tiled.adapters.rotary import Axis, ntk_base, tables, token_places
from policies.tiling.grid import Box
from policies.tiling.recipe import POSITIONS
from traces.errors import BadInput

BASE = 10000.0
"""The rotary base of the pipelines."""
Rotary = tuple[torch.Tensor, torch.Tensor]


class TiledCogVideoX(Adapter):
    """``CogVideoXTransformer3DModel``.

    1.0 lays the positions of the size it was trained at over a clip of any size, so on a large canvas they lie closer;
    ``ntk`` counts them at the native size's distance. 1.5 counts tokens one by one. Without rotary positions (2B), or
    with learned ones besides (5B image to video), a window's positions can only be its own.
    """

    reads = frozenset({"encoder_hidden_states", "timestep", "ofs", "image_rotary_emb", "attention_kwargs"})

    def __init__(self, pipeline: Any, positions: str = "local", native: Extent | None = None) -> None:
        super().__init__(pipeline, positions, native)
        self._tables = lru_cache(maxsize=4)(self._new_tables)  # windows of one size share the object, and a forward

    @property
    def modes(self) -> tuple[str, ...]:
        movable = self.config.use_rotary_positional_embeddings and not self.config.use_learned_positional_embeddings
        return POSITIONS if movable else ("local",)

    def admit(self, own: Any) -> dict[str, Any]:
        """1.5 computes rotary positions only up to its ``sample_height`` and ``sample_width``, and those of the canvas
        are not used."""
        if self.config.use_rotary_positional_embeddings:
            own._prepare_rotary_positional_embeddings = lambda *_: None
        return {}

    def conditions(self, call: DenoiserCall, box: Box, canvas: Extent) -> dict[str, Any]:
        trained = (self.config.sample_height, self.config.sample_width)
        if self.config.use_learned_positional_embeddings and box[2:] != trained:
            raise BadInput(
                f"this CogVideoX has learned positions: its windows are {trained[0]} x {trained[1]} latent pixels, "
                f"not {box.height} x {box.width}"
            )
        if not self.config.use_rotary_positional_embeddings:
            return {}
        latents = self.argument(call, self.input)
        if self.positions == "local":
            box = Box(0, 0, box.height, box.width)
        return {"image_rotary_emb": self._tables(box, canvas, latents.shape[1], latents.device)}

    def _new_tables(self, box: Box, canvas: Extent, frames: int, device: torch.device) -> Rotary:
        if self.positions == "local":
            height, width = box.height * self.factor, box.width * self.factor
            stock: Rotary = self.pipeline._prepare_rotary_positional_embeddings(height, width, frames, device)
            return stock
        patch, of_frames = self.config.patch_size, self.config.patch_size_t or 1
        channels = self.config.attention_head_dim
        axes = [Axis(torch.arange(-(-frames // of_frames)), channels // 4, BASE)]
        counted = zip(token_places(box, canvas, (patch, patch)), self._lines(canvas), self.stretch(canvas), strict=True)
        for places, (first, distance), stretch in counted:
            of_axis = channels // 8 * 3
            axes.append(Axis(first + places * distance, of_axis, ntk_base(BASE, stretch, of_axis)))
        return tables(axes, torch.float32, device)

    def _lines(self, canvas: Extent) -> list[tuple[float, float]]:
        """Along each axis the first token's position and the distance from one to the next."""
        if self.config.patch_size_t is not None:
            return [(0.0, 1.0), (0.0, 1.0)]
        patch = self.config.patch_size
        counted = canvas if self.positions == "absolute" or self.native is None else self.native
        tokens = (counted[0] // patch, counted[1] // patch)
        start, stop = get_resize_crop_region_for_grid(
            tokens, self.config.sample_width // patch, self.config.sample_height // patch
        )
        return [
            (first, (last * (n - 1) / n - first) / max(1, n - 1))
            for first, last, n in zip(start, stop, tokens, strict=True)
        ]

    def unpack(self, latents: torch.Tensor, canvas: Extent) -> torch.Tensor:
        return sized(latents, canvas).transpose(1, 2)

    def pack(self, latents: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return latents.transpose(1, 2).to(like)
