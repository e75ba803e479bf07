"""The Triton kernels of `backend.kernels.stitch`, whose docstrings say what they compute.

A program takes a tile of pixels by channels of one patch. In channels-last memory channels stand together, and a
thread loads and stores 16 bytes of them; in the default format pixels do. Moments are taken in three steps, so that
no large mean cancels a small variance and no order of arrival matters: a tile's are computed from registers, channel
by channel, around its own mean; the tiles of an image and the channels of a group are then pooled in a fixed order.
That they are kept by channel lets a constant that is added to a channel (a bias, a time embedding) be pooled with
them instead of being added to every pixel.

Arithmetic is float32, of float64 float64.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl

from backend.patched.layout import PatchLayout

Affine = tuple[torch.Tensor, torch.Tensor]

TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
MOMENTS_TILE = 8192
STITCH_TILE = 4096
POOL_TILE = 1024
"""Elements of a program, bytes in flight against registers; of wider types than two bytes fewer."""


def knows(x: torch.Tensor) -> bool:
    """Whether the kernels run on this tensor: where it is, its type, and dense in one of the two memory formats."""
    runs = x.is_cuda or not isinstance(_stitch, triton.runtime.JITFunction)  # interpreted, they run anywhere
    dense = x.ndim == 4 and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))
    return bool(runs and dense and x.dtype in TYPES and x.numel() > 0 and x[0].numel() < 2**30)


def affine(
    x: torch.Tensor,
    groups: int,
    eps: float,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    layout: PatchLayout | None,
    added: torch.Tensor | None,
) -> Affine:
    """See `backend.kernels.stitch.affine`."""
    patches, channels, height, width = x.shape
    last, area = _channels_last(x), height * width
    tile = _tile(area, channels, MOMENTS_TILE * 2 // max(2, x.element_size()), last, pixels=128)
    pieces = triton.cdiv(area, tile[0])
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    moments = torch.empty(patches, pieces, 2, channels, dtype=exact, device=x.device)
    rows = patches if layout is None else len(layout.sizes)
    scale, shift = torch.empty(2, rows, channels, dtype=exact, device=x.device).unbind(0)
    with _device_of(x):
        _moments[(patches * pieces * triton.cdiv(channels, tile[1]),)](
            x,
            moments,
            channels,
            area,
            triton.cdiv(channels, tile[1]),
            pieces,
            LAST=last,
            PIXELS=tile[0],
            CHANNELS=tile[1],
            num_warps=_warps(tile),
        )
        _pool[(rows, groups)](
            moments, scale, shift,
            x if weight is None else weight, x if bias is None else bias, x if added is None else added,
            x if layout is None else layout.first_patches, x if layout is None else layout.patches_of_row,
            channels, area, pieces, 0 if added is None else added.stride(0),
            EPS=eps, WEIGHT=weight is not None, BIAS=bias is not None, ADDED=added is not None,
            CUT=layout is not None, PIXELS=tile[0], EACH=channels // groups,
            EACH_UP=triton.next_power_of_2(channels // groups),
            ENTRIES=max(1, POOL_TILE // triton.next_power_of_2(channels // groups)), num_warps=4,
        )  # fmt: skip
    return scale, shift


def stitch(x: torch.Tensor, affine: Affine | None, silu: bool, halo: int, layout: PatchLayout | None) -> torch.Tensor:
    """See `backend.kernels.stitch.stitch`; the halo is no wider than a patch."""
    patches, channels, height, width = x.shape
    last = _channels_last(x)
    lines, columns = height + 2 * halo, width + 2 * halo
    out = torch.empty(
        patches, channels, lines, columns, dtype=x.dtype, device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip
    tile = _tile(lines * columns, channels, STITCH_TILE * 2 // max(2, x.element_size()), last, pixels=64)
    pieces, blocks = triton.cdiv(lines * columns, tile[0]), triton.cdiv(channels, tile[1])
    scale, shift = affine or (x, x)
    with _device_of(x):
        _stitch[(patches * pieces * blocks,)](
            x, out, scale, shift,
            x if layout is None else layout.row_of, x if layout is None else layout.neighbours,
            patches, height, width, blocks, pieces, channels, height * width, lines * columns,
            HALO=halo, NORM=affine is not None, SILU=silu, CUT=layout is not None, LAST=last,
            PIXELS=tile[0], CHANNELS=tile[1], num_warps=_warps(tile),
        )  # fmt: skip
    return out


def _channels_last(x: torch.Tensor) -> bool:
    return x.stride(3) == x.shape[1] and x.is_contiguous(memory_format=torch.channels_last)


def _tile(area: int, channels: int, elements: int, last: bool, pixels: int) -> tuple[int, int]:
    """(pixels, channels), powers of two: what stands together in memory is as wide as 128 bytes at least.

    Few pixels are made up for by more channels, as long as the channels divide by them.
    """
    if not last:
        of_pixels = min(triton.next_power_of_2(area), 1024)
        return of_pixels, min(triton.next_power_of_2(channels), max(1, elements // of_pixels))
    of_pixels = min(triton.next_power_of_2(area), pixels)
    wide = min(64, triton.next_power_of_2(channels))
    while wide * of_pixels < elements and channels % (2 * wide) == 0:
        wide *= 2
    return min(of_pixels, max(1, elements // wide)), wide


def _warps(tile: tuple[int, int]) -> int:
    return max(1, min(4, tile[0] * tile[1] // 256))


def _device_of(x: torch.Tensor) -> Any:
    """Kernels start on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@triton.jit(do_not_specialize=["blocks", "pieces"])
def _moments(  # type: ignore[no-untyped-def]
    x, moments, channels, area, blocks, pieces,
    LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Mean of a tile's pixels, and the sum of their squared deviations from it, by channel."""
    program = tl.program_id(0)
    channel = (program % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    piece = (program // blocks) % pieces
    patch = (program // blocks // pieces).to(tl.int64)
    pixel = piece * PIXELS + tl.arange(0, PIXELS)
    inside = (pixel < area)[:, None] & (channel < channels)[None, :]
    if LAST:
        at = ((patch * area + pixel) * channels)[:, None] + channel[None, :]
    else:
        at = (patch * channels + channel)[None, :] * area + pixel[:, None]
    value = tl.load(x + at, mask=inside, other=0.0)
    if x.dtype.element_ty != tl.float64:
        value = value.to(tl.float32)
    count = tl.minimum(area - piece * PIXELS, PIXELS)
    mean = tl.sum(value, axis=0) / count
    deviation = tl.where(inside, value - mean[None, :], 0.0)
    to = moments + (patch * pieces + piece) * 2 * channels + channel
    tl.store(to, mean, mask=channel < channels)
    tl.store(to + channels, tl.sum(deviation * deviation, axis=0), mask=channel < channels)


@triton.jit(do_not_specialize=["pieces", "added_step"])
def _pool(  # type: ignore[no-untyped-def]
    moments, scale, shift, weight, bias, added, first_of_row, patches_of_row,
    channels, area, pieces, added_step,
    EPS: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr, ADDED: tl.constexpr,  # noqa: N803
    CUT: tl.constexpr, PIXELS: tl.constexpr, EACH: tl.constexpr, EACH_UP: tl.constexpr, ENTRIES: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Scale and shift of one group of one row, from the moments of its tiles: law of total variance."""
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if CUT:
        first, count = tl.load(first_of_row + row), tl.load(patches_of_row + row) * pieces
    else:
        first, count = row, pieces.to(tl.int64)
    one = tl.arange(0, EACH_UP)
    channel = group * EACH + one
    own = one < EACH
    plus = tl.full((EACH_UP,), 0.0, dtype=moments.dtype.element_ty)
    if ADDED:
        plus = tl.load(added + first * added_step + channel, mask=own, other=0.0).to(plus.dtype)
    base = moments + first * pieces * 2 * channels + channel
    entry = tl.arange(0, ENTRIES)
    total = count // pieces * area * EACH  # of values
    sums = tl.full((ENTRIES, EACH_UP), 0.0, dtype=plus.dtype)
    for start in range(0, count, ENTRIES):
        index = start + entry
        mask = (index < count)[:, None] & own[None, :]
        pixels = tl.minimum(area - (index % pieces) * PIXELS, PIXELS).to(plus.dtype)
        means = tl.load(base[None, :] + (index * 2 * channels)[:, None], mask=mask, other=0.0)
        sums += tl.where(mask, (means + plus[None, :]) * pixels[:, None], 0.0)
    mean = tl.sum(sums) / total
    squares = tl.full((ENTRIES, EACH_UP), 0.0, dtype=plus.dtype)
    for start in range(0, count, ENTRIES):
        index = start + entry
        mask = (index < count)[:, None] & own[None, :]
        pixels = tl.minimum(area - (index % pieces) * PIXELS, PIXELS).to(plus.dtype)
        at = base[None, :] + (index * 2 * channels)[:, None]
        between = tl.load(at, mask=mask, other=0.0) + plus[None, :] - mean
        within = tl.load(at + channels, mask=mask, other=0.0)
        squares += tl.where(mask, within + between * between * pixels[:, None], 0.0)
    variance = tl.sum(squares) / total
    factor = tl.full((EACH_UP,), 0.0, dtype=plus.dtype) + 1.0 / tl.sqrt(variance + EPS)
    if WEIGHT:
        factor *= tl.load(weight + channel, mask=own, other=0.0).to(plus.dtype)
    offset = (plus - mean) * factor
    if BIAS:
        offset += tl.load(bias + channel, mask=own, other=0.0).to(plus.dtype)
    tl.store(scale + row * channels + channel, factor, mask=own)
    tl.store(shift + row * channels + channel, offset, mask=own)


@triton.jit
def _silu(value):  # type: ignore[no-untyped-def]
    """value / (1 + exp(-value)), of float32 by two instructions of the chip without care for denormal numbers."""
    if FAST and value.dtype == tl.float32:
        power = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [value * -1.4426950408889634], tl.float32, is_pure=True, pack=1
        )
        inverse = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [1.0 + power], tl.float32, is_pure=True, pack=1
        )
        return value * inverse
    else:
        return value / (1.0 + tl.exp(-value))


FAST = tl.constexpr(isinstance(_silu, triton.runtime.JITFunction))
"""Compiled, not interpreted."""


@triton.jit(do_not_specialize=["patches", "height", "width", "blocks", "pieces"])
def _stitch(  # type: ignore[no-untyped-def]
    x, out, scale, shift, row_of, neighbours, patches, height, width, blocks, pieces, channels, area, out_area,
    HALO: tl.constexpr, NORM: tl.constexpr, SILU: tl.constexpr, CUT: tl.constexpr, LAST: tl.constexpr,  # noqa: N803
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """One tile of the framed output: read, normalised, activated, zero outside the image, written."""
    program = tl.program_id(0)
    channel = (program % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    pixel = ((program // blocks) % pieces) * PIXELS + tl.arange(0, PIXELS)
    patch = (program // blocks // pieces).to(tl.int64)
    written = pixel < out_area
    columns = width + 2 * HALO
    if HALO == 0:
        source, at, inside = patch, pixel, written
    else:
        line = (pixel.to(tl.uint32) // columns.to(tl.uint32)).to(tl.int32)
        column = pixel - line * columns - HALO
        line -= HALO
        down = (line >= 0).to(tl.int32) + (line >= height).to(tl.int32)  # 0 above, 1 beside, 2 below
        right = (column >= 0).to(tl.int32) + (column >= width).to(tl.int32)
        away = (down != 1) | (right != 1)
        if CUT:
            near = tl.load(neighbours + patch * 9 + down * 3 + right, mask=written & away, other=0)
            source = tl.where(away, near, patch)
            inside = written & (source < patches)
        else:
            source, inside = patch, written & (away == 0)
        at = (line - (down - 1) * height) * width + column - (right - 1) * width
    known = channel < channels
    if LAST:
        offsets = ((source * area + at) * channels)[:, None] + channel[None, :]
    elif HALO == 0 or not CUT:
        offsets = (patch * channels + channel)[None, :] * area + at[:, None]
    else:
        offsets = (source[:, None] * channels + channel[None, :]) * area + at[:, None]
    value = tl.load(x + offsets, mask=inside[:, None] & known[None, :], other=0.0)
    if NORM or SILU:
        if x.dtype.element_ty != tl.float64:
            value = value.to(tl.float32)
        if NORM:
            row = tl.load(row_of + patch) if CUT else patch
            factor = tl.load(scale + row * channels + channel, mask=known, other=0.0)
            value = value * factor[None, :] + tl.load(shift + row * channels + channel, mask=known, other=0.0)[None, :]
        if SILU:
            value = _silu(value)
    value = value.to(out.dtype.element_ty)
    if HALO > 0 and NORM:
        value = tl.where(inside[:, None], value, 0.0)
    if LAST:
        to = ((patch * out_area + pixel) * channels)[:, None] + channel[None, :]
    else:
        to = (patch * channels + channel)[None, :] * out_area + pixel[:, None]
    tl.store(out + to, value, mask=written[:, None] & known[None, :])
