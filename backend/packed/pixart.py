"""PixArt-alpha and -sigma: image tokens attend to themselves, then to the text; one modulation for all blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from backend.packed.attention import CrossStream, SelfStream
from backend.packed.family import Arguments, Block, Family, Tokens, concatenated, flatten_rows, lengths_of, valid_text
from backend.packed.flow import Flow
from backend.packed.hooks import Hooks
from backend.packed.stable_diffusion_3 import unpatchify_image
from backend.packed.units import Grid

INPUTS = ("hidden_states", "encoder_hidden_states", "timestep", "added_cond_kwargs", "encoder_attention_mask")


class PixArtCondition(NamedTuple):
    """One entry a row: what modulates the blocks, and what modulates the head."""

    blocks: torch.Tensor
    head: torch.Tensor


class PackedPixArt(Family):
    """``PixArtTransformer2DModel``. Padding of the text is left out, where the model would mask it."""

    reads = frozenset(INPUTS)
    joint = False
    scaled_by = "cross_attention_kwargs"

    def accepts(self) -> bool:
        return bool(self.model.config.attention_type == "default")

    def embed(self, calls: Sequence[Arguments]) -> Tokens:
        image = [self.model.pos_embed(call["hidden_states"]) for call in calls]
        text = [_text_of(call) for call in calls]
        lengths = lengths_of(image)
        packed_text = torch.cat([tokens for tokens, _ in text])
        if self.model.caption_projection is not None:
            packed_text = self.model.caption_projection(packed_text)
        blocks, head = self.model.adaln_single(
            concatenated(calls, "timestep"), _sizes(calls), batch_size=len(lengths), hidden_dtype=image[0].dtype
        )
        return Tokens(
            image=torch.cat([flatten_rows(tokens) for tokens in image]),
            text=packed_text,
            image_lengths=lengths,
            text_lengths=tuple(n for _, kept in text for n in kept),
            condition=PixArtCondition(blocks, head),
        )

    def hooks(self, flow: Flow) -> Hooks:
        alone, cross = SelfStream(flow, joint=False, positions=False), CrossStream(flow)
        blocks = self.model.transformer_blocks
        return Hooks([(block.attn1, alone) for block in blocks] + [(block.attn2, cross) for block in blocks])

    def blocks(self, flow: Flow, condition: PixArtCondition) -> list[Block]:
        def run(block: Any) -> Block:
            def call(image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                timestep = flow.per_image_token(condition.blocks)
                return block(image, encoder_hidden_states=text, timestep=timestep), text

            return call

        return [run(block) for block in self.model.transformer_blocks]

    def head(self, flow: Flow, image: torch.Tensor, condition: PixArtCondition) -> torch.Tensor:
        table = self.model.scale_shift_table[None] + condition.head[:, None]
        shift, scale = flow.per_image_token(table).chunk(2, dim=1)
        return self.model.proj_out(self.model.norm_out(image) * (1 + scale) + shift)

    def grid(self, call: Arguments) -> Grid:
        height, width = call["hidden_states"].shape[-2:]
        return 1, height // self.token_side(), width // self.token_side()

    def unpatchify(self, patches: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        return unpatchify_image(patches, sample, self.model.config.patch_size)


def _text_of(call: Arguments) -> tuple[torch.Tensor, tuple[int, ...]]:
    """A call's text without its padding, [tokens, 1, channels], and how much of it each row has."""
    text = call["encoder_hidden_states"]
    mask = call.get("encoder_attention_mask")
    if mask is None:
        return flatten_rows(text), lengths_of([text])
    kept, at = valid_text(mask, by_count=False)
    return flatten_rows(text)[at], kept


def _sizes(calls: Sequence[Arguments]) -> dict[str, torch.Tensor | None]:
    """The size conditions of PixArt-alpha at 1024 px, one entry a row; none for the other models."""
    given = calls[0].get("added_cond_kwargs") or {}
    return {
        name: None
        if given.get(name) is None
        else torch.cat([call["added_cond_kwargs"][name].reshape(len(call["hidden_states"]), -1) for call in calls])
        for name in ("resolution", "aspect_ratio")
    }
