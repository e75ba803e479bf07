"""Attention of many rows of any lengths: each row's queries see the same row's keys and nothing else.

Nothing is padded and no mask is built. Rows of equal lengths that stand together share a call of torch's attention;
rows of several lengths, on CUDA and in half precision, share one variable-length flash kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from itertools import accumulate, groupby

import torch
from torch.nn.functional import scaled_dot_product_attention

from backend.kernels.fallback import kernel_or

FLASH = find_spec("torch.nn.attention.varlen") is not None
"""Whether this torch has attention over rows of any lengths (2.10 and later)."""
LARGE = 5e10
"""Operations of a call from which on it fills a Hopper chip for longer than it takes to start (about 0.1 ms)."""


class Segments:
    """Runs of consecutive tokens, one a row.

    Args:
        lengths: tokens of each row.
        device: where the tables are, which are made when they are asked for.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = tuple(lengths)
        self.longest = max(self.lengths, default=0)
        self._device = device

    @cached_property
    def rows(self) -> torch.Tensor:
        """[tokens] int64, the row of each token."""
        counts = torch.tensor(self.lengths, dtype=torch.int64)
        return torch.arange(len(counts)).repeat_interleave(counts).to(self._device)

    @cached_property
    def starts(self) -> torch.Tensor:
        """[rows + 1] int32: where each row begins, and the end."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32).to(self._device)


@lru_cache(maxsize=64)
def segments_of(lengths: tuple[int, ...], device: torch.device) -> Segments:
    """The rows of a composition; a batch whose composition stays keeps its tables."""
    return Segments(lengths, device)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, queries: Segments, keys: Segments, fused: bool = True
) -> torch.Tensor:
    """Attention of each row's queries to the same row's keys.

    Args:
        q: [query tokens, heads, channels].
        k: [key tokens, heads, channels], and so is ``v``.
        queries: the rows of ``q``.
        keys: the rows of ``k`` and ``v``; as many.
        fused: in whichever way suits the device; else as `attend_by_length`.

    Returns:
        [query tokens, heads, channels].
    """
    if fused and _takes_any_lengths(q, v) and not _better_apart(q, queries, keys):
        return kernel_or(
            "attention of rows of any lengths",
            lambda: attend_at_once(q, k, v, queries, keys),
            lambda: attend_by_length(q, k, v, queries, keys),
        )
    return attend_by_length(q, k, v, queries, keys)


def attend_by_length(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, queries: Segments, keys: Segments
) -> torch.Tensor:
    """`attend` with a call of torch's attention for each run of rows of equal lengths: the reference."""
    parts, q_at, k_at = [], 0, 0
    for (q_length, k_length), run in groupby(zip(queries.lengths, keys.lengths, strict=True)):
        rows = len(list(run))
        q_to, k_to = q_at + rows * q_length, k_at + rows * k_length
        if q_length:
            q_rows = q[q_at:q_to].unflatten(0, (rows, q_length)).transpose(1, 2)
            k_rows, v_rows = (x[k_at:k_to].unflatten(0, (rows, k_length)).transpose(1, 2) for x in (k, v))
            parts.append(scaled_dot_product_attention(q_rows, k_rows, v_rows).transpose(1, 2).flatten(0, 1))
        q_at, k_at = q_to, k_to
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def attend_at_once(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, queries: Segments, keys: Segments
) -> torch.Tensor:
    """`attend` with one flash kernel for rows of any lengths: CUDA, half precision, at most 256 channels a head."""
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(q, k, v, queries.starts, keys.starts, queries.longest, keys.longest)
    assert isinstance(out, torch.Tensor)
    return out


def attention_flop(queries: Segments, keys: Segments, heads: int, channels: int) -> float:
    """Operations of `attend`, a multiplication and an addition two: both matrix products of each row."""
    return sum(4.0 * q * k * heads * channels for q, k in zip(queries.lengths, keys.lengths, strict=True))


def _takes_any_lengths(q: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether the flash kernel knows such a device, type and size of heads."""
    return (
        FLASH
        and q.is_cuda
        and q.dtype in (torch.float16, torch.bfloat16)
        and q.shape[-1] == v.shape[-1] <= 256
        and q.shape[-1] % 8 == 0
        and len(q) > 0
        and _capability(q.device) >= (8, 0)
    )


def _better_apart(q: torch.Tensor, queries: Segments, keys: Segments) -> bool:
    """Whether a call for each run of equal rows beats one for all.

    One run needs no table. And on Hopper and later torch's attention is cuDNN's, which makes more of the matrix units
    than the flash kernel for rows of any lengths, where every call is large.
    """
    pairs = groupby(zip(queries.lengths, keys.lengths, strict=True))
    runs = [len(list(run)) * q_length * k_length for (q_length, k_length), run in pairs if q_length]
    smallest = min(runs, default=0) * 4.0 * q.shape[1] * q.shape[2]
    return len(runs) <= 1 or (_capability(q.device) >= (9, 0) and smallest >= LARGE)


@lru_cache
def _capability(device: torch.device) -> tuple[int, int]:
    major, minor = torch.cuda.get_device_capability(device)
    return major, minor
