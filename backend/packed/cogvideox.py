"""CogVideoX: text and video tokens as one stream in every block, each with a modulation of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from backend.packed.attention import SelfStream
from backend.packed.family import Arguments, Block, Family, Tokens, concatenated, flatten_rows, lengths_of, repeated
from backend.packed.flow import Flow, Rotary
from backend.packed.flux import rotate_pairs
from backend.packed.hooks import Hooks
from backend.packed.per_row import PerRow
from backend.packed.units import Grid


class PackedCogVideoX(Family):
    """``CogVideoXTransformer3DModel`` without image conditioning.

    A block is given all tokens as video and none as text; which of the two modulations a token has is settled where the
    block's adaptive norms compute them.
    """

    reads = frozenset({"hidden_states", "encoder_hidden_states", "timestep", "image_rotary_emb"})
    scaled_by = "attention_kwargs"

    def accepts(self) -> bool:
        return self.model.ofs_embedding is None

    def embed(self, calls: Sequence[Arguments]) -> Tokens:
        clips = [call["hidden_states"] for call in calls]
        text_in = [call["encoder_hidden_states"] for call in calls]
        joint = [self.model.patch_embed(text, clip) for text, clip in zip(text_in, clips, strict=True)]
        text = [tokens[:, : given.shape[1]] for tokens, given in zip(joint, text_in, strict=True)]
        image = [tokens[:, given.shape[1] :] for tokens, given in zip(joint, text_in, strict=True)]
        proj = self.model.time_proj(concatenated(calls, "timestep"))
        rotary = None
        if "image_rotary_emb" in calls[0]:
            tables = repeated([call["image_rotary_emb"] for call in calls], [len(clip) for clip in clips])
            rotary = Rotary(rotate_pairs, image=tables)
        return Tokens(
            image=torch.cat([flatten_rows(tokens) for tokens in image]),
            text=torch.cat([flatten_rows(tokens) for tokens in text]),
            image_lengths=lengths_of(image),
            text_lengths=lengths_of(text),
            condition=self.model.time_embedding(proj.to(clips[0].dtype)),
            rotary=rotary,
        )

    def hooks(self, flow: Flow) -> Hooks:
        def modulation(rows: torch.Tensor) -> PerRow:
            """[rows, shift scale gate of video, then of text] to what each token has; the rest is for no token."""
            image, text = rows.chunk(2, dim=1)
            return flow.per_joint_token_of_streams(torch.cat([text, text], dim=1), torch.cat([image, image], dim=1))

        stream = _Stream(flow, joint=True, positions=True)
        blocks = self.model.transformer_blocks
        return Hooks(
            processors=[(block.attn1, stream) for block in blocks],
            expansions=[(norm.linear, modulation) for block in blocks for norm in (block.norm1, block.norm2)]
            + [(self.model.norm_out.linear, flow.per_image_token)],
        )

    def blocks(self, flow: Flow, condition: Any) -> list[Block]:
        def run(block: Any) -> Block:
            def call(image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                joint = flow.layout.join(text, image)
                joint, _ = block(hidden_states=joint, encoder_hidden_states=joint[:, :0], temb=condition)
                text, image = flow.layout.split(joint)
                return image, text

            return call

        return [run(block) for block in self.model.transformer_blocks]

    def head(self, flow: Flow, image: torch.Tensor, condition: Any) -> torch.Tensor:
        return self.model.proj_out(self.model.norm_out(self.model.norm_final(image), temb=condition))

    def grid(self, call: Arguments) -> Grid:
        _, frames, _, height, width = call["hidden_states"].shape
        return frames // (self.model.config.patch_size_t or 1), height // self.token_side(), width // self.token_side()

    def unpatchify(self, patches: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        p, t = self.model.config.patch_size, self.model.config.patch_size_t
        rows, frames, _, height, width = sample.shape
        if t is None:
            grid = patches.reshape(rows, frames, height // p, width // p, -1, p, p)
            return grid.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
        grid = patches.reshape(rows, (frames + t - 1) // t, height // p, width // p, -1, t, p, p)
        return grid.permute(0, 1, 5, 4, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(1, 2)


class _Stream(SelfStream):
    """CogVideoX's processor returns two streams; here the second is empty."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: None = None,
    ) -> Any:
        return super().__call__(attn, hidden_states), encoder_hidden_states
