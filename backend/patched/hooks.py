"""Convolutional models on patches, exactly: what has to be changed so that no cut shows.

Everything in a diffusers UNet or VAE that works pixel by pixel or token by token does not notice that an image was
cut. Four kinds of module do, and are given another forward on the same weights:

- a convolution wider than one pixel sees a border of the eight neighbours, zeros at the edge of the image;
- GroupNorm normalises by the moments of the whole image: patches' own means and variances, pooled by the law of
  total variance (PatchedServe averages the variances and so loses that between the patches);
- self-attention runs over all tokens of an image, in patch order, which attention does not mind;
- cross-attention projects the text once an image, not once a patch.

Time embeddings are computed once a row and repeated where they meet patches. Outside a batch every module does what
it did before. With fused kernels (see `backend.kernels.stitch`) GroupNorm, SiLU and the border are one pass, on whole
images too.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D

from backend.kernels.attention import attend as attend_rows
from backend.kernels.attention import segments_of
from backend.kernels.stitch import affine, moments, normalised, pool, stitch, with_halo
from backend.patched.context import PatchContext
from backend.patched.residual import FusedEnd, FusedResidual, FusedUpsample, fused_head


class Unpatchable(ValueError):  # noqa: N818
    """The model has a module that patches cannot pass exactly; the message names it."""


def hook(model: torch.nn.Module, context: PatchContext) -> None:
    """Give the modules of ``model`` that notice cuts a forward that knows ``context``.

    Raises:
        Unpatchable: a module of an unknown kind; nothing has been changed then.
    """
    forwards: list[tuple[torch.nn.Module, Callable[..., Any]]] = []
    attentions: list[tuple[Any, PatchedAttention]] = []
    ends: list[tuple[Any, FusedEnd]] = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            if _sees_neighbours(module, name):
                forwards.append((module, _PatchedConv(module, name, context)))
        elif isinstance(module, torch.nn.GroupNorm):
            forwards.append((module, _PatchedGroupNorm(module, name, context)))
        elif isinstance(module, Attention):
            if module.spatial_norm is not None or not isinstance(module.processor, AttnProcessor | AttnProcessor2_0):
                raise Unpatchable(f"{name} is an attention with a {type(module.processor).__name__}")
            attentions.append((module, PatchedAttention(module, name, context)))
        elif isinstance(module, TimestepEmbedding):
            forwards.append((module, _OncePerRow(module.forward, context)))
        elif name.rpartition(".")[2] == "time_emb_proj":
            forwards.append((module, _RepeatedPerPatch(module.forward, context)))
        elif isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose2d | torch.nn.BatchNorm2d):
            raise Unpatchable(f"{name} is a {type(module).__name__}, which cannot run on patches")
        elif isinstance(module, ResnetBlock2D) and context.kernels.fused:
            forwards.append((module, FusedResidual(module, context)))
        elif isinstance(module, Upsample2D) and context.kernels.fused:
            forwards.append((module, FusedUpsample(module)))
        elif isinstance(module, Transformer2DModel) and context.kernels.fused and module.is_input_continuous:
            ends.append((module, FusedEnd(module)))
    if context.kernels.fused:
        forwards += fused_head(model, context)
    for module, forward in forwards:
        module.forward = forward
    for transformer, end in ends:
        transformer._get_output_for_continuous_inputs = end
    for attention, processor in attentions:
        attention.set_processor(processor)


def _sees_neighbours(conv: torch.nn.Conv2d, name: str) -> bool:
    if conv.kernel_size == (1, 1):
        return False
    same = tuple(size // 2 for size in conv.kernel_size)
    if conv.padding != same or conv.padding_mode != "zeros" or conv.dilation != (1, 1) or same[0] != same[1]:
        raise Unpatchable(f"{name} is a convolution of kernel {conv.kernel_size} and padding {conv.padding}")
    return True


class _PatchedConv:
    def __init__(self, conv: torch.nn.Conv2d, name: str, context: PatchContext) -> None:
        self._conv = conv
        self._context = context
        self._whole = conv.forward
        self._name = name

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        context, conv = self._context, self._conv
        if context.layout is None or context.layout.whole:
            return self._whole(x)
        halo = int(conv.padding[0])
        if context.keeps:
            framed = with_kept_halo(x, context, halo, self._name)
        elif context.kernels.fused:
            framed = stitch(x, context.layout, halo=halo)
        else:
            framed = with_halo(x, context.layout, halo)
        return F.conv2d(framed, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def with_kept_halo(x: torch.Tensor, context: PatchContext, halo: int, name: str) -> torch.Tensor:
    """Like `with_halo` when only some patches are computed: the borders of the others are those kept."""
    lines = torch.stack((x[:, :, :halo], x[:, :, -halo:]), dim=1)  # [patches, 2, c, halo, w]
    columns = torch.stack((x[..., :halo], x[..., -halo:]), dim=1)  # [patches, 2, c, h, halo]
    if context.selected is None:
        context.of_all(f"{name}.lines", lines)
        context.of_all(f"{name}.columns", columns)
        assert context.layout is not None
        return with_halo(x, context.layout, halo)
    lines, columns = context.of_all(f"{name}.lines", lines), context.of_all(f"{name}.columns", columns)
    framed = F.pad(x, (halo, halo, halo, halo))
    into: dict[int, slice] = {-1: slice(0, halo), 0: slice(halo, -halo), 1: slice(-halo, None)}
    for (down, right), (patch, neighbour) in context.strips.items():
        if not len(patch):
            continue
        if down == 0:
            border = columns[:, 1 if right < 0 else 0]
        else:
            border = lines[:, 1 if down < 0 else 0]
            if right:
                border = border[..., -halo:] if right < 0 else border[..., :halo]
        framed[:, :, into[down], into[right]].index_copy_(0, patch, border.index_select(0, neighbour))
    return framed


class _PatchedGroupNorm:
    def __init__(self, norm: torch.nn.GroupNorm, name: str, context: PatchContext) -> None:
        self._norm = norm
        self._context = context
        self._whole = norm.forward
        self._name = name

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        context, norm = self._context, self._norm
        layout = context.layout
        if context.kernels.fused and not context.keeps and x.ndim == 4:
            return stitch(x, layout, affine(x, norm, layout))
        if layout is None or layout.whole:
            return self._whole(x)
        return normalised(x, pooled_affine(x, norm, context, self._name), context.rows)


def pooled_affine(
    x: torch.Tensor, norm: torch.nn.GroupNorm, context: PatchContext, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift [rows, channels] that normalise by the moments of whole images."""
    return pool(context.of_all(f"{name}.moments", moments(x, norm)), norm, context.layout)


class _OncePerRow:
    """A time embedding: the batch brings a timestep a patch, all patches of a row the same."""

    def __init__(self, forward: Callable[..., torch.Tensor], context: PatchContext) -> None:
        self._forward = forward
        self._context = context

    def __call__(self, sample: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layout = self._context.layout
        if layout is not None and len(sample) == len(layout):
            sample = sample[layout.first_patches]
        return self._forward(sample, *args, **kwargs)


class _RepeatedPerPatch:
    """A projection of the rows' embeddings that is then added to patches."""

    def __init__(self, forward: Callable[..., torch.Tensor], context: PatchContext) -> None:
        self._forward = forward
        self._context = context

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        projected = self._forward(rows)
        rows_of_patches = self._context.rows
        return projected if rows_of_patches is None else projected.index_select(0, rows_of_patches)


class PatchedAttention:
    """The attention processor of a model on patches: self-attention over whole images, text once an image."""

    def __init__(self, attention: Attention, name: str, context: PatchContext) -> None:
        self._base = attention.processor
        self._context = context
        self._name = name

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        context = self._context
        if context.layout is None:
            given: torch.Tensor = self._base(attn, hidden_states, encoder_hidden_states, attention_mask, temb, **kwargs)
            return given
        if attention_mask is not None:
            raise Unpatchable(f"{self._name} was given an attention mask")
        residual, shape = hidden_states, hidden_states.shape
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        query = attn.to_q(hidden_states)
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            source = attn.norm_encoder_hidden_states(source)
        key, value = attn.to_k(source), attn.to_v(source)
        if encoder_hidden_states is None:
            key = context.of_all(f"{self._name}.key", key)
            value = context.of_all(f"{self._name}.value", value)
            mixed = attend(query, key, value, attn, context, tokens_of_rows=None)
        else:
            mixed = attend(query, key, value, attn, context, tokens_of_rows=key.shape[1])
        mixed = attn.to_out[1](attn.to_out[0](mixed))
        if len(shape) == 4:
            mixed = mixed.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            mixed = mixed + residual
        return mixed / attn.rescale_output_factor


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn: Attention,
    context: PatchContext,
    tokens_of_rows: int | None,
) -> torch.Tensor:
    """Attention of each image's queries to its own keys.

    Args:
        query: [computed patches, tokens, channels].
        key, value: [patches, tokens, channels], or [rows, ``tokens_of_rows``, channels] of the text.

    Returns:
        [computed patches, tokens, channels].
    """
    layout = context.layout
    assert layout is not None
    tokens = query.shape[1]
    patches = [end - start for start, end in pairwise(layout.starts)]
    computed = patches if context.selected is None else context.queries_of_rows()
    of_keys = [n * tokens for n in patches] if tokens_of_rows is None else [tokens_of_rows] * len(patches)
    q, k, v = (x.reshape(-1, attn.heads, x.shape[-1] // attn.heads) for x in (query, key, value))
    if attn.norm_q is not None:
        q = attn.norm_q(q)
    if attn.norm_k is not None:
        k = attn.norm_k(k)
    of_queries = tuple(n * tokens for n in computed)
    queries = layout.segments(of_queries) if context.selected is None else segments_of(of_queries, q.device)
    keys = layout.segments(tuple(of_keys))
    return attend_rows(q, k, v, queries, keys, context.kernels.fused).reshape(len(query), tokens, -1)
