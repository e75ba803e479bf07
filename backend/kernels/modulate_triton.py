"""The Triton kernel of `backend.kernels.modulate`: a product with a row's entry, a sum with a row's or a token's."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

ELEMENTS = 2048
"""Of one program: 16 a thread, two loads of 16 bytes from each tensor in half precision."""
WIDEST = 512
"""Channels of one program at most."""
DTYPES = {
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}


@triton.jit(do_not_specialize=["tokens"])
def _multiply_add(  # type: ignore[no-untyped-def]
    x,
    factor,
    term,
    rows,
    out,
    tokens,
    width,
    factor_stride,
    term_stride,
    TERM_OF_ROW: tl.constexpr,  # noqa: N803 - Triton's own style for constants
    PRODUCT: tl.constexpr,  # noqa: N803
    SUM: tl.constexpr,  # noqa: N803
    PRODUCT_MATH: tl.constexpr,  # noqa: N803
    SUM_MATH: tl.constexpr,  # noqa: N803
    TOKENS: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
):
    """x, out [tokens, width]; factor [rows, factor_stride]; term [tokens, width], or of rows as the factor."""
    pieces = tl.cdiv(width, WIDTH)
    program = tl.program_id(0)
    token = (program // pieces).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    channel = (program % pieces) * WIDTH + tl.arange(0, WIDTH)
    inside = (token < tokens)[:, None] & (channel < width)[None, :]
    row = tl.load(rows + token, mask=token < tokens, other=0)
    at = token[:, None] * width + channel[None, :]
    value = tl.load(x + at, mask=inside, other=0.0)
    by = tl.load(factor + row[:, None] * factor_stride + channel[None, :], mask=inside, other=0.0)
    if TERM_OF_ROW:
        plus = tl.load(term + row[:, None] * term_stride + channel[None, :], mask=inside, other=0.0)
    else:
        plus = tl.load(term + at, mask=inside, other=0.0)
    product = (value.to(PRODUCT_MATH) * by.to(PRODUCT_MATH)).to(PRODUCT)
    total = (product.to(SUM_MATH) + plus.to(SUM_MATH)).to(SUM)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def runs_on(device: torch.device) -> bool:
    """Whether the kernel runs there: on CUDA, or anywhere when Triton interprets."""
    return device.type == "cuda" or not isinstance(_multiply_add, triton.JITFunction)


def multiply_add(
    x: torch.Tensor,
    factor: torch.Tensor,
    term: torch.Tensor,
    rows: torch.Tensor,
    term_of_row: bool,
    dtype: torch.dtype | None,
) -> torch.Tensor:
    """``x * factor[rows] + term[rows]``, or ``+ term`` of each token; of arguments that `modulate` has checked."""
    product = torch.promote_types(x.dtype, factor.dtype)
    total = torch.promote_types(product, term.dtype)
    out = torch.empty_like(x, dtype=dtype or total)
    tokens, width = len(x), x[0].numel()
    block = min(WIDEST, triton.next_power_of_2(width))
    tile = ELEMENTS // block
    grid = (triton.cdiv(tokens, tile) * triton.cdiv(width, block),)
    with torch.cuda.device_of(x):
        _multiply_add[grid](
            x,
            factor,
            term,
            rows,
            out,
            tokens,
            width,
            factor.stride(0),
            term.stride(0),
            TERM_OF_ROW=term_of_row,
            PRODUCT=DTYPES[product],
            SUM=DTYPES[total],
            PRODUCT_MATH=_math(product),
            SUM_MATH=_math(total),
            TOKENS=tile,
            WIDTH=block,
            enable_fp_fusion=False,  # a product and a sum in one rounding would differ from PyTorch
        )
    return out


def _math(dtype: torch.dtype) -> tl.dtype:
    """In what PyTorch computes on a type."""
    return tl.float64 if dtype == torch.float64 else tl.float32
