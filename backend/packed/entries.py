"""One entry a row where a block expects a tensor of one row.

Packed, a block believes that it has a batch of one. What conditions it (a timestep's shift, scale and gate) has an
entry for each row all the same. `RowEntries` stands for the tensor [1, ...] that the block would have for one row: what
is done to it alone happens to the entries of all rows, and where it meets tokens each token gets its row's. A product
with tokens waits for the sum that follows it in every adaptive norm and every gated residual: both are one operation
(`backend.kernels.modulate`). The result is stock code's, bit by bit, whatever it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from backend.kernels.modulate import gated, modulate
from backend.packed.pack import Arrangement, NotPackable, Pack


class _Standing:
    """Stands for a tensor without being one."""

    __slots__ = ()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__
        if len(args) == 2 and not kwargs:
            if name in _PRODUCTS:
                return _product(*args)
            if name in _SUMS:
                return _sum(*args)
        first = args[0] if args else None
        if isinstance(first, RowEntries):
            if name in _ALONE:
                return first.alone(func, args[1:], kwargs or {})
            if name in _METHODS:
                return getattr(first, name)(*args[1:], **(kwargs or {}))
        return _by_stock_code(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(torch.Tensor, name):
            raise AttributeError(name)
        method = getattr(torch.Tensor, name)
        return lambda *args, **kwargs: _Standing.__torch_function__(method, (), (self, *args), kwargs)

    def __add__(self, other: Any) -> Any:
        return _sum(self, other)

    def __mul__(self, other: Any) -> Any:
        return _product(self, other)

    __radd__ = __add__
    __rmul__ = __mul__


def _operator(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    def apply(self: _Standing, *others: Any) -> Any:
        return _by_stock_code(function, (*others, self) if swapped else (self, *others), {})

    return apply


_OPERATORS: dict[str, Callable[..., Any]] = {"sub": torch.sub, "truediv": torch.div, "neg": torch.neg, "pow": torch.pow}
for _name, _function in _OPERATORS.items():
    setattr(_Standing, f"__{_name}__", _operator(_function))
    setattr(_Standing, f"__r{_name}__", _operator(_function, swapped=True))


class RowEntries(_Standing):
    """[1, ...] (``fold`` times one after another: [fold, ...]) of which every row has its own.

    Args:
        values: [fold x rows, ...]: the first entries of all rows, then the second ones.
        pack: whose rows they are.
        fold: entries a row.
    """

    __slots__ = ("fold", "known", "pack", "values")

    def __init__(self, values: torch.Tensor, pack: Pack, fold: int = 1) -> None:
        self.values = values
        self.pack = pack
        self.fold = fold
        self.known: dict[Any, tuple[int, RowEntries]] | None = None

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.fold, *self.values.shape[1:]))

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.values.ndim

    def __len__(self) -> int:
        return self.fold

    def with_values(self, values: Any) -> RowEntries:
        """Other entries of the same rows."""
        if values.ndim == 0 or len(values) != len(self.values):
            raise NotPackable(f"{tuple(values.shape)} of entries of {len(self.values)} rows")
        return RowEntries(values, self.pack, self.fold)

    def alone(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> RowEntries:
        """A function of the entries. Every block begins with the same one of the timestep: it is done once."""
        if args or kwargs.keys() - {"inplace"} or kwargs.get("inplace"):
            return self.with_values(func(self.values, *args, **kwargs))
        self.known = self.known or {}
        version, known = self.known.get(func, (-1, self))
        if version != self.values._version:
            known = self.with_values(func(self.values, **kwargs))
            self.known[func] = self.values._version, known
        return known

    def by_row(self, ndim: int) -> torch.Tensor:
        """[rows, ...]: what each of the row's tokens has of a tensor [1, tokens, ...] of ``ndim`` axes.

        Raises:
            NotPackable: it has no axis on which tokens could stand.
        """
        if self.values.ndim != ndim or self.values.shape[1] != 1 or self.fold > 1:
            raise NotPackable(f"a row's entry of the shape {tuple(self.values.shape)} meets tokens")
        return self.values.squeeze(1)

    def of_tokens(self, arrangement: Arrangement, ndim: int) -> torch.Tensor:
        """Written out, an entry a token: [1, tokens, ...]. Raises as `by_row`."""
        with torch._C.DisableTorchFunction():
            return self.by_row(ndim).index_select(0, arrangement.rows)[None]

    def chunk(self, chunks: int, dim: int = 0) -> tuple[RowEntries, ...]:
        if dim % self.ndim:
            return tuple([RowEntries(part, self.pack, self.fold) for part in self.values.chunk(chunks, dim)])
        if chunks != self.fold:
            raise NotPackable("chunk of rows")
        return tuple(self._part(index, index + 1) for index in range(self.fold))

    def unsqueeze(self, dim: int) -> RowEntries:
        if dim % (self.ndim + 1) == 0:
            raise NotPackable("unsqueeze of rows")
        return RowEntries(self.values.unsqueeze(dim), self.pack, self.fold)

    def reshape(self, *shape: Any) -> RowEntries:
        sizes = shape if isinstance(shape[0], int) else tuple(shape[0])
        if sizes[0] not in (self.fold, -1):
            raise NotPackable(f"rows reshaped to {sizes}")
        return self.with_values(self.values.reshape(len(self.values), *sizes[1:]))

    view = reshape

    def type_as(self, other: Any) -> RowEntries:
        return self.with_values(self.values.to(other.dtype))

    def to(self, *args: Any, **kwargs: Any) -> RowEntries:
        like = args[0] if args and isinstance(args[0], torch.Tensor | _Standing) else None
        return self.with_values(self.values.to(*args, **kwargs) if like is None else self.values.to(like.dtype))

    def __getitem__(self, index: Any) -> RowEntries:
        parts = index if isinstance(index, tuple) else (index,)
        if parts and (parts[0] is Ellipsis or (isinstance(parts[0], slice) and parts[0] == slice(None))):
            return RowEntries(self.values[index], self.pack, self.fold)
        if len(parts) == 1 and isinstance(parts[0], slice) and parts[0].step is None:
            return self._part(*parts[0].indices(self.fold)[:2])
        raise NotPackable(f"index {index} of rows")

    def _part(self, begin: int, end: int) -> RowEntries:
        rows = len(self.values) // self.fold
        return RowEntries(self.values[begin * rows : end * rows], self.pack, end - begin)


class _Product(_Standing):
    """Tokens times their row's entry, waiting for the sum."""

    __slots__ = ("arrangement", "by", "tokens")

    def __init__(self, tokens: torch.Tensor, by: RowEntries, arrangement: Arrangement) -> None:
        self.tokens = tokens
        self.by = by
        self.arrangement = arrangement

    @property
    def shape(self) -> torch.Size:
        return self.tokens.shape

    @property
    def ndim(self) -> int:
        return self.tokens.ndim

    @property
    def dtype(self) -> torch.dtype:
        return torch.promote_types(self.tokens.dtype, self.by.dtype)

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    def tensor(self) -> torch.Tensor:
        """The tensor it stands for."""
        return self.tokens * self.by.of_tokens(self.arrangement, self.tokens.ndim)

    def plus(self, other: Any) -> torch.Tensor | None:
        """The sum with other tokens, or with other entries of the rows; None: neither of these."""
        with torch._C.DisableTorchFunction():
            by, rows, fused = self.by.by_row(self.ndim), self.arrangement.rows, self.by.pack.fused
            if isinstance(other, RowEntries) and other.pack is self.by.pack and other.shape == self.by.shape:
                return modulate(self.tokens[0], by, other.by_row(self.ndim), rows, fused)[None]
            if isinstance(other, torch.Tensor) and other.shape == self.tokens.shape:
                return gated(other[0], by, self.tokens[0], rows, fused)[None]
            return None

    def __getitem__(self, index: Any) -> Any:
        return self.tensor()[index]

    def __len__(self) -> int:
        return len(self.tokens)


_PRODUCTS = frozenset({"mul", "multiply", "__mul__", "__rmul__"})
_SUMS = frozenset({"add", "__add__", "__radd__"})
_ALONE = frozenset({"linear", "silu", "gelu", "tanh", "layer_norm", "rms_norm", "dropout", "float", "double", "half"})
"""Functions whose other arguments, if any, are the layer's own."""
_METHODS = frozenset({"chunk", "unsqueeze", "reshape", "view", "type_as", "to"})


def _product(a: Any, b: Any) -> Any:
    entries, other = (a, b) if isinstance(a, RowEntries) else (b, a)
    if isinstance(entries, RowEntries):
        if isinstance(other, int | float):
            return RowEntries(entries.values * other, entries.pack, entries.fold)
        arrangement = _arrangement_of(other, entries.pack)
        if arrangement is not None and entries.ndim == other.ndim and entries.values.shape[2:] == other.shape[2:]:
            return _Product(other, entries, arrangement)
    return _by_stock_code(torch.mul, (a, b), {})


def _sum(a: Any, b: Any) -> Any:
    product, other = (a, b) if isinstance(a, _Product) else (b, a)
    if isinstance(product, _Product):
        done = product.plus(other)
        if done is not None:
            return done
    entries, other = (a, b) if isinstance(a, RowEntries) else (b, a)
    if isinstance(entries, RowEntries) and isinstance(other, int | float):
        return RowEntries(entries.values + other, entries.pack, entries.fold)
    return _by_stock_code(torch.add, (a, b), {})


def _by_stock_code(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """On tokens, with entries written out; else on the entries of all rows."""
    leaves, spec = tree_flatten((args, kwargs))
    leaves = [leaf.tensor() if isinstance(leaf, _Product) else leaf for leaf in leaves]
    entries = next((leaf for leaf in leaves if isinstance(leaf, RowEntries)), None)
    if entries is None:
        args, kwargs = tree_unflatten(leaves, spec)
        return func(*args, **kwargs)
    pack = entries.pack
    found = next(((x, one) for x in leaves if (one := _arrangement_of(x, pack)) is not None), None)
    if found is not None:
        tokens, arrangement = found
        leaves = [x.of_tokens(arrangement, tokens.ndim) if isinstance(x, RowEntries) else x for x in leaves]
        args, kwargs = tree_unflatten(leaves, spec)
        return func(*args, **kwargs)
    if func.__name__ in ("split", "cat") and _axis_of(func.__name__, args, kwargs) % entries.ndim == 0:
        raise NotPackable(f"{func.__name__} of rows")
    args, kwargs = tree_unflatten([x.values if isinstance(x, RowEntries) else x for x in leaves], spec)
    given = func(*args, **kwargs)
    return tree_map(lambda part: entries.with_values(part) if isinstance(part, torch.Tensor) else part, given)


def _arrangement_of(x: Any, pack: Pack) -> Arrangement | None:
    """How the tokens of a packed tensor lie; None: it is none."""
    if isinstance(x, torch.Tensor) and x.ndim > 1 and x.shape[0] == 1:
        return pack.arrangement(x.shape[1])
    return None


def _axis_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    at = 2 if name == "split" else 1
    axis = kwargs.get("dim", args[at] if len(args) > at else 0)
    return int(axis)
