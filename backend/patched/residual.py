"""Residual blocks, upsamplers, transformers' ends and the last layers of a UNet on fused kernels.

GroupNorm, SiLU and the halo of the convolution after them are one pass.
What is added to every pixel of a channel alike, a convolution's bias and the time embedding, goes into the moments
and the factors of the GroupNorm that follows, and no pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D

from backend.kernels.stitch import affine, stitch
from backend.patched.context import PatchContext


class FusedResidual:
    """The forward of a residual block; of one with anything unusual the forward that it had."""

    def __init__(self, block: ResnetBlock2D, context: PatchContext) -> None:
        self._block = block
        self._context = context
        self._before = block.forward

    def __call__(self, x: torch.Tensor, temb: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        block, context = self._block, self._context
        if context.keeps or not _plain(block) or (temb is None) != (block.time_emb_proj is None):
            before: torch.Tensor = self._before(x, temb, *args, **kwargs)
            return before
        hidden = _convolved(x, block.norm1, block.conv1, context, bias=None)
        added = None if block.conv1.bias is None else block.conv1.bias[None]
        if block.time_emb_proj is not None:
            projected = block.time_emb_proj(temb if block.skip_time_act else block.nonlinearity(temb))
            added = projected if added is None else projected + added
        hidden = _convolved(hidden, block.norm2, block.conv2, context, block.conv2.bias, added)
        out = hidden.add_(x if block.conv_shortcut is None else block.conv_shortcut(x))
        return out if block.output_scale_factor == 1 else out.div_(block.output_scale_factor)


class FusedUpsample:
    """The forward of an upsampler that doubles: diffusers' own leaves channels-last from 64 entries on."""

    def __init__(self, upsample: Upsample2D) -> None:
        self._upsample = upsample
        self._before = upsample.forward

    def __call__(self, x: torch.Tensor, output_size: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        upsample = self._upsample
        plain = upsample.interpolate and upsample.use_conv and upsample.name == "conv" and upsample.norm is None
        last = x.is_contiguous(memory_format=torch.channels_last)
        if not plain or not last or upsample.use_conv_transpose or output_size is not None:
            before: torch.Tensor = self._before(x, output_size, *args, **kwargs)
            return before
        entries, channels, height, width = x.shape
        twice = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
        doubled = twice.contiguous().view(entries, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        assert upsample.conv is not None
        out: torch.Tensor = upsample.conv(doubled)
        return out


class FusedEnd:
    """From tokens back to an image, plus the residual: diffusers' own leaves channels-last, a copy here and another
    one before the next convolution."""

    def __init__(self, transformer: Transformer2DModel) -> None:
        self._transformer = transformer
        self._before = transformer._get_output_for_continuous_inputs

    def __call__(
        self, hidden_states: torch.Tensor, residual: torch.Tensor, batch_size: int, height: int, width: int, **rest: int
    ) -> torch.Tensor:
        if not residual.is_contiguous(memory_format=torch.channels_last):
            before: torch.Tensor = self._before(hidden_states, residual, batch_size, height, width, **rest)
            return before
        linear = self._transformer.use_linear_projection
        tokens = self._transformer.proj_out(hidden_states) if linear else hidden_states
        image = tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        out: torch.Tensor = (image if linear else self._transformer.proj_out(image)) + residual
        return out


def fused_head(model: Any, context: PatchContext) -> list[tuple[torch.nn.Module, Callable[..., Any]]]:
    """Forwards of the last GroupNorm, SiLU and convolution of a UNet: the convolution does what all three did.

    Empty where a model has no ``conv_norm_out``, ``conv_act`` and ``conv_out`` of these kinds.
    """
    norm, act, conv = (getattr(model, name, None) for name in ("conv_norm_out", "conv_act", "conv_out"))
    if type(norm) is not torch.nn.GroupNorm or type(act) is not torch.nn.SiLU or not _same(conv):
        return []
    last: torch.nn.Conv2d = conv  # type: ignore[assignment]
    return [(norm, _unchanged), (act, _unchanged), (last, lambda x: _convolved(x, norm, last, context, last.bias))]


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    return x


def _convolved(
    x: torch.Tensor,
    norm: torch.nn.GroupNorm,
    conv: torch.nn.Conv2d,
    context: PatchContext,
    bias: torch.Tensor | None,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """conv(silu(norm(x + added))), with ``bias`` instead of the convolution's own."""
    layout = context.layout
    cut = layout is not None and not layout.whole
    halo = int(conv.padding[0]) if cut else 0
    framed = stitch(x, layout, affine(x, norm, layout, added), silu=True, halo=halo)
    return F.conv2d(framed, conv.weight, bias, conv.stride, 0 if cut else conv.padding, conv.dilation, conv.groups)


def _plain(block: ResnetBlock2D) -> bool:
    """GroupNorm, SiLU and convolutions of torch's own classes (adapters replace them), and nothing between."""
    return (
        type(block.norm1) is type(block.norm2) is torch.nn.GroupNorm
        and type(block.nonlinearity) is torch.nn.SiLU
        and _same(block.conv1)
        and _same(block.conv2)
        and block.upsample is block.downsample is None
        and (block.time_emb_proj is None or block.time_embedding_norm == "default")
        and not (block.training and block.dropout.p > 0)
    )


def _same(conv: Any) -> bool:
    """Whether it gives as many pixels as it gets, with zeros around them."""
    return (
        type(conv) is torch.nn.Conv2d
        and conv.stride == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.padding == tuple(size // 2 for size in conv.kernel_size)
        and conv.padding[0] == conv.padding[1]
    )
