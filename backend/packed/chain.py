"""Blocks that feed each other in the same way in all calls, run one after another without a return to the calls.

A model's forward hands a block what the last one gave, and what it gave the block before beside that. Where all calls
have been seen to do so, the blocks that follow are run for the pack at once. The calls then go through their own code
with *placeholders* for what lies between: each block hands out the next ones if it is given exactly what it was given
when the chain was learned, and the last one hands out the result. Code that looks into a placeholder, or gives a block
something else, is no such model after all: `NotChained` says how far the chain holds, and the calls start anew.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from backend.packed.lockstep import BY_ITSELF, Stop
from backend.packed.trust import Habits
from backend.recent import Recent

_SHAPES = 32
"""Shapes of calls whose placeholders are kept."""


class NotChained(Exception):  # noqa: N818
    """A call does something else between blocks than when their chain was learned; ``links`` of it hold."""

    def __init__(self, chain: Chain, links: int) -> None:
        super().__init__(f"{links} blocks of a chain hold")
        self.chain = chain
        self.links = links


class ArgumentSource(NamedTuple):
    """Where an argument comes from: ``in`` (an argument of the chain's first block), ``out`` (a leaf of what the block
    before gave) or ``plain`` (a value that is no tensor)."""

    kind: str
    what: Any


Sources = ArgumentSource | tuple[ArgumentSource, ...] | dict[str, ArgumentSource]
"""Of what a block's forward has under one name: of several arguments where it takes any number of them."""


def leaves_of(sources: Sources) -> Iterator[ArgumentSource]:
    """Of each argument under one name."""
    if isinstance(sources, ArgumentSource):
        yield sources
    else:
        yield from sources.values() if isinstance(sources, dict) else sources


def value_of(sources: Sources, stop: Stop) -> Any:
    """What one call, which gave ``stop`` to the first block, has under one name; of nothing that is ``out``."""
    if isinstance(sources, ArgumentSource):
        return argument_of(stop, sources.what) if sources.kind == "in" else sources.what
    if isinstance(sources, dict):
        return {name: value_of(source, stop) for name, source in sources.items()}
    return tuple(value_of(source, stop) for source in sources)


class Made(NamedTuple):
    """A tensor that a block gives: [rows, tokens of ``stream``, ...]."""

    stream: str
    rest: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class PackedAlike(NamedTuple):
    """What is packed alike for several blocks.

    Attributes:
        kind: class of the blocks.
        image_first: how they join image and text.
        streams: the first block's name of each of their streams, by their own; their first argument first.
        others: where their other arguments come from.
        form: of these, packed.
        habits: what they do with their streams, by their own names.
    """

    kind: type
    image_first: bool
    streams: dict[str, str]
    others: dict[str, Sources]
    form: Hashable
    habits: Habits


class ChainLink(NamedTuple):
    """One block of a chain.

    Attributes:
        layer: the block.
        args: where its arguments come from, as calls give them, and ``kwargs``.
        group: index of its `PackedAlike`.
        streams: where its streams come from, by its own names; ``of_first``: the first block's names of them.
        made: what it gives, leaf by leaf: tensors, or plain values; ``spec`` is their nest.
        order: parameters of its forward, where not all arguments can be given to it by name.
    """

    layer: torch.nn.Module
    args: tuple[ArgumentSource, ...]
    kwargs: dict[str, ArgumentSource]
    group: int
    streams: dict[str, ArgumentSource]
    of_first: dict[str, str]
    made: tuple[Any, ...]
    spec: TreeSpec
    order: inspect.Signature | None

    def call(self, forward: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """What the forward gives for arguments that are listed under its names."""
        if self.order is None:
            return forward(**arguments)
        bound = inspect.BoundArguments(self.order, OrderedDict(arguments))
        return forward(*bound.args, **bound.kwargs)


class Chain:
    """Blocks that feed each other.

    Attributes:
        links: in order; the first one's arguments are ``in``.
        groups: see `ChainLink.group`; the first link's first.
    """

    def __init__(self) -> None:
        self.links: list[ChainLink] = []
        self.groups: list[PackedAlike] = []
        self._placeholders: Recent[Hashable, list[tuple[Any, list[Any]]]] = Recent(_SHAPES)

    def group_of(self, group: PackedAlike) -> int:
        """Its index, whether it is new or not."""
        for index, known in enumerate(self.groups):
            if known == group:
                return index
        self.groups.append(group)
        return len(self.groups) - 1

    def cut(self, links: int) -> None:
        """Keep so many links."""
        del self.links[links:]
        self._placeholders.clear()

    def placeholders(self, rows: int, tokens: dict[str, int]) -> list[tuple[Any, list[Any]]]:
        """For a call of so many rows, and tokens by stream, what each link gives it: the nest, and its leaves."""
        key = rows, tuple(tokens.items())
        known = self._placeholders.get(key)
        if known is None:
            known = []
            for index, link in enumerate(self.links):
                leaves = [
                    _placeholder(self, index, (rows, tokens[made.stream], *made.rest), made)
                    if isinstance(made, Made)
                    else made
                    for made in link.made
                ]
                known.append((tree_unflatten(leaves, link.spec), leaves))
            self._placeholders.keep(key, known)
        return known

    def send_ahead(self, stop: Stop, rows: int, tokens: dict[str, int], final: Any) -> Any:
        """What the call is given at the first block; it will be given ``final`` at the last one."""
        if len(self.links) == 1:
            return final
        given = self.placeholders(rows, tokens)
        stop.call.ahead = _Passing(self, stop, given, final)
        return given[0][0]


class _Passing:
    """A call on its way past the blocks of a chain."""

    def __init__(self, chain: Chain, stop: Stop, given: list[tuple[Any, list[Any]]], final: Any) -> None:
        self._chain = chain
        self._links = chain.links
        self._stop = stop
        self._given = given
        self._final = final
        self._at = 1

    def passing(self, layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        link = self._links[self._at]
        if layer is not link.layer:
            return BY_ITSELF
        leaves = self._given[self._at - 1][1]
        same = len(args) == len(link.args) and len(kwargs) == len(link.kwargs)
        if not same or not all(self._is(value, source, leaves) for value, source in zip(args, link.args, strict=True)):
            raise NotChained(self._chain, self._at)
        for name, value in kwargs.items():
            source = link.kwargs.get(name)
            if source is None or not self._is(value, source, leaves):
                raise NotChained(self._chain, self._at)
        self._at += 1
        if self._at == len(self._links):
            self._stop.call.ahead = None
            return self._final
        return self._given[self._at - 1][0]

    def _is(self, value: Any, source: ArgumentSource, leaves: list[Any]) -> bool:
        if source.kind == "out":
            return value is leaves[source.what]
        if source.kind == "in":
            first = argument_of(self._stop, source.what)
            return value is first or (_is_plain(first) and _alike(value, first))
        return _alike(value, source.what)


def argument_of(stop: Stop, key: int | str) -> Any:
    """An argument of a call, by its place or name."""
    return stop.args[key] if isinstance(key, int) else stop.kwargs[key]


def sources_of(
    stop: Stop, first: Stop, before: Sequence[Any]
) -> tuple[tuple[ArgumentSource, ...], dict[str, ArgumentSource]] | None:
    """Where the arguments of a call of a block come from; None: one comes from elsewhere.

    A plain value that the first block was given in the same place comes from there: calls may differ in it.

    Args:
        stop: the call.
        first: the same call at the chain's first block.
        before: leaves of what the block before gave.
    """
    known = {
        id(value): ArgumentSource("out", index) for index, value in enumerate(before) if isinstance(value, torch.Tensor)
    }
    given_first: dict[int | str, Any] = dict([*enumerate(first.args), *first.kwargs.items()])
    given_here: dict[int | str, Any] = dict([*enumerate(stop.args), *stop.kwargs.items()])
    for key, value in given_first.items():
        if not _is_plain(value):
            known.setdefault(id(value), ArgumentSource("in", key))

    def source_of(key: int | str, value: Any) -> ArgumentSource | None:
        if not _is_plain(value):
            return known.get(id(value))
        same = key in given_first and _alike(value, given_first[key])
        return ArgumentSource("in", key) if same else ArgumentSource("plain", value)

    found = {key: source_of(key, value) for key, value in given_here.items()}
    if None in found.values():
        return None
    given = {key: source for key, source in found.items() if source is not None}
    args = tuple(given.pop(index) for index in range(len(stop.args)))
    return args, {str(key): source for key, source in given.items()}


def named(
    args: tuple[ArgumentSource, ...], kwargs: dict[str, ArgumentSource], signature: inspect.Signature
) -> dict[str, Sources]:
    """Sources by the names of a block's forward, of which the first is the block."""
    bound = signature.bind(None, *args, **kwargs).arguments
    return dict(list(bound.items())[1:])


def order_of(signature: inspect.Signature) -> inspect.Signature | None:
    """Of a block's forward without the block; None: all that it takes can be given by name."""
    parameters = list(signature.parameters.values())[1:]
    by_name = all(one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) for one in parameters)
    return None if by_name else signature.replace(parameters=parameters)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _alike(value: Any, plain: Any) -> bool:
    return type(value) is type(plain) and bool(value == plain)


class _Placeholder(torch.Tensor):
    """Has a shape and a type, and no numbers."""

    chain: Chain
    link: int

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
        if name in _OF_SHAPE:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        first = next(leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, _Placeholder))
        raise NotChained(first.chain, first.link + 1)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        first = next(leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, _Placeholder))
        raise NotChained(first.chain, first.link + 1)


_OF_SHAPE = frozenset(
    {"shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad", "size", "dim", "__len__",
     "is_floating_point", "numel"}
)  # fmt: skip


def _placeholder(chain: Chain, link: int, shape: tuple[int, ...], made: Made) -> torch.Tensor:
    given: _Placeholder = torch.Tensor._make_wrapper_subclass(_Placeholder, shape, dtype=made.dtype, device=made.device)
    given.chain, given.link = chain, link
    return given
