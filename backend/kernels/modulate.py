"""Shift, scale and gate of adaptive norms, of which every token has its row's.

The entries stay one a row, [rows, ...]; ``rows``, [tokens] int64, says whose a token has. Plain PyTorch makes an entry
a token of each before it applies it. The Triton kernel reads the tokens once, takes the entries from the cache of the
chip, and writes the result.

Both round where PyTorch does, after the product and after the sum, so they agree bit by bit.
"""

from __future__ import annotations

import torch

from backend.kernels.fallback import kernel_or

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def modulate(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    rows: torch.Tensor,
    fused: bool = False,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``x * scale[rows] + shift[rows]``.

    Args:
        x: [tokens, ...].
        scale: [rows, ...], what a token is multiplied with (stock code adds the one to it before), and so is ``shift``.
        rows: [tokens] int64.
        fused: in one kernel, where it knows the shapes and types.
        dtype: dtype of the result, once more rounded; None: as PyTorch promotes.

    Returns:
        [tokens, ...].
    """

    def plain() -> torch.Tensor:
        out = x * scale.index_select(0, rows) + shift.index_select(0, rows)
        return out if dtype is None else out.to(dtype)

    if fused and _in_one_kernel(rows, (x,), (scale, shift)):
        from backend.kernels import modulate_triton

        return kernel_or("modulate", lambda: modulate_triton.multiply_add(x, scale, shift, rows, True, dtype), plain)
    return plain()


def gated(
    residual: torch.Tensor,
    gate: torch.Tensor,
    y: torch.Tensor,
    rows: torch.Tensor,
    fused: bool = False,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``residual + gate[rows] * y``.

    Args:
        residual: [tokens, ...], and so is ``y``.
        gate: [rows, ...].
        rows, fused, dtype: see `modulate`.

    Returns:
        [tokens, ...].
    """

    def plain() -> torch.Tensor:
        out = residual + gate.index_select(0, rows) * y
        return out if dtype is None else out.to(dtype)

    if fused and _in_one_kernel(rows, (y, residual), (gate,)):
        from backend.kernels import modulate_triton

        return kernel_or("gated", lambda: modulate_triton.multiply_add(y, gate, residual, rows, False, dtype), plain)
    return plain()


def modulate_bytes(tokens: int, channels: int, itemsize: int) -> int:
    """Fewest bytes that `modulate` moves: each token is read and written once; the rows' entries are few."""
    return 2 * tokens * channels * itemsize


def gated_bytes(tokens: int, channels: int, itemsize: int) -> int:
    """Fewest bytes that `gated` moves: two inputs a token are read, one is written."""
    return 3 * tokens * channels * itemsize


def _in_one_kernel(rows: torch.Tensor, of_tokens: tuple[torch.Tensor, ...], of_rows: tuple[torch.Tensor, ...]) -> bool:
    """Whether the kernel takes these: floats on its device, one shape, each token's and row's entries side by side."""
    from backend.kernels.modulate_triton import runs_on

    first = of_tokens[0]
    entry = first.shape[1:]
    return (
        runs_on(first.device)
        and first.numel() > 0
        and rows.dtype == torch.int64
        and rows.shape == first.shape[:1]
        and rows.is_contiguous()
        and all(t.dtype in FLOATS and t.device == rows.device for t in (*of_tokens, *of_rows))
        and all(t.shape == first.shape and t.is_contiguous() for t in of_tokens)
        and all(t.shape[1:] == entry and t[:1].is_contiguous() for t in of_rows)
    )
