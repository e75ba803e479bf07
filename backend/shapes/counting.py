"""Counts what a forward does by watching every operator that torch dispatches, on the meta device or a real one."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from backend.devices.bands import Band
from backend.ranks.group import Pieces
from predictors.shapes import KINDS

HEAD_MULTIPLE = 32
"""FlashAttention rounds the width of a head up to a multiple of this."""


@dataclass
class KindCounts:
    """What the operators of one kind did.

    Attributes:
        flops: multiply-adds count two.
        padding: what kernels of attention compute beside them, because they pad heads (`HEAD_MULTIPLE`).
        bytes: read and written by all of them, as eager execution does it: every operator on its own. Parameters are
            counted each time they are read.
    """

    flops: float = 0.0
    padding: float = 0.0
    bytes: float = 0.0
    _read: dict[int, int] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Parameters that they read, each counted once; tables that are looked up are not read."""
        return sum(self._read.values())

    def read(self, parameter: int, numbers: int) -> None:
        """So many numbers of a parameter were read."""
        self._read[parameter] = max(numbers, self._read.get(parameter, 0))


@dataclass
class Counts:
    """What ran.

    Attributes:
        kinds: by the kind of operator, see `predictors.shapes.KINDS`.
        launches: operators that compute or move something.
        peak_bytes: most bytes that tensors made meanwhile held at once.
        attended: calls of scaled dot-product attention, by tokens of queries, tokens of keys, heads, and bytes that one
            call reads and writes.
    """

    kinds: dict[str, KindCounts] = field(default_factory=lambda: {kind: KindCounts() for kind in KINDS})
    launches: float = 0.0
    peak_bytes: float = 0.0
    attended: Counter[tuple[int, int, int, int]] = field(default_factory=Counter)

    @property
    def flops(self) -> float:
        """Of all kinds."""
        return sum([kind.flops for kind in self.kinds.values()])

    @property
    def bytes(self) -> float:
        """Of all kinds."""
        return sum([kind.bytes for kind in self.kinds.values()])


def count(run: Callable[[], Any], modules: Iterable[torch.nn.Module] = ()) -> Counts:
    """What ``run`` does, counted without gradients.

    Scaled dot-product attention counts as the fused kernel: it reads queries, keys and values once, writes its output,
    and keeps no matrix of scores.

    Args:
        run: does it.
        modules: networks whose parameters are told apart from what else is read.
    """
    parameters = {id(p.untyped_storage()): p.numel() for module in modules for p in module.parameters()}
    watch = _Watch(parameters)
    with torch.no_grad(), watch, _FusedAttention(watch):
        run()
    return watch.counts


class _Watch(TorchDispatchMode):
    def __init__(self, parameters: dict[int, int]) -> None:
        super().__init__()
        self.counts = Counts()
        self._outcomes = _Outcomes()
        self._parameters = parameters
        self._live = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
        out = self._outcomes.of(func, args, kwargs, read)
        made = [x for x in tree_iter(out) if isinstance(x, torch.Tensor)]
        before = {id(x.untyped_storage()) for x in read}
        fresh = [x for x in made if id(x.untyped_storage()) not in before]
        for tensor in fresh:
            self.keep(tensor)
        writes_in_place = func._schema.is_mutable
        operator = func.overloadpacket
        if (fresh or writes_in_place) and operator not in _ALLOCATIONS:
            self.counts.launches += 1
            kind = self.counts.kinds[_kind(operator, args)]
            kind.bytes += sum(map(_bytes, read)) + sum(map(_bytes, fresh))
            if (formula := flop_registry.get(operator)) is not None:
                kind.flops += formula(*args, **kwargs, out_val=out)
            for tensor in read if operator not in _LOOKUPS else ():
                key = id(tensor.untyped_storage())
                if (numbers := self._parameters.get(key)) is not None:
                    kind.read(key, min(tensor.numel(), numbers))
        return out

    def keep(self, tensor: torch.Tensor) -> None:
        """Count the tensor's memory until it is freed."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def freed(_: Any) -> None:
            self._live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
        self._live += size
        self.counts.peak_bytes = max(self.counts.peak_bytes, self._live)


class _Outcomes:
    """What operators make on the meta device, kept: working out a shape takes a thousand times as long as making an
    empty tensor of it, and layers repeat.
    """

    def __init__(self) -> None:
        self._made: dict[Any, list[tuple[tuple[int, ...], tuple[int, ...], torch.dtype]]] = {}

    def of(self, func: Any, args: Any, kwargs: Any, read: list[torch.Tensor]) -> Any:
        """``func(*args, **kwargs)``, where ``read`` are all the tensors in these."""
        if not read or not all(x.is_meta for x in read) or not _makes_its_own(func):
            return func(*args, **kwargs)
        key = (func, *map(_described, tree_iter((args, kwargs))))
        if (known := self._made.get(key)) is not None:
            again = [torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in known]
            return again[0] if len(again) == 1 else tuple(again)
        out = func(*args, **kwargs)
        made = [out] if isinstance(out, torch.Tensor) else list(out)
        if all(x.is_meta and x.untyped_storage().nbytes() == x.numel() * x.element_size() for x in made):
            self._made[key] = [(tuple(x.shape), x.stride(), x.dtype) for x in made]
        return out


@cache
def _makes_its_own(func: Any) -> bool:
    """Whether an operator returns tensors that nothing else holds, and writes nowhere else."""
    schema = func._schema
    return (
        not schema.is_mutable
        and all(returned.type.kind() == "TensorType" for returned in schema.returns)
        and not any(argument.alias_info for argument in schema.arguments)
        and func.overloadpacket not in _SOMETIMES_VIEWS
    )


def _described(leaf: Any) -> Any:
    """All that the shape of an outcome can follow from."""
    if isinstance(leaf, torch.Tensor):
        return tuple(leaf.shape), leaf.stride(), leaf.dtype
    return type(leaf), leaf


class _FusedAttention(TorchFunctionMode):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        query, key, value = given["query"], given["key"], given["value"]
        pairs = query.shape[:-1].numel() * key.shape[-2]
        with torch.utils._python_dispatch._disable_current_modes():
            out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        attention = self._watch.counts.kinds["attention"]
        widths = (query.shape[-1], value.shape[-1])
        attention.flops += 2 * pairs * sum(widths)
        attention.padding += 2 * pairs * sum([-width % HEAD_MULTIPLE for width in widths])
        moved = sum(map(_bytes, (query, key, value, out)))
        attention.bytes += moved
        self._watch.counts.attended[query.shape[-2], key.shape[-2], query.shape[-3], moved] += 1
        self._watch.counts.launches += 1
        self._watch.keep(out)
        return out


def _kind(operator: Any, args: Any) -> str:
    """A convolution of single pixels is a product of matrices."""
    if operator in _CONVOLUTIONS:
        weight = args[1]
        return "products" if weight.shape[2:].numel() == 1 else "convolutions"
    return "products" if operator in flop_registry else "elementwise"


_aten = torch.ops.aten
_ALLOCATIONS = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty}
_SOMETIMES_VIEWS = {_aten.reshape, _aten.contiguous, _aten._to_copy, _aten._reshape_alias, _aten._unsafe_view}
_LOOKUPS = {_aten.embedding}
_CONVOLUTIONS = {_aten.convolution, _aten._convolution, _aten.convolution_overrideable}


def _bytes(tensor: torch.Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


class _FirstOfTwo:
    """A rank whose peer is never there: on the meta device there is nothing to send."""

    rank, size = 0, 2

    def exchange(self, sends: Pieces, receives: Pieces) -> None:
        pass


class MetaBand(Band):
    """The upper of two bands, on the meta device: what it would send is counted."""

    def __init__(self, rows: tuple[int, ...]) -> None:
        super().__init__(_FirstOfTwo(), rows)

    def _spread(self, mask: torch.Tensor) -> torch.Tensor:
        return mask[..., :1].expand(*mask.shape[:-1], mask.shape[-1] // self._rows[0] * sum(self._rows))
