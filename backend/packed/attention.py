"""Attention processors that keep within each row of a pack.

Tokens of different rows must not see each other. The processors take the place of a model's own while a packed forward
runs. They use the same projections and norms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from backend.kernels.attention import attend
from backend.packed.flow import Flow


def project(
    x: torch.Tensor,
    linear: Callable[..., torch.Tensor],
    norm: Callable[..., torch.Tensor] | None,
    heads: int,
    across_heads: bool = False,
) -> torch.Tensor:
    """[tokens, 1, channels] through a projection, normed and divided into heads: [tokens, heads, channels].

    The norm is of each head's channels, or with ``across_heads`` of all channels before they are divided.
    """
    projected = linear(x)
    if norm is not None and across_heads:
        projected = norm(projected)
    projected = projected.reshape(len(x), heads, -1)
    return projected if norm is None or across_heads else norm(projected)


class DualStream:
    """Text and image tokens with projections of their own, attended together (SD3, Flux, HunyuanVideo)."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: None = None,
        image_rotary_emb: None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        layout, rotary = self._flow.layout, self._flow.rotary
        q = project(hidden_states, attn.to_q, attn.norm_q, attn.heads)
        k = project(hidden_states, attn.to_k, attn.norm_k, attn.heads)
        v = project(hidden_states, attn.to_v, None, attn.heads)
        text_q = project(encoder_hidden_states, attn.add_q_proj, attn.norm_added_q, attn.heads)
        text_k = project(encoder_hidden_states, attn.add_k_proj, attn.norm_added_k, attn.heads)
        text_v = project(encoder_hidden_states, attn.add_v_proj, None, attn.heads)
        if rotary is not None:
            q, k, text_q, text_k = rotary.image(q), rotary.image(k), rotary.text(text_q), rotary.text(text_k)
        q, k, v = layout.join(text_q, q), layout.join(text_k, k), layout.join(text_v, v)
        k, v, keys = self._flow.keys("dual", k, v, joint=True)
        text, image = layout.split(attend(q, k, v, layout.joint, keys, self._flow.kernels.fused).flatten(1)[:, None])
        to_text = getattr(attn, "to_add_out", None)
        return attn.to_out[1](attn.to_out[0](image)), text if to_text is None else to_text(text)


class SelfStream:
    """One stream attended within each row, in joint order or image tokens alone.

    Args:
        flow: the forward under way.
        joint: whether the tokens are in joint order.
        positions: whether rotary positions apply.
        across_heads: whether queries and keys are normed before they are divided into heads (Wan).
    """

    def __init__(self, flow: Flow, joint: bool, positions: bool, across_heads: bool = False) -> None:
        self._flow = flow
        self._joint = joint
        self._positions = positions
        self._across_heads = across_heads

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: None = None,
    ) -> Any:
        layout, rotary = self._flow.layout, self._flow.rotary
        q, k, v = _queries_keys_values(attn, hidden_states, hidden_states, self._across_heads)
        if rotary is not None and self._positions:
            q, k = (rotary.joint(x, layout) if self._joint else rotary.image(x) for x in (q, k))
        k, v, keys = self._flow.keys("self", k, v, self._joint)
        queries = layout.joint if self._joint else layout.image
        return _output(attn, attend(q, k, v, queries, keys, self._flow.kernels.fused))


class CrossStream:
    """Image tokens attend to the text tokens of their row (PixArt, Wan)."""

    def __init__(self, flow: Flow, across_heads: bool = False) -> None:
        self._flow = flow
        self._across_heads = across_heads

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: None = None,
        rotary_emb: None = None,
    ) -> torch.Tensor:
        q, k, v = _queries_keys_values(attn, hidden_states, encoder_hidden_states, self._across_heads)
        layout, fused = self._flow.layout, self._flow.kernels.fused
        return _output(attn, attend(q, k, v, layout.image, layout.text, fused))


def _queries_keys_values(
    attn: Any, x: torch.Tensor, context: torch.Tensor, across_heads: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        project(x, attn.to_q, attn.norm_q, attn.heads, across_heads),
        project(context, attn.to_k, attn.norm_k, attn.heads, across_heads),
        project(context, attn.to_v, None, attn.heads),
    )


def _output(attn: Any, out: torch.Tensor) -> torch.Tensor:
    """[tokens, heads, channels] through the output projection, where the block has one: [tokens, 1, channels]."""
    flat = out.flatten(1)[:, None]
    return flat if getattr(attn, "to_out", None) is None else attn.to_out[1](attn.to_out[0](flat))
