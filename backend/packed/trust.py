"""A block's calls as one call of it, and whether that may be trusted.

Nothing is known of a block. The first time that it meets calls of a new form, it may call nothing that could mix
tokens, and what it gives is compared with what it gives each call alone; from then on it is trusted for this form.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from backend.alike import alike
from backend.identity import Itself
from backend.packed.arguments import TEXT, Arguments, Differs, PackedTables, Packer, Streams, stacked, streams_of
from backend.packed.division import Division, Layers, all_tokens, shared
from backend.packed.entries import RowEntries
from backend.packed.lockstep import Stop
from backend.packed.pack import Arrangement, NotPackable, Pack
from backend.packed.shard_attention import ShardAttention
from backend.packed.tables import Tables
from backend.packed.within import Checking, RowAttention, within
from backend.ranks.heartbeat import RankLost
from backend.recent import Recent

_ARRANGED = 12
"""Sets of streams of which the tables are kept: a composition has one to four, and stays for some steps."""
_FORMS = 4096
"""Forms of calls that are remembered to be trusted."""


class PackedCalls(NamedTuple):
    """Calls of one block as one call.

    Attributes:
        packer: of their streams.
        pack: where their tokens lie.
        image_first: how the block joins image and text.
        arguments: of all calls, by name.
        form: what of them decides which way the block goes, the block included.
    """

    packer: Packer
    pack: Pack
    image_first: bool
    arguments: dict[str, Any]
    form: Hashable


class Launched(NamedTuple):
    """Calls that a block ran for at once.

    Attributes:
        calls: as they ran.
        out: what the block gave to all together.
        given: to each.
    """

    calls: PackedCalls
    out: Any
    given: list[Any]


class Habits(NamedTuple):
    """What a layer does with streams.

    Attributes:
        joins: which it puts end to end.
        attended: see `Pack.attended`.
    """

    joins: frozenset[tuple[str, ...]] = frozenset()
    attended: frozenset[tuple[tuple[str, ...], tuple[str, ...], str]] = frozenset()


class Trust:
    """Runs a layer once for several calls, and knows for which forms of calls that has been checked.

    Args:
        fused: see `backend.packed.pack.Pack`.
        tables: of positions that are kept; packed, they are kept too.

    Attributes:
        division: with which other ranks tokens are divided; None: with none.
    """

    def __init__(self, fused: bool, tables: Tables) -> None:
        self._fused = fused
        self.division: Division | None = None
        self.packed_tables = PackedTables(tables)
        self._signatures: dict[type, inspect.Signature] = {}
        self._plain_names: dict[type, list[str]] = {}
        self._habits: dict[Hashable, Habits] = {}
        self._image_first: dict[type, bool] = {}
        self._packers: dict[Hashable, Packer] = {}
        self._arrangements: Recent[Hashable, dict[tuple[str, ...], Arrangement]] = Recent(_ARRANGED)

    def __contains__(self, form: Hashable) -> bool:
        return form in self._habits

    def habits(self, form: Hashable) -> Habits:
        """What a layer does with its streams in calls of a trusted form."""
        return self._habits[form]

    def take(self, form: Hashable, habits: Habits = Habits()) -> None:  # noqa: B008 - it has no state
        """Trust a form of calls from now on; one that is trusted stays as it is."""
        if len(self._habits) >= _FORMS:
            self._habits.clear()
        self._habits.setdefault(form, habits)

    def forget_calls(self) -> None:
        """The calls under way are done: free what was packed of them."""
        self._packers.clear()

    def named(self, layer: torch.nn.Module, stop: Stop) -> dict[str, Any]:
        """The arguments of a call by name, in the order of the signature."""
        kind = type(layer)
        if kind not in self._plain_names:
            parameters = list(self.signature(layer).parameters.values())[1:]
            plain = all(one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)
            self._plain_names[kind] = [one.name for one in parameters] if plain else []
        names = self._plain_names[kind]
        if names and len(stop.args) <= len(names) and not stop.kwargs.keys() - set(names[len(stop.args) :]):
            given = dict(zip(names, stop.args, strict=False)) | stop.kwargs
            return {name: given[name] for name in names if name in given}
        bound = self.signature(layer).bind(layer, *stop.args, **stop.kwargs)
        return {name: value for name, value in bound.arguments.items() if name != "self"}

    def signature(self, layer: torch.nn.Module) -> inspect.Signature:
        """Of the layer's forward; its first parameter is the layer."""
        kind = type(layer)
        if kind not in self._signatures:
            self._signatures[kind] = inspect.signature(kind.forward)
        return self._signatures[kind]

    def launch(self, layer: torch.nn.Module, calls: Sequence[Arguments], any_lengths: bool = False) -> PackedCalls:
        """Calls of a layer as one, with all that it is known to join.

        Raises:
            NotPackable: they cannot be packed.
        """
        return self._launch(layer, calls, self._image_first.get(type(layer), False), any_lengths)

    def _launch(
        self, layer: torch.nn.Module, calls: Sequence[Arguments], image_first: bool, any_lengths: bool = False
    ) -> PackedCalls:
        packer = self.packer(streams_of(calls, any_lengths), calls[0][next(iter(calls[0]))].device)
        pack = packer.pack(any_lengths)
        arguments = packer.packed(calls, pack, image_first)
        form = (layer, image_first, *form_of(arguments))
        for names in self._habits.get(form, Habits()).joins:
            pack.join(names)
        return PackedCalls(packer, pack, image_first, arguments, form)

    def run(
        self,
        layer: torch.nn.Module,
        stops: Sequence[Stop],
        calls: Sequence[Arguments],
        launch: PackedCalls,
        block: str = "",
    ) -> Launched:
        """What the layer gives to each call. How it joins image and text is seen when it does, and kept in mind.

        Args:
            layer: where the calls are.
            stops: the calls; ``calls``: their arguments by name; ``launch``: these, packed.
            block: its name, if its tokens are worth dividing.

        Raises:
            NotPackable: it gives other values than alone, or calls what could mix tokens.
        """
        kind = type(layer)
        if block and self.division is not None:
            if launch.form in self:
                done = self._divided(layer, stops, launch, block)
                if done is not None:
                    return done
            else:
                self.division.alone()
        launched, last = self._launched(layer, stops, launch)
        if launch.pack.over_joint and kind not in self._image_first:
            if not last:
                raise NotPackable("an argument lies over image and text, which it does not join", always=True)
            self._image_first[kind] = image_first = last[-1] == TEXT
            if image_first:
                launched, _ = self._launched(layer, stops, self._launch(layer, calls, image_first))
        return launched

    def _launched(
        self, layer: torch.nn.Module, stops: Sequence[Stop], launch: PackedCalls
    ) -> tuple[Launched, tuple[str, ...]]:
        """What the calls are given, and what the layer joined last."""
        pack, trusted = launch.pack, launch.form in self
        bound = self.signature(layer).bind(layer, *stops[0].args, **stops[0].kwargs)
        bound.arguments.update(launch.arguments)
        with within(RowAttention(pack)):
            if trusted:
                out = stops[0].forward(*bound.args[1:], **bound.kwargs)
            else:
                pack.attended = set()
                with Checking(pack):
                    out = stops[0].forward(*bound.args[1:], **bound.kwargs)
        given = divided(out, pack, launch.packer.streams.rows)
        settled = not pack.over_joint or type(layer) in self._image_first or not pack.last or pack.last[-1] != TEXT
        if not trusted and settled:
            _compare(stops, given)
            self.take(launch.form, Habits(pack.joins, frozenset(pack.attended or ())))
        return Launched(launch, out, given), pack.last

    def _divided(
        self, layer: torch.nn.Module, stops: Sequence[Stop], launch: PackedCalls, block: str
    ) -> Launched | None:
        """What the calls are given where ranks divide their tokens; None: they do not."""
        assert self.division is not None
        streams = launch.packer.streams
        layers = Layers({name: name for name in streams.lengths}, *self.habits(launch.form))
        channels = frozenset(launch.arguments[name].shape[2] for name in streams.lengths)
        shard = self.division.shard([block], streams.lengths, [layers], channels, launch.packer.device)
        if shard is None:
            return None
        try:
            with self.division.computing():
                pack = shard.pack(layers.names, layers.joins, self._fused)
                arguments = shared(launch.arguments, pack, launch.packer.along, list(streams.lengths), layers)
                bound = self.signature(layer).bind(layer, *stops[0].args, **stops[0].kwargs)
                bound.arguments.update(arguments)
                with within(ShardAttention(pack, self.division.exchange)):
                    out = stops[0].forward(*bound.args[1:], **bound.kwargs)
                out = all_tokens(self.division, out, pack, layers)
        except RankLost:
            return None
        return Launched(launch, out, divided(out, launch.pack, streams.rows))

    def packer(self, streams: Streams, device: torch.device) -> Packer:
        """Of these streams; the tables of those that were used last are kept."""
        key = (streams.main, streams.rows, tuple(streams.lengths.items()), device)
        packer = self._packers.get(key)
        if packer is None:
            arrangements = self._arrangements.get(key)
            if arrangements is None:
                self._arrangements.keep(key, arrangements := {})
            packer = self._packers[key] = Packer(streams, device, arrangements, self._fused, self.packed_tables)
        return packer

    def rows_at_once(self, layer: torch.nn.Module, stops: Sequence[Stop], calls: Sequence[Arguments]) -> list[Any]:
        """What a layer that has no tokens gives to the rows of each call."""
        arguments, rows = stacked(calls)
        form = (layer, *form_of(arguments))
        bound = self.signature(layer).bind(layer, *stops[0].args, **stops[0].kwargs)
        bound.arguments.update(arguments)
        leaves, spec = tree_flatten(stops[0].forward(*bound.args[1:], **bound.kwargs))
        if not all(isinstance(leaf, torch.Tensor) and leaf.ndim and len(leaf) == sum(rows) for leaf in leaves):
            raise NotPackable("it gives other rows than it is given", always=True)
        columns = [leaf.split(rows) for leaf in leaves]
        given = [tree_unflatten([column[index] for column in columns], spec) for index in range(len(rows))]
        if form not in self:
            _compare(stops, given)
            self.take(form)
        return given


def _compare(stops: Sequence[Stop], given: Sequence[Any]) -> None:
    """Refuse a block that gives calls anything else than alone."""
    for stop, packed in zip(stops, given, strict=True):
        alone = stop.forward(*stop.args, **stop.kwargs)
        if not alike(alone, packed):
            raise NotPackable("packed, it gives other values than alone", always=True)


def form_of(arguments: Arguments) -> tuple[Any, ...]:
    """What of packed arguments decides which way a block goes."""
    leaves, spec = tree_flatten(dict(arguments))
    return spec, tuple(_leaf_form(leaf) for leaf in leaves)


def _leaf_form(leaf: Any) -> Hashable:
    if isinstance(leaf, torch.Tensor | RowEntries):
        return type(leaf).__name__, leaf.ndim, leaf.dtype
    if isinstance(leaf, Differs):
        return "differs"
    try:
        hash(leaf)
    except TypeError:
        return Itself(leaf)
    return leaf


def divided(out: Any, pack: Pack, rows: Sequence[int]) -> list[Any]:
    """The result of a block on a pack, one a call."""
    leaves, spec = tree_flatten(out)
    columns = [_rows_of(leaf, pack, rows) for leaf in leaves]
    return [tree_unflatten([column[index] for column in columns], spec) for index in range(len(rows))]


def _rows_of(x: Any, pack: Pack, rows: Sequence[int]) -> list[Any]:
    if not isinstance(x, torch.Tensor):
        return [x] * len(rows)
    arrangement = pack.arrangement(x.shape[1]) if x.ndim > 1 and len(x) == 1 else None
    if arrangement is None:
        raise NotPackable(f"a result of the shape {tuple(x.shape)}")
    return arrangement.by_call(x, rows)
