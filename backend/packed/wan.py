"""Wan 2.1 and 2.2, text to video: as PixArt, with rotary positions over frames, height and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from backend.packed.attention import CrossStream, SelfStream
from backend.packed.family import Arguments, Block, Family, Tokens, flatten_rows, lengths_of, repeated
from backend.packed.flow import Flow, Rotary, Tables
from backend.packed.hooks import Hooks
from backend.packed.units import Grid


class WanCondition(NamedTuple):
    """What modulates the blocks, [entries, 6, channels], and the head, [entries, channels].

    One entry a row; one an image token where ``per_token`` (Wan 2.2 5B gives each token its own timestep).
    """

    blocks: torch.Tensor
    head: torch.Tensor
    per_token: bool


class PackedWan(Family):
    """``WanTransformer3DModel`` without image conditioning."""

    reads = frozenset({"hidden_states", "encoder_hidden_states", "timestep"})
    joint = False
    scaled_by = "attention_kwargs"

    def accepts(self) -> bool:
        return self.model.config.image_dim is None and self.model.config.added_kv_proj_dim is None

    def embed(self, calls: Sequence[Arguments]) -> Tokens:
        clips = [call["hidden_states"] for call in calls]
        image = [self.model.patch_embedding(clip).flatten(2).transpose(1, 2) for clip in clips]
        text = [call["encoder_hidden_states"] for call in calls]
        timestep = torch.cat([call["timestep"].flatten() for call in calls])
        head, blocks, embedded_text, _ = self.model.condition_embedder(
            timestep, torch.cat([flatten_rows(tokens) for tokens in text]), None
        )
        tables = [tuple(table[0, :, 0] for table in self.model.rope(clip)) for clip in clips]
        return Tokens(
            image=torch.cat([flatten_rows(tokens) for tokens in image]),
            text=embedded_text,
            image_lengths=lengths_of(image),
            text_lengths=lengths_of(text),
            condition=WanCondition(blocks.unflatten(1, (6, -1)), head, per_token=calls[0]["timestep"].ndim == 2),
            rotary=Rotary(_rotate, image=repeated(tables, [len(clip) for clip in clips])),
        )

    def hooks(self, flow: Flow) -> Hooks:
        alone = SelfStream(flow, joint=False, positions=True, across_heads=True)
        cross = CrossStream(flow, across_heads=True)
        return Hooks(
            [(block.attn1, alone) for block in self.model.blocks]
            + [(block.attn2, cross) for block in self.model.blocks]
        )

    def block_modules(self) -> list[Any]:
        return list(self.model.blocks)

    def blocks(self, flow: Flow, condition: WanCondition) -> list[Block]:
        def run(block: Any) -> Block:
            def call(image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return block(image, text, _expanded(flow, condition.blocks, image, condition.per_token), None), text

            return call

        return [run(block) for block in self.model.blocks]

    def head(self, flow: Flow, image: torch.Tensor, condition: WanCondition) -> torch.Tensor:
        head = _expanded(flow, condition.head, image, condition.per_token)
        shift, scale = (self.model.scale_shift_table + head[:, None]).chunk(2, dim=1)
        modulated = self.model.norm_out(image.float()) * (1 + scale) + shift
        return self.model.proj_out(modulated.type_as(image))

    def grid(self, call: Arguments) -> Grid:
        frames, height, width = (n // p for n, p in zip(call["hidden_states"].shape[2:], self._patch, strict=True))
        return frames, height, width

    def token_side(self) -> int:
        return self._patch[-1]

    @property
    def _patch(self) -> tuple[int, int, int]:
        t, h, w = self.model.config.patch_size
        return t, h, w

    def unpatchify(self, patches: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        t, h, w = self._patch
        frames, height, width = sample.shape[2] // t, sample.shape[3] // h, sample.shape[4] // w
        grid = patches.reshape(len(patches), frames, height, width, t, h, w, -1)
        return grid.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _expanded(flow: Flow, entries: torch.Tensor, image: torch.Tensor, per_token: bool) -> Any:
    """What an image token has. Wan computes its modulations in float32 and casts each result to the tokens' type."""
    return flow.of_image_tokens(entries) if per_token else flow.per_image_token(entries, becomes=image.dtype)


def _rotate(x: torch.Tensor, tables: Tables) -> torch.Tensor:
    """[tokens, heads, channels] turned as Wan does it, in the precision of the tables."""
    cos, sin = (table[:, None] for table in tables)
    x1, x2 = x.unflatten(-1, (-1, 2)).unbind(-1)
    out = torch.empty_like(x)
    out[..., 0::2] = x1 * cos[..., 0::2] - x2 * sin[..., 1::2]
    out[..., 1::2] = x1 * sin[..., 1::2] + x2 * cos[..., 0::2]
    return out.type_as(x)
