"""A block's own code at work on a pack: attention stays within rows, and nothing else may mix tokens.

The first time, every function of torch that the block calls must be one that is known to treat each token alone, or to
move whole tokens. Blocks that passed are only kept from attending across rows. Attention is caught where torch has it,
under its name in `torch.nn.functional`, and at the kernels of others that diffusers can be told to use.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Protocol

import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from backend.kernels.attention import attend
from backend.packed.pack import Arrangement, NotPackable, Pack

_OF_TOKENS = re.compile(
    r"linear|layer_norm|rms_norm|silu|gelu|relu|sigmoid|tanh|softplus|exp|cos|sin|dropout|mul_?|add_?|sub|div|rsub|neg"
    r"|true_divide|pow|rsqrt|sqrt|square|addcmul|clip|clamp|nan_to_num|masked_fill_?|where|eq|ne|logical_and"
    r"|bitwise_(and|not)|float|double|half|bfloat16|to|type|type_as|bool|int|long|contiguous|clone|detach|real|imag"
    r"|view_as_(complex|real)|polar|outer|promote_types|result_type|is_(floating_point|complex|inference)|_is_view|numpy"
    r"|get_device|all|(ones|zeros)(_like)?|empty_like|arange|cat|concat|chunk|split|split_with_sizes|tensor_split|unbind"
    r"|stack|narrow|unflatten|flatten|reshape|view|view_as|transpose|permute|movedim|swapaxes|swapdims|t|unsqueeze"
    r"|squeeze|expand|expand_as|repeat|repeat_interleave|size|dim|ndim|numel|mean|sum"
    r"|getitem|__(get|set|getitem|setitem|r?mul|r?add|r?sub|truediv|pow|neg|len|eq|ne|imul|iadd|and|invert)__"
)
"""Functions of each token alone, or that move whole tokens; what takes an axis is looked at closer."""
_OVER_AN_AXIS = frozenset({"mean", "sum", "unbind", "chunk"})


class KeyMemory(Protocol):
    """Keys and values of tokens that the pack under way has not."""

    def complete(
        self, keys: Arrangement, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[Arrangement, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Those of all tokens, and how they lie, given those of the pack."""
        ...


class RowAttention:
    """Attention within the rows of a pack.

    Args:
        pack: the rows. It may be exchanged for another one on the way.
        memory: of the keys that are not among them; None: all are.
    """

    def __init__(self, pack: Pack, memory: KeyMemory | None = None) -> None:
        self.pack = pack
        self._memory = memory

    def attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> torch.Tensor:
        """What torch's attention gives to each row alone; tensors are [1, heads, tokens, channels]."""
        if is_causal:
            raise NotPackable("its attention is causal", always=True)
        if attn_mask is None and not any(more.values()):
            queries, keys = self._arrangements(query, key, None)
            if self._memory is not None:
                keys, key, value, _ = self._memory.complete(keys, key, value, None)
            q, k, v = (
                who.row_by_row(x[0].transpose(0, 1)) for who, x in ((queries, query), (keys, key), (keys, value))
            )
            out = attend(q, k, v, queries.segments, keys.segments, self.pack.fused)
            return queries.arranged(out).transpose(0, 1)[None]

        def some(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            return scaled_dot_product_attention(q, k, v, attn_mask=mask, **more)

        return self.row_by_row(some, query, key, value, attn_mask)

    def row_by_row(
        self,
        attention: Callable[..., torch.Tensor],
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """[1, heads, tokens, channels] by ``attention(query, key, value, mask)`` of rows of equal lengths."""
        queries, keys = self._arrangements(query, key, mask)
        if self._memory is not None:
            keys, key, value, mask = self._memory.complete(keys, key, value, mask)
        return rows_apart(attention, query, key, value, mask, (queries, keys))

    def _arrangements(
        self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[Arrangement, Arrangement]:
        queries, keys = (self.pack.arrangement(x.shape[2]) for x in (query, key))
        if queries is None or keys is None or len(query) != 1:
            raise NotPackable(f"attention of {tuple(query.shape)} to {tuple(key.shape)}")
        if self.pack.attended is not None:
            self.pack.attended.add((queries.names, keys.names, mask_of(mask)))
        return queries, keys


def mask_of(mask: torch.Tensor | None) -> str:
    """What a mask of attention says: of ``keys``, of ``pairs`` of tokens, or ``both``: pairs of which both count."""
    if mask is None:
        return ""
    if mask.ndim < 2 or mask.shape[-2] == 1:
        return "keys"
    if mask.shape[-2] != mask.shape[-1]:
        return "pairs"
    counts = mask.diagonal(dim1=-2, dim2=-1)
    return "both" if torch.equal(mask, counts[..., None] * counts[..., None, :]) else "pairs"


def rows_apart(
    attention: Callable[..., torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    rows: tuple[Arrangement, Arrangement],
) -> torch.Tensor:
    """[1, heads, tokens, channels] by ``attention(query, key, value, mask)`` of rows of equal lengths.

    ``rows``: where those of the queries and those of the keys lie.
    """
    queries, keys = rows
    out = query.new_empty((*query.shape[:3], value.shape[-1]))
    for (length, _), run in groupby(range(len(queries.spans)), lambda row: (queries.length(row), keys.length(row))):
        if not length:
            continue
        alike = list(run)
        q, k, v = (
            torch.cat([who.of_row(x, row, 2) for row in alike])
            for who, x in ((queries, query), (keys, key), (keys, value))
        )
        masks = None if mask is None else torch.cat([_mask_of_row(mask, row, queries, keys) for row in alike])
        for row, done in zip(alike, attention(q, k, v, masks), strict=True):
            at = 0
            for begin, end in queries.spans[row]:
                out[0, :, begin:end] = done[:, at : at + end - begin]
                at += end - begin
    return out


def _mask_of_row(mask: torch.Tensor, row: int, queries: Arrangement, keys: Arrangement) -> torch.Tensor:
    """[1, heads or 1, queries or 1, keys]."""
    if mask.shape[-1] == keys.tokens:
        mask = keys.of_row(mask, row, mask.ndim - 1)
    if mask.ndim > 1 and mask.shape[-2] == queries.tokens:
        mask = queries.of_row(mask, row, mask.ndim - 2)
    return mask[(None,) * (4 - mask.ndim)]


class _Guard:
    """Puts `_in_rows` in the place of torch's attention as long as a pack is under way in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1
            functional.scaled_dot_product_attention = _in_rows
            _guard_other_kernels()

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                functional.scaled_dot_product_attention = scaled_dot_product_attention


_guard = _Guard()
_running = threading.local()


@contextmanager
def within(rows: RowAttention) -> Iterator[None]:
    """Attention of this thread stays within rows."""
    with _guard:
        _running.rows = rows
        try:
            yield
        finally:
            _running.rows = None


def _in_rows(*args: Any, **kwargs: Any) -> torch.Tensor:
    rows: RowAttention | None = getattr(_running, "rows", None)
    if rows is None:
        return scaled_dot_product_attention(*args, **kwargs)
    with torch._C.DisableTorchFunction():
        return rows.attention(*args, **kwargs)


class Checking(TorchFunctionMode):
    """Refuses, by `NotPackable`, what is not known to treat each token of a pack alone."""

    def __init__(self, pack: Pack) -> None:
        super().__init__()
        self._pack = pack

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._check(getattr(func, "__name__", str(func)), args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _check(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == "pad" and not args[0].is_floating_point():
            return  # of a mask
        if not _OF_TOKENS.fullmatch(name):
            raise NotPackable(f"it calls {name}", always=True)
        if name in ("cat", "concat"):
            self._joined(args, kwargs)
        elif name in _OVER_AN_AXIS:
            at = 2 if name == "chunk" else 1
            axis = kwargs.get("dim", args[at] if len(args) > at else None)
            if axis is None and name in ("mean", "sum"):
                raise NotPackable(f"it calls {name} of everything", always=True)
            x = args[0]
            for one in [axis] if isinstance(axis, int) else axis or [0]:
                tokens = x.ndim > 2 and x.shape[0] == 1 and one % x.ndim == 1
                if tokens and self._pack.arrangement(x.shape[1]) is not None:
                    raise NotPackable(f"it calls {name} over tokens", always=True)

    def _joined(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        parts, axis = args[0], kwargs.get("dim", args[1] if len(args) > 1 else 0)
        if axis % parts[0].ndim != parts[0].ndim - 1 or parts[0].dtype == torch.bool:
            self._pack.joined([part.shape[axis] for part in parts])


def _guard_other_kernels() -> None:
    """Kernels that have no name in torch attend row by row, too."""
    backends = _AttentionBackendRegistry._backends
    for name, backend in list(backends.items()):
        if "native" not in name.value and not hasattr(backend, "__wrapped__"):
            backends[name] = _within_rows(backend)


def _within_rows(backend: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(backend)
    def attention(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None, **more: Any
    ) -> torch.Tensor:
        rows: RowAttention | None = getattr(_running, "rows", None)
        if rows is None:
            return backend(query, key, value, **_mask(attn_mask), **more)

        def some(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # these have [rows, tokens, heads, channels]
            return backend(q, k, v, **_mask(mask), **more).transpose(1, 2)

        with torch._C.DisableTorchFunction():
            q, k, v = (x.transpose(1, 2) for x in (query, key, value))
            return rows.row_by_row(some, q, k, v, attn_mask).transpose(1, 2)

    return attention


def _mask(mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {} if mask is None else {"attn_mask": mask}
