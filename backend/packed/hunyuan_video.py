"""HunyuanVideo: a refiner over the text, two-stream blocks, then blocks over video and text as one stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from backend.packed.attention import DualStream, SelfStream
from backend.packed.family import (
    Arguments,
    Block,
    Family,
    Tokens,
    concatenated,
    flatten_rows,
    lengths_of,
    repeated,
    valid_text,
)
from backend.packed.flow import Flow, Rotary
from backend.packed.flux import rotate_pairs
from backend.packed.hooks import Hooks
from backend.packed.units import Grid

INPUTS = (
    "hidden_states",
    "timestep",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "pooled_projections",
    "guidance",
)


class PackedHunyuanVideo(Family):
    """``HunyuanVideoTransformer3DModel`` without image conditioning.

    The model refines padded text and then masks the padding as keys; what padding becomes no one sees, so the pack
    leaves it out after the refiner. The model's own mask counts valid tokens, and so does the pack.
    """

    reads = frozenset(INPUTS)
    scaled_by = "attention_kwargs"

    def accepts(self) -> bool:
        return self.model.config.image_condition_type is None

    def embed(self, calls: Sequence[Arguments]) -> Tokens:
        clips = [call["hidden_states"] for call in calls]
        image = [self.model.x_embedder(clip) for clip in clips]
        refined = [
            self.model.context_embedder(call["encoder_hidden_states"], call["timestep"], call["encoder_attention_mask"])
            for call in calls
        ]
        valid = [valid_text(call["encoder_attention_mask"], by_count=True) for call in calls]
        condition, _ = self.model.time_text_embed(
            concatenated(calls, "timestep"),
            concatenated(calls, "pooled_projections"),
            concatenated(calls, "guidance") if "guidance" in calls[0] else None,
        )
        tables = repeated([self.model.rope(clip) for clip in clips], [len(clip) for clip in clips])
        return Tokens(
            image=torch.cat([flatten_rows(tokens) for tokens in image]),
            text=torch.cat([flatten_rows(tokens)[at] for tokens, (_, at) in zip(refined, valid, strict=True)]),
            image_lengths=lengths_of(image),
            text_lengths=tuple(n for kept, _ in valid for n in kept),
            condition=condition,
            rotary=Rotary(rotate_pairs, image=tables),
        )

    def hooks(self, flow: Flow) -> Hooks:
        dual, single = DualStream(flow), _Stream(flow, joint=True, positions=True)
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
                image, text = block(image, text, condition)
                return image, text

            return call

        def one_stream(block: Any) -> Block:
            def call(image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                joint = flow.layout.join(text, image)
                # The block takes its text off the end by length, so here everything is text and the video is empty.
                _, joint = block(joint[:, :0], joint, condition)
                text, image = flow.layout.split(joint)
                return image, text

            return call

        return [two_streams(block) for block in self.model.transformer_blocks] + [
            one_stream(block) for block in self.model.single_transformer_blocks
        ]

    def head(self, flow: Flow, image: torch.Tensor, condition: Any) -> torch.Tensor:
        return self.model.proj_out(self.model.norm_out(image, condition))

    def text_tokens(self, call: Arguments) -> int:
        return sum(valid_text(call["encoder_attention_mask"], by_count=True)[0])

    def grid(self, call: Arguments) -> Grid:
        frames, height, width = call["hidden_states"].shape[2:]
        return frames // self.model.config.patch_size_t, height // self.token_side(), width // self.token_side()

    def unpatchify(self, patches: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        p, t = self.model.config.patch_size, self.model.config.patch_size_t
        rows, _, frames, height, width = sample.shape
        grid = patches.reshape(rows, frames // t, height // p, width // p, -1, t, p, p)
        return grid.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)


class _Stream(SelfStream):
    """HunyuanVideo's processor returns two streams; here the first is empty."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: None = None,
    ) -> Any:
        assert encoder_hidden_states is not None
        return hidden_states, super().__call__(attn, encoder_hidden_states)
