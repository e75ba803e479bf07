"""Stable Diffusion 3 and 3.5: two streams in every block, some blocks with a second attention over the image alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from backend.packed.attention import DualStream, SelfStream
from backend.packed.family import Arguments, Block, Family, Tokens, concatenated, flatten_rows, lengths_of
from backend.packed.flow import Flow
from backend.packed.hooks import Hooks
from backend.packed.units import Grid


class PackedStableDiffusion3(Family):
    """``SD3Transformer2DModel``."""

    reads = frozenset({"hidden_states", "encoder_hidden_states", "pooled_projections", "timestep"})
    scaled_by = "joint_attention_kwargs"

    def embed(self, calls: Sequence[Arguments]) -> Tokens:
        image = [self.model.pos_embed(call["hidden_states"]) for call in calls]
        text = [call["encoder_hidden_states"] for call in calls]
        return Tokens(
            image=torch.cat([flatten_rows(tokens) for tokens in image]),
            text=self.model.context_embedder(torch.cat([flatten_rows(tokens) for tokens in text])),
            image_lengths=lengths_of(image),
            text_lengths=lengths_of(text),
            condition=self.model.time_text_embed(
                concatenated(calls, "timestep"), concatenated(calls, "pooled_projections")
            ),
        )

    def hooks(self, flow: Flow) -> Hooks:
        dual, alone = DualStream(flow), SelfStream(flow, joint=False, positions=False)
        blocks = self.model.transformer_blocks
        second = [block.attn2 for block in blocks if block.attn2 is not None]
        return Hooks(
            processors=[(block.attn, dual) for block in blocks] + [(attn, alone) for attn in second],
            expansions=[(block.norm1.linear, flow.per_image_token) for block in blocks]
            + [(block.norm1_context.linear, flow.per_text_token) for block in blocks]
            + [(self.model.norm_out.linear, flow.per_image_token)],
        )

    def blocks(self, flow: Flow, condition: Any) -> list[Block]:
        def run(block: Any) -> Block:
            def call(image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                text_after, image = block(hidden_states=image, encoder_hidden_states=text, temb=condition)
                return image, text if text_after is None else text_after  # the last block needs no text after it

            return call

        return [run(block) for block in self.model.transformer_blocks]

    def head(self, flow: Flow, image: torch.Tensor, condition: Any) -> torch.Tensor:
        return self.model.proj_out(self.model.norm_out(image, condition))

    def grid(self, call: Arguments) -> Grid:
        height, width = call["hidden_states"].shape[-2:]
        return 1, height // self.token_side(), width // self.token_side()

    def unpatchify(self, patches: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        return unpatchify_image(patches, sample, self.model.config.patch_size)


def unpatchify_image(patches: torch.Tensor, sample: torch.Tensor, patch: int) -> torch.Tensor:
    """[rows, tokens, patch x patch x channels] to [rows, channels, height, width], the size of ``sample``."""
    height, width = sample.shape[-2] // patch, sample.shape[-1] // patch
    grid = patches.reshape(len(patches), height, width, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, height * patch, width * patch)
