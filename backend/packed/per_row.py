"""One entry a row where diffusers' code expects one a token.

A pack's tokens are the batch of stock code, so whatever modulates them would have to be written out once a token, all
six chunks of it, before it is applied. A `PerRow` stands for that tensor without being one. What stock code does to it
alone (cut it in chunks, add one, add a table) happens to the rows. A product with tokens waits for the sum that follows
it in every adaptive norm and every gated residual, and both are one operation (`backend.kernels.modulate`). Anything
else gets the tensor that the `PerRow` stands for, so the result is stock code's, bit by bit, whatever it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from backend.kernels.modulate import gated, modulate

_SUMS = {"add", "__add__", "__radd__"}
_PRODUCTS = {"mul", "multiply", "__mul__", "__rmul__"}
_OF_ENTRIES = {"chunk", "unsqueeze", "reshape"}
_OF_VALUES = {"float", "double", "half", "bfloat16", "to", "type_as"}


class _Lazy:
    """Looks like a tensor; is computed when anything needs it."""

    __slots__ = ()

    def tensor(self) -> torch.Tensor:
        """The tensor it stands for."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__
        if not kwargs and len(args) == 2:
            if name in _SUMS:
                return _sum(*args)
            if name in _PRODUCTS:
                return _product(*args)
        if name in _OF_ENTRIES and args and isinstance(args[0], PerRow):
            return getattr(args[0], name)(*args[1:], **(kwargs or {}))
        return func(*_plain(args), **_plain(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.tensor(), name)

    def __add__(self, other: Any) -> Any:
        return _sum(self, other)

    def __mul__(self, other: Any) -> Any:
        return _product(self, other)

    __radd__ = __add__
    __rmul__ = __mul__


def _computed(name: str) -> Callable[..., Any]:
    return lambda self, *args: getattr(self.tensor(), name)(*_plain(args))


for _name in ("sub", "rsub", "truediv", "rtruediv", "pow", "rpow", "matmul", "rmatmul", "neg", "getitem", "len"):
    setattr(_Lazy, f"__{_name}__", _computed(f"__{_name}__"))


class PerRow(_Lazy):
    """[tokens, ...], of which every token has its row's entry.

    Args:
        values: [rows, ...].
        rows: [tokens] int64, the row of each token.
        fused: use the fused kernels.
        becomes: the type to which stock code casts the sums that end in this, if it does so at once: they are made in
            it.
    """

    __slots__ = ("becomes", "fused", "rows", "values")

    def __init__(
        self, values: torch.Tensor, rows: torch.Tensor, fused: bool = False, becomes: torch.dtype | None = None
    ) -> None:
        self.values = values
        self.rows = rows
        self.fused = fused
        self.becomes = becomes

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self.values.shape[1:]))

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    def tensor(self) -> torch.Tensor:
        return self.values.index_select(0, self.rows)

    def with_values(self, values: torch.Tensor) -> PerRow:
        """Other entries of the same rows."""
        return PerRow(values, self.rows, self.fused, self.becomes)

    def chunk(self, chunks: int, dim: int = 0) -> Any:
        if dim % self.ndim == 0:
            return self.tensor().chunk(chunks, dim)
        return tuple(self.with_values(part) for part in self.values.chunk(chunks, dim))

    def unsqueeze(self, dim: int) -> Any:
        if dim % (self.ndim + 1) == 0:
            return self.tensor().unsqueeze(dim)
        return self.with_values(self.values.unsqueeze(dim))

    def reshape(self, *shape: Any) -> Any:
        sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        if sizes[0] != len(self.rows):
            return self.tensor().reshape(sizes)
        return self.with_values(self.values.reshape(len(self.values), *sizes[1:]))

    def __getitem__(self, index: Any) -> Any:
        basic = isinstance(index, tuple) and all(part is None or isinstance(part, int | slice) for part in index)
        if basic and isinstance(index[0], slice) and index[0] == slice(None):
            return self.with_values(self.values[index])
        return self.tensor()[index]

    def __getattr__(self, name: str) -> Any:
        if name in _OF_VALUES:
            return lambda *args, **kwargs: self.with_values(getattr(self.values, name)(*_plain(args), **_plain(kwargs)))
        return super().__getattr__(name)


class _Product(_Lazy):
    """Tokens times a row's entry, waiting for the sum."""

    __slots__ = ("by", "x")

    def __init__(self, x: torch.Tensor, by: PerRow) -> None:
        self.x = x
        self.by = by

    def tensor(self) -> torch.Tensor:
        return self.x * self.by.tensor()


def _product(a: Any, b: Any) -> Any:
    per_row, other = (a, b) if isinstance(a, PerRow) else (b, a)
    if isinstance(per_row, PerRow):
        done = _of_rows(torch.mul, per_row, other)
        if done is not None:
            return done
        if isinstance(other, torch.Tensor) and other.shape == per_row.shape:
            return _Product(other, per_row)
    return _plain(a) * _plain(b)


def _sum(a: Any, b: Any) -> Any:
    first, other = (a, b) if isinstance(a, _Product) else (b, a)
    if isinstance(first, _Product) and isinstance(other, torch.Tensor | PerRow) and other.shape == first.x.shape:
        x, by = first.x, first.by
        if isinstance(other, torch.Tensor):
            return gated(other, by.values, x, by.rows, by.fused, by.becomes)
        if other.rows is by.rows:
            return modulate(x, by.values, other.values, by.rows, by.fused, by.becomes)
    per_row, other = (a, b) if isinstance(a, PerRow) else (b, a)
    if isinstance(per_row, PerRow):
        done = _of_rows(torch.add, per_row, other)
        if done is not None:
            return done
    return _plain(a) + _plain(b)


def _of_rows(operation: Callable[..., torch.Tensor], per_row: PerRow, other: Any) -> PerRow | torch.Tensor | None:
    """The operation on the rows' entries, where that comes to the same; else None.

    It does with a number and with a tensor that has no axis of tokens. Nor do the entries matter to the tokens of a
    stream that is empty (CogVideoX's text in its blocks).
    """
    if isinstance(other, int | float):
        return per_row.with_values(operation(per_row.values, other))
    if not isinstance(other, torch.Tensor) or other.ndim > per_row.ndim:
        return None
    tokens = len(per_row.rows)
    if other.ndim < per_row.ndim or len(other) == 1 != tokens:
        return per_row.with_values(operation(per_row.values, other))
    if other.numel() == 0 and len(other) == tokens > 0:
        return operation(per_row.values[:1], other)
    return None


def _plain(value: Any) -> Any:
    """A nest of arguments with tensors in the place of what stands for them."""
    if isinstance(value, _Lazy):
        return value.tensor()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        parts = [_plain(item) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
