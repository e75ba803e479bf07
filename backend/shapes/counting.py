"""Counts what a forward does by watching every operator that torch dispatches, on the meta device or a real one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


@dataclass
class Counts:
    """What ran.

    Attributes:
        flops: multiply-adds count two; of matrix products, convolutions and attention.
        bytes: read and written by all operators, as eager execution does it: every operator on its own. Parameters
            are counted each time they are read.
        launches: operators that compute or move something.
        peak_bytes: most bytes that tensors made meanwhile held at once.
    """

    flops: float = 0.0
    bytes: float = 0.0
    launches: float = 0.0
    peak_bytes: float = 0.0


def count(run: Callable[[], Any]) -> Counts:
    """What ``run`` does, counted without gradients.

    Scaled dot-product attention counts as the fused kernel: it reads queries, keys and values once, writes its output,
    and keeps no matrix of scores.
    """
    watch = _Watch()
    with torch.no_grad(), watch, _FusedAttention(watch):
        run()
    return watch.counts


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self._live = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
        out = func(*args, **kwargs)
        made = [x for x in tree_iter(out) if isinstance(x, torch.Tensor)]
        before = {id(x.untyped_storage()) for x in read}
        fresh = [x for x in made if id(x.untyped_storage()) not in before]
        for tensor in fresh:
            self.keep(tensor)
        writes_in_place = func._schema.is_mutable
        if (fresh or writes_in_place) and func.overloadpacket not in _ALLOCATIONS:
            self.counts.launches += 1
            self.counts.bytes += sum(map(_bytes, read)) + sum(map(_bytes, fresh))
            if (formula := flop_registry.get(func.overloadpacket)) is not None:
                self.counts.flops += formula(*args, **kwargs, out_val=out)
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
        counts = self._watch.counts
        with torch.utils._python_dispatch._disable_current_modes():
            out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        counts.flops += 2 * pairs * (query.shape[-1] + value.shape[-1])
        counts.bytes += sum(map(_bytes, (query, key, value, out)))
        counts.launches += 1
        self._watch.keep(out)
        return out


_aten = torch.ops.aten
_ALLOCATIONS = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty}


def _bytes(tensor: torch.Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
