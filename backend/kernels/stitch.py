"""GroupNorm, SiLU and the halo of a convolution over patches: the stitcher of PatchedServe, exact.

A convolution on a patch needs a frame of its neighbours' pixels, as they are after GroupNorm and SiLU. GroupNorm
normalises by the moments of the whole image, which are pooled over its patches by the law of total variance: the mean
of the patches' variances plus the variance of their means (PatchedServe averages the variances, and so loses the
second). Pooled moments are a factor and a summand a channel, so one pass can do all that remains::

    moments   one read of x                 -> [patches, 2, groups]
    pool      moments, weight, bias, eps    -> scale, shift [rows, channels]
    stitch    silu(x * scale + shift), framed: one read of x, one write of the result

Functions that are asked for ``fused`` run the kernels of `backend.kernels.stitch_triton` where these know the tensor,
else their references here. A layout of None stands for images that are not cut: every entry is a row of its own, and
around it are zeros.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation

from backend.kernels.fallback import kernel_or
from backend.patched.layout import PatchLayout

Affine = tuple[torch.Tensor, torch.Tensor]
"""Scale and shift, [rows, channels] each, at least float32."""


def affine(
    x: torch.Tensor,
    norm: torch.nn.GroupNorm,
    layout: PatchLayout | None,
    added: torch.Tensor | None = None,
    fused: bool = True,
) -> Affine:
    """What normalises ``x`` by the moments of whole images: GroupNorm is ``x * scale + shift`` of each row.

    Args:
        x: [patches, channels, h, w].
        added: [patches, channels], or [1, channels]: equal on all patches of a row. Taken for added to ``x``: the
            result normalises ``x + added`` when it is given ``x``.
    """
    if fused and (kernels := _kernels(x)) is not None:
        per_patch = None if added is None else added.to(x.dtype).expand(len(x), -1)
        if per_patch is not None and per_patch.stride(1) != 1:
            per_patch = per_patch.contiguous()
        groups, eps = norm.num_groups, norm.eps
        moved: Affine = kernel_or(
            "affine",
            lambda: kernels.affine(x, groups, eps, norm.weight, norm.bias, _cut(layout), per_patch),
            lambda: affine(x, norm, layout, added, fused=False),
        )
        return moved
    summed = x if added is None else x + added[:, :, None, None]
    scale, shift = pool(moments(summed, norm), norm, layout)
    if added is None:
        return scale, shift
    of_rows = added.expand(len(x), -1)
    of_rows = of_rows if layout is None else of_rows[layout.first_patches]
    return scale, torch.addcmul(shift, of_rows.to(scale.dtype), scale)


def stitch(
    x: torch.Tensor,
    layout: PatchLayout | None,
    affine: Affine | None = None,
    silu: bool = False,
    halo: int = 0,
    fused: bool = True,
) -> torch.Tensor:
    """[patches, c, h, w] -> [patches, c, h + 2 halo, w + 2 halo] in the same memory format.

    Normalised by ``affine`` if given, activated by SiLU if asked for, framed by the pixels of the neighbours; zeros
    outside the image.
    """
    if fused and halo <= min(x.shape[2:]) and (kernels := _kernels(x)) is not None:
        framed: torch.Tensor = kernel_or(
            "stitch",
            lambda: kernels.stitch(x, affine, silu, halo, _cut(layout)),
            lambda: stitch(x, layout, affine, silu, halo, fused=False),
        )
        return framed
    if affine is not None:
        x = normalised(x, affine, None if layout is None else layout.row_of)
    if silu:
        x = F.silu(x)
    if halo == 0:
        return x
    return F.pad(x, (halo,) * 4) if layout is None else with_halo(x, layout, halo)


def normalised(x: torch.Tensor, affine: Affine, rows: torch.Tensor | None) -> torch.Tensor:
    """[entries, channels, ...] times scale plus shift of each entry's row, rounded to its type once, at the end.

    Args:
        x: of any type.
        affine: see `affine`; rounded to half precision itself, it would cost more than all else.
        rows: [entries] int64; None: the entries are the rows.
    """
    view = (len(x), -1) + (1,) * (x.ndim - 2)
    scale, shift = ((part if rows is None else part.index_select(0, rows)).view(view) for part in affine)
    if scale.dtype == x.dtype:
        return x.mul(scale).add_(shift)
    return torch.addcmul(shift, x, scale).to(x.dtype)


def _cut(layout: PatchLayout | None) -> PatchLayout | None:
    return None if layout is None or layout.whole else layout


def _kernels(x: torch.Tensor) -> Any:
    from backend.kernels import stitch_triton  # only where Triton is asked for

    return stitch_triton if stitch_triton.knows(x) else None


def with_halo(x: torch.Tensor, layout: PatchLayout, halo: int) -> torch.Tensor:
    """[patches, c, h, w] -> [patches, c, h + 2 halo, w + 2 halo], framed by the pixels of the neighbours.

    Lines above and below come first; the columns beside are then copied with the neighbours' own frames, so the
    corners are those of the diagonal neighbours. Images of one size are a grid of patches; their neighbours need no
    table.
    """
    height, width = x.shape[2:]
    framed = F.pad(x, (halo, halo, halo, halo))
    beside = slice(halo, halo + width)
    for row, rows, start, patches in layout.groups:
        lines, columns = layout.grids[row]
        plain, frame = (
            tensor[start : start + rows * patches].unflatten(0, (rows, lines, columns)) for tensor in (x, framed)
        )
        if lines > 1:
            frame[:, 1:, :, :, :halo, beside] = plain[:, :-1, :, :, height - halo :]
            frame[:, :-1, :, :, -halo:, beside] = plain[:, 1:, :, :, :halo]
        if columns > 1:
            frame[:, :, 1:, ..., :halo] = frame[:, :, :-1, ..., width : width + halo]
            frame[:, :, :-1, ..., -halo:] = frame[:, :, 1:, ..., halo : 2 * halo]
    return framed


def moments(x: torch.Tensor, norm: torch.nn.GroupNorm) -> torch.Tensor:
    """Mean and variance of each entry's groups of channels, at least float32: [entries, 2, groups].

    They are taken from torch's own GroupNorm, whose result is thrown away: on a CPU its moments cost a thirtieth of
    those of `torch.var_mean`.
    """
    exact = x if x.dtype in (torch.float32, torch.float64) else x.float()
    pixels = exact[0, 0].numel()
    _, mean, inverse = torch.native_group_norm(
        exact.contiguous(), None, None, len(x), norm.num_channels, pixels, norm.num_groups, norm.eps
    )
    return torch.stack((mean, inverse.pow(-2) - norm.eps), dim=1)


def pool(moments: torch.Tensor, norm: torch.nn.GroupNorm, layout: PatchLayout | None) -> Affine:
    """Scale and shift that normalise by the moments of whole images, from those of all patches.

    Law of total variance: the variance of an image is the mean of its patches' variances plus the variance of their
    means (all patches of an image have equally many pixels).
    """
    row_mean, row_variance = moments[:, 0], moments[:, 1]
    if layout is not None:
        patches = layout.patches_of_row.to(moments.dtype)[:, None]
        row_of = layout.row_of
        zeros = moments.new_zeros(len(layout.sizes), norm.num_groups)
        row_mean = zeros.index_add(0, row_of, moments[:, 0]) / patches
        within_and_between = moments[:, 1] + (moments[:, 0] - row_mean.index_select(0, row_of)).square()
        row_variance = zeros.index_add(0, row_of, within_and_between) / patches
    inverse = (row_variance + norm.eps).rsqrt()
    each = norm.num_channels // norm.num_groups
    scale, offset = inverse.repeat_interleave(each, 1), (row_mean * inverse).repeat_interleave(each, 1)
    if not norm.affine:
        return scale, -offset
    weight, bias = norm.weight.to(scale.dtype), norm.bias.to(scale.dtype)
    return scale * weight, bias - offset * weight


def moments_bytes(patches: int, channels: int, height: int, width: int, itemsize: int) -> int:
    """Fewest bytes that `affine` moves: one read of x, patches * channels * h * w * itemsize."""
    return patches * channels * height * width * itemsize


def stitch_bytes(patches: int, channels: int, height: int, width: int, halo: int, itemsize: int) -> int:
    """Fewest bytes that `stitch` moves: one read of x and one write of the result.

    patches * channels * itemsize * (h * w + (h + 2 halo) * (w + 2 halo)); what a frame reads of neighbours is in the
    caches.
    """
    framed = (height + 2 * halo) * (width + 2 * halo)
    return patches * channels * itemsize * (height * width + framed)
