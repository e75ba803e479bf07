"""Flux: two-stream blocks, then blocks over text and image as one stream; positions come with the call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb

from backend.packed.attention import DualStream, SelfStream
from backend.packed.family import Arguments, Block, Family, Tokens, concatenated, flatten_rows, lengths_of, repeated
from backend.packed.flow import Flow, Rotary, Tables
from backend.packed.hooks import Hooks
from backend.packed.units import Grid

INPUTS = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids", "txt_ids")


class PackedFlux(Family):
    """``FluxTransformer2DModel``."""

    reads = frozenset(INPUTS)
    scaled_by = "joint_attention_kwargs"

    def embed(self, calls: Sequence[Arguments]) -> Tokens:
        image = [call["hidden_states"] for call in calls]
        text = [call["encoder_hidden_states"] for call in calls]
        rows = [len(sample) for sample in image]
        embedded = self.model.x_embedder(torch.cat([flatten_rows(tokens) for tokens in image]))
        scalars = [
            concatenated(calls, name).to(embedded.dtype) * 1000 for name in ("timestep", "guidance") if name in calls[0]
        ]
        return Tokens(
            image=embedded,
            text=self.model.context_embedder(torch.cat([flatten_rows(tokens) for tokens in text])),
            image_lengths=lengths_of(image),
            text_lengths=lengths_of(text),
            condition=self.model.time_text_embed(*scalars, concatenated(calls, "pooled_projections")),
            rotary=Rotary(
                rotate_pairs,
                image=repeated([self._positions(call["img_ids"]) for call in calls], rows),
                text=repeated([self._positions(call["txt_ids"]) for call in calls], rows),
            ),
        )

    def _positions(self, ids: torch.Tensor) -> Tables:
        return self.model.pos_embed(ids if ids.ndim == 2 else ids[0])

    def hooks(self, flow: Flow) -> Hooks:
        dual, single = DualStream(flow), SelfStream(flow, joint=True, positions=True)
        two, one = self.model.transformer_blocks, self.model.single_transformer_blocks
        return Hooks(
            processors=[(block.attn, dual) for block in two] + [(block.attn, single) for block in one],
            expansions=[(block.norm1.linear, flow.per_image_token) for block in two]
            + [(block.norm1_context.linear, flow.per_text_token) for block in two]
            + [(block.norm.linear, flow.per_joint_token) for block in one]
            + [(self.model.norm_out.linear, flow.per_image_token)],
        )

    def block_modules(self) -> list[Any]:
        return [*self.model.transformer_blocks, *self.model.single_transformer_blocks]

    def blocks(self, flow: Flow, condition: Any) -> list[Block]:
        def two_streams(block: Any) -> Block:
            def call(image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                text, image = block(hidden_states=image, encoder_hidden_states=text, temb=condition)
                return image, text

            return call

        def one_stream(block: Any) -> Block:
            def call(image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                joint = flow.layout.join(text, image)
                _, joint = block(hidden_states=joint, encoder_hidden_states=joint[:, :0], temb=condition)
                text, image = flow.layout.split(joint)
                return image, text

            return call

        return [two_streams(block) for block in self.model.transformer_blocks] + [
            one_stream(block) for block in self.model.single_transformer_blocks
        ]

    def head(self, flow: Flow, image: torch.Tensor, condition: Any) -> torch.Tensor:
        return self.model.proj_out(self.model.norm_out(image, condition))

    def grid(self, call: Arguments) -> Grid:
        """Read off the position ids, once; a call whose tokens are no one grid (with a reference image) is one unit."""
        ids = call["img_ids"]
        known: Grid | None = getattr(ids, "_tilecast_grid", None)
        if known is None:
            height, width = (ids.reshape(-1, ids.shape[-1])[:, 1:].amax(0).long() + 1).tolist()
            tokens = call["hidden_states"].shape[1]
            known = (1, height, width) if height * width == tokens else (tokens, 1, 1)
            ids._tilecast_grid = known
        return known

    def token_side(self) -> int:
        return 2  # the pipeline makes a token of 2x2 latent pixels

    def unpatchify(self, patches: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        return patches  # the pipeline itself cuts latents into tokens


def rotate_pairs(x: torch.Tensor, tables: Tables) -> torch.Tensor:
    """[tokens, heads, channels] turned by tables of interleaved pairs, [tokens, channels] each."""
    return apply_rotary_emb(x[None], tables, sequence_dim=1)[0]  # type: ignore[arg-type]
