"""One entry a row where a block expects a tensor of one row.

Packed, a block believes that it has a batch of one. What conditions it (a timestep's shift, scale and gate) has an
entry for each row all the same. `RowEntries` stands for the tensor [1, ...] that the block would have for one row: what
is done to it alone happens to the entries of all rows, and where it meets tokens each token gets its row's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from backend.packed.pack import Arrangement, NotPackable, Pack


class RowEntries:
    """[1, ...] (``fold`` times one after another: [fold, ...]) of which every row has its own.

    Args:
        values: [fold x rows, ...]: the first entries of all rows, then the second ones.
        pack: whose rows they are.
        fold: entries a row.
    """

    def __init__(self, values: torch.Tensor, pack: Pack, fold: int = 1) -> None:
        self.values = values
        self.pack = pack
        self.fold = fold

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

    def __len__(self) -> int:
        return self.fold

    def of_tokens(self, arrangement: Arrangement, ndim: int) -> torch.Tensor:
        """Written out, an entry a token: [1, tokens, ...].

        Raises:
            NotPackable: it has no axis on which tokens could stand.
        """
        if self.ndim != ndim or self.values.shape[1] != 1 or self.fold > 1:
            raise NotPackable(f"a row's entry of the shape {tuple(self.values.shape)} meets tokens")
        with torch._C.DisableTorchFunction():
            return self.values.transpose(0, 1).index_select(1, arrangement.rows)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if len(args) == 2 and not kwargs and func.__name__ in _OF_TWO:
            given = _of_two(func, *args)
            if given is not None:
                return given
        leaves, spec = tree_flatten((args, kwargs or {}))
        first: RowEntries = next(leaf for leaf in leaves if isinstance(leaf, RowEntries))
        tokens, arrangement = _tokens_among(leaves, first.pack)
        if tokens is not None and arrangement is not None:
            leaves = [x.of_tokens(arrangement, tokens.ndim) if isinstance(x, RowEntries) else x for x in leaves]
            args, kwargs = tree_unflatten(leaves, spec)
            return func(*args, **kwargs)
        name = func.__name__
        if name in ("reshape", "view"):
            return first._reshaped(args[1:])
        if name in ("chunk", "split", "cat", "unsqueeze"):
            axis = _axis_of(name, args, kwargs or {})
            if axis % (first.ndim + (name == "unsqueeze")) == 0:
                if name == "chunk" and args[1] == first.fold:
                    return tuple(first._part(index, index + 1) for index in range(first.fold))
                raise NotPackable(f"{name} of rows")
        args, kwargs = tree_unflatten([x.values if isinstance(x, RowEntries) else x for x in leaves], spec)
        return tree_map(first._again, func(*args, **kwargs))

    def __getitem__(self, index: Any) -> RowEntries:
        parts = index if isinstance(index, tuple) else (index,)
        if parts and (parts[0] is Ellipsis or (isinstance(parts[0], slice) and parts[0] == slice(None))):
            return RowEntries(self.values[index], self.pack, self.fold)
        if len(parts) == 1 and isinstance(parts[0], slice) and parts[0].step is None:
            return self._part(*parts[0].indices(self.fold)[:2])
        raise NotPackable(f"index {index} of rows")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(torch.Tensor, name):
            raise AttributeError(name)
        method = getattr(torch.Tensor, name)
        return lambda *args, **kwargs: RowEntries.__torch_function__(method, (), (self, *args), kwargs)

    def _part(self, begin: int, end: int) -> RowEntries:
        rows = len(self.values) // self.fold
        return RowEntries(self.values[begin * rows : end * rows], self.pack, end - begin)

    def _reshaped(self, given: tuple[Any, ...]) -> RowEntries:
        sizes = given if isinstance(given[0], int) else tuple(given[0])
        if sizes[0] not in (self.fold, -1):
            raise NotPackable(f"rows reshaped to {sizes}")
        return RowEntries(self.values.reshape(len(self.values), *sizes[1:]), self.pack, self.fold)

    def _again(self, result: Any) -> Any:
        if not isinstance(result, torch.Tensor):
            return result
        if result.ndim == 0 or len(result) != len(self.values):
            raise NotPackable(f"{tuple(result.shape)} of entries of {len(self.values)} rows")
        return RowEntries(result, self.pack, self.fold)


def _operator(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    def apply(self: RowEntries, *others: Any) -> Any:
        args = (*others, self) if swapped else (self, *others)
        return RowEntries.__torch_function__(function, (), args)

    return apply


_BINARY: dict[str, Callable[..., Any]] = {"add": torch.add, "mul": torch.mul, "sub": torch.sub, "truediv": torch.div}
_OTHER: dict[str, Callable[..., Any]] = {"neg": torch.neg, "pow": torch.pow}
for _name, _function in _BINARY.items():
    setattr(RowEntries, f"__{_name}__", _operator(_function))
    setattr(RowEntries, f"__r{_name}__", _operator(_function, swapped=True))
for _name, _function in _OTHER.items():
    setattr(RowEntries, f"__{_name}__", _operator(_function))


_OF_TWO = frozenset({"add", "mul", "sub", "__add__", "__radd__", "__mul__", "__rmul__"})


def _of_two(func: Callable[..., Any], a: Any, b: Any) -> Any:
    """What most entries are for, without a look through all arguments: sums and products with tokens or numbers."""
    entries, other = (a, b) if isinstance(a, RowEntries) else (b, a)
    if isinstance(other, int | float):
        values = func(entries.values, other) if entries is a else func(other, entries.values)
        return RowEntries(values, entries.pack, entries.fold)
    if isinstance(other, torch.Tensor) and other.ndim > 1 and other.shape[0] == 1:
        arrangement = entries.pack.arrangement(other.shape[1])
        if arrangement is not None:
            tokens = entries.of_tokens(arrangement, other.ndim)
            return func(tokens, other) if entries is a else func(other, tokens)
    return None


def _tokens_among(leaves: list[Any], pack: Pack) -> tuple[torch.Tensor | None, Arrangement | None]:
    """The first packed tensor of tokens."""
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor) and leaf.ndim > 1 and leaf.shape[0] == 1:
            arrangement = pack.arrangement(leaf.shape[1])
            if arrangement is not None:
                return leaf, arrangement
    return None, None


def _axis_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    at = 2 if name in ("chunk", "split") else 1
    axis = kwargs.get("dim", args[at] if len(args) > at else 0)
    return int(axis)
