"""Tables of positions that a model computes anew in every forward, kept from step to step.

A layer without parameters beside the blocks, called a rotary or position embedding, is a function of where tokens lie.
What it is given is told apart when it is first called: a tensor that may hold anything without a change of the table is
known by its shape; one whose numbers matter by these. They come from the position arguments of the denoiser call, which
stay for all of its steps, so tables are kept by those, and what a table was made of is compared all the same. On a CUDA
device to compare is to wait, so there it is done until a table was the same in three steps.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

from backend.coroutine import DenoiserCall
from backend.merge import where_tokens_lie
from backend.recent import Recent

NO_TABLE = object()
"""What is given instead of a table that cannot be kept."""
LIMIT_BYTES = 2**28
"""Of the tables of one model."""
_TABLES = 512
_COMPARED = 2
"""In how many steps after its first the numbers of a table are compared where that waits for the device."""
_NAMES = re.compile(r"rope|rotary|pos(ition)?_?embed|embed_?nd", re.IGNORECASE)


class _Table:
    """A kept table, and the tensors whose numbers it was made of."""

    def __init__(self, made: Any, numbers: Sequence[torch.Tensor], step: int) -> None:
        self.made = made
        self._numbers = numbers
        self._versions = self._now()
        self._steps = {step}

    @property
    def bytes(self) -> int:
        return sum(leaf.nbytes for leaf in (*tree_leaves(self.made), *self._numbers))

    def is_of(self, numbers: Sequence[torch.Tensor], step: int) -> bool:
        """Whether the table is of these numbers, which a call has in its step, and nobody has written to it."""
        if self._now() != self._versions:
            return False
        if len(self._steps) > _COMPARED and _waits(numbers):
            return True
        self._steps.add(step)
        return all(torch.equal(mine, its) for mine, its in zip(self._numbers, numbers, strict=True))

    def _now(self) -> list[int]:
        return [leaf._version for leaf in tree_leaves(self.made)]


class _Given(NamedTuple):
    """What a layer is given: leaves of its arguments, and their nest."""

    leaves: list[Any]
    spec: TreeSpec

    def run(self, forward: Callable[..., Any], leaves: Sequence[Any]) -> Any:
        args, kwargs = tree_unflatten(list(leaves), self.spec)
        return forward(*args, **kwargs)


class Tables:
    """The tables of one model.

    Args:
        model: a transformer of diffusers.

    Attributes:
        layers: those whose tables are kept.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.layers = [
            layer
            for layer in model.children()
            if _NAMES.search(type(layer).__name__) and not any(True for _ in layer.parameters())
        ]
        self._kept: Recent[Hashable, _Table] = Recent(_TABLES, LIMIT_BYTES)
        self._tensors = WeakIdKeyDictionary()
        self._matter: Recent[Hashable, list[int]] = Recent(_TABLES)
        self._refused: set[torch.nn.Module] = set()
        self._names = list(inspect.signature(model.forward).parameters)

    def of(
        self,
        layer: torch.nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        call: DenoiserCall,
        turn: int,
    ) -> Any:
        """What ``forward``, the layer's own, gives for these arguments, as the ``turn``-th of a denoiser call.

        `NO_TABLE`: nothing that could be kept.
        """
        given = _Given(*tree_flatten((args, kwargs)))
        if layer in self._refused or not all(isinstance(leaf, torch.Tensor) or _plain(leaf) for leaf in given.leaves):
            return NO_TABLE
        shape = layer, given.spec, tuple([_known_by(leaf) for leaf in given.leaves])
        matter = self._matter.get(shape)
        if matter is None:
            matter = _which_matter(forward, given)
            self._matter.keep(shape, matter)
        numbers = [given.leaves[at] for at in matter]
        where = where_tokens_lie(dict(zip(self._names, call.args, strict=False)) | call.kwargs) if numbers else ()
        if numbers and not where:
            return NO_TABLE
        key = turn, where, shape
        kept = self._kept.get(key)
        if kept is None:
            made = forward(*args, **kwargs)
            self._keep(key, made, [number.clone() for number in numbers], call.step)
            return made
        if not kept.is_of(numbers, call.step):
            self._refused.add(layer)
            return NO_TABLE
        return kept.made

    def __contains__(self, value: torch.Tensor) -> bool:
        """Whether a tensor is of a table that stays."""
        return value in self._tensors

    def clear(self) -> None:
        """Forget all tables."""
        self._kept.clear()
        self._tensors.clear()

    def _keep(self, key: Hashable, made: Any, numbers: Sequence[torch.Tensor], step: int) -> None:
        leaves = tree_leaves(made)
        if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            return
        table = _Table(made, numbers, step)
        self._kept.keep(key, table, table.bytes)
        for leaf in leaves:
            self._tensors[leaf] = True


def _waits(numbers: Sequence[torch.Tensor]) -> bool:
    """Whether to compare them is to wait for a device."""
    return any(number.is_cuda for number in numbers)


def _which_matter(forward: Callable[..., Any], given: _Given) -> list[int]:
    """Which leaves are tensors whose numbers matter: with others the layer gives something else."""
    as_it_is = given.run(forward, given.leaves)
    tensors = [at for at, leaf in enumerate(given.leaves) if isinstance(leaf, torch.Tensor)]
    return [at for at in tensors if not _same_without(at, forward, given, as_it_is)]


def _same_without(at: int, forward: Callable[..., Any], given: _Given, expected: Any) -> bool:
    """Whether other numbers in a tensor come to the very same table."""
    leaves = list(given.leaves)
    leaves[at] = torch.full_like(leaves[at], 3)
    try:
        other = given.run(forward, leaves)
    except Exception:  # they do matter
        return False
    ours, its = tree_leaves(expected), tree_leaves(other)
    return len(ours) == len(its) and all(
        isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) and torch.equal(x, y)
        for x, y in zip(ours, its, strict=True)
    )


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device)


def _known_by(leaf: Any) -> Hashable:
    if isinstance(leaf, torch.Tensor):
        return tuple(leaf.shape), leaf.dtype, leaf.device
    return type(leaf), leaf
