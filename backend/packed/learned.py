"""Chains of blocks: seen to be ones as they run, kept by the form of the first block's calls, and run as a whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from backend.kernels.graphs import Recorder
from backend.packed.arguments import Packer, Streams
from backend.packed.chain import (
    ArgumentSource,
    Chain,
    ChainLink,
    Made,
    PackedAlike,
    Sources,
    leaves_of,
    named,
    order_of,
    sources_of,
    value_of,
)
from backend.packed.division import Layers, all_tokens, shared
from backend.packed.entries import RowEntries
from backend.packed.lockstep import Stop
from backend.packed.pack import Pack
from backend.packed.shard_attention import ShardAttention
from backend.packed.trust import Habits, PackedCalls, Trust, divided, form_of
from backend.packed.within import RowAttention, within
from backend.ranks.heartbeat import RankLost
from backend.recent import Recent

_CHAINS = 256
"""Chains that are kept: a model has a few a form of calls."""


class Fed(NamedTuple):
    """A layer that ran for all calls at once, what it was given and what it gave."""

    layer: torch.nn.Module
    signature: inspect.Signature
    stops: Sequence[Stop]
    launch: PackedCalls
    habits: Habits
    given: Sequence[Any]


class Chains:
    """The chains of one model.

    Args:
        trust: runs its blocks.
        recorder: may record chains.
    """

    def __init__(self, trust: Trust, recorder: Recorder) -> None:
        self._trust = trust
        self._recorder = recorder
        self._chains: Recent[Hashable, Chain] = Recent(_CHAINS)
        self._learning: _Learning | None = None

    @property
    def learning(self) -> bool:
        """Whether the blocks that ran last may be a chain that goes on."""
        return self._learning is not None

    def of(self, launch: PackedCalls) -> Chain | None:
        """The chain that begins with such calls, of a form that is trusted."""
        return self._chains.get(launch.form) if launch.form in self._trust else None

    def learn(self, fed: Fed, begins: bool) -> None:
        """See whether a layer was fed by the one before, in all calls; else a new chain may begin with it.

        Args:
            fed: the layer; its calls are of a trusted form.
            begins: whether a chain can begin with it.
        """
        if self._learning is not None and self._learning.add(fed):
            return
        self.end()
        if begins and self._chains.get(fed.launch.form) is None:
            begun = _Learning(fed)
            self._learning = begun if begun.add(fed) else None

    def end(self) -> None:
        """What follows is of no chain: keep the one that was seen."""
        learned, self._learning = self._learning, None
        if learned is not None:
            self._chains.keep(learned.first.launch.form, learned.chain)

    def run(
        self,
        chain: Chain,
        stops: Sequence[Stop],
        launch: PackedCalls,
        forwards: Sequence[Callable[..., Any]],
        scale: float,
        names: Sequence[str] = (),
    ) -> list[Any] | None:
        """What the first block of a chain gives to each call, when the chain has run; None: it is not for these.

        Args:
            chain: of such calls.
            stops: the calls, at its first block; ``launch``: these, packed.
            forwards: of its layers.
            scale: of LoRA weights.
            names: of its layers, where their tokens may be divided.
        """
        streams = launch.packer.streams
        packers, packs, arguments = [], [], []
        for index, group in enumerate(chain.groups):
            if index:
                own = {name: streams.lengths[of_first] for name, of_first in group.streams.items()}
                packer = self._trust.packer(Streams(next(iter(own)), streams.rows, own), launch.packer.device)
                pack = packer.pack()
                for names in group.habits.joins:
                    pack.join(names)
                others = {
                    name: packer.argument(name, [value_of(sources, stop) for stop in stops], pack, group.image_first)
                    for name, sources in group.others.items()
                }
                if form_of(others) != group.form:
                    return None
            else:
                packer, pack = launch.packer, launch.pack
                others = {name: launch.arguments[name] for name in group.others}
            packers.append(packer)
            packs.append(pack)
            arguments.append(others)
        given_streams = {name: launch.arguments[name] for name in streams.lengths}
        layers = list(zip(forwards, chain.links, strict=True))
        leaves = self._divided(layers, chain, launch, names, packers, arguments) if names else None
        if leaves is None:
            key = "chain", launch.form, len(chain.links), tuple(streams.lengths.items()), scale
            tensors: list[Any] = []
            templates = [_Template.of(others, tensors) for others in arguments]
            leaves = self._recorder.run(key, _run_links(layers, packs, templates), given_streams, tensors)
        last = chain.links[-1]
        finals = divided(tree_unflatten(list(leaves), last.spec), packs[last.group], streams.rows)
        given, at = [], 0
        for stop, rows, final in zip(stops, streams.rows, finals, strict=True):
            tokens = {name: lengths[at] for name, lengths in streams.lengths.items()}
            given.append(chain.send_ahead(stop, rows, tokens, final))
            at += rows
        return given

    def _divided(
        self,
        layers: Sequence[tuple[Callable[..., Any], ChainLink]],
        chain: Chain,
        launch: PackedCalls,
        names: Sequence[str],
        packers: Sequence[Packer],
        arguments: Sequence[dict[str, Any]],
    ) -> list[Any] | None:
        """What the last layer gives where ranks divide the tokens; None: they do not."""
        division = self._trust.division
        if division is None:
            return None
        streams = launch.packer.streams
        groups = [Layers(group.streams, *group.habits) for group in chain.groups]
        given = {name: launch.arguments[name] for name in streams.lengths}
        channels = frozenset(x.shape[2] for x in given.values())
        shard = division.shard(names, streams.lengths, groups, channels, launch.packer.device)
        if shard is None:
            return None
        try:
            with division.computing():
                tensors: list[Any] = []
                packs = [shard.pack(group.names, group.joins, launch.pack.fused) for group in groups]
                templates = [
                    _Template.of(shared(others, pack, packer.along, (), group), tensors)
                    for others, pack, packer, group in zip(arguments, packs, packers, groups, strict=True)
                ]
                own = {name: shard.taken(x, 1, (name,)) for name, x in given.items()}
                rows = ShardAttention(packs[0], division.exchange)
                leaves = _run_links(layers, packs, templates, rows)(own, tensors)
                last = chain.links[-1].group
                return list(all_tokens(division, leaves, packs[last], groups[last]))
        except RankLost:
            return None


class _Learning:
    """A chain as it is seen to be one.

    Args:
        first: its first block.
    """

    def __init__(self, first: Fed) -> None:
        self.first = first
        self.chain = Chain()
        self._before: list[list[Any]] = [[] for _ in first.stops]

    def add(self, fed: Fed) -> bool:
        """Whether the layer goes on with the chain: all that it was given came from the first block's arguments, or
        from what the last one gave, in all calls alike."""
        if len(fed.stops) != len(self.first.stops):
            return False
        found = [
            sources_of(stop, first, leaves)
            for stop, first, leaves in zip(fed.stops, self.first.stops, self._before, strict=True)
        ]
        if found[0] is None or any(one != found[0] for one in found):
            return False
        args, kwargs = found[0]
        by_name = named(args, kwargs, fed.signature)
        lengths, of_first = fed.launch.packer.streams.lengths, self.first.launch.packer.streams.lengths
        streams: dict[str, str] = {}
        sources_of_streams: dict[str, ArgumentSource] = {}
        for name in lengths:
            source = by_name.get(name)
            if not isinstance(source, ArgumentSource):
                return False
            stream = self._stream(source)
            if stream is None or lengths[name] != of_first[stream]:
                return False
            streams[name], sources_of_streams[name] = stream, source
        others: dict[str, Sources] = {name: sources for name, sources in by_name.items() if name not in streams}
        if any(source.kind == "out" for sources in others.values() for source in leaves_of(sources)):
            return False
        leaves, specs = zip(*[tree_flatten(given) for given in fed.given], strict=True)
        made = [_made(list(column), fed.launch.packer.streams, streams) for column in zip(*leaves, strict=True)]
        group = PackedAlike(
            type(fed.layer),
            fed.launch.image_first,
            streams,
            others,
            form_of({name: fed.launch.arguments[name] for name in others}),
            fed.habits,
        )
        link = ChainLink(
            layer=fed.layer,
            args=args,
            kwargs=kwargs,
            group=self.chain.group_of(group),
            streams=sources_of_streams,
            of_first=streams,
            made=tuple(made),
            spec=specs[0],
            order=order_of(fed.signature),
        )
        self.chain.links.append(link)
        self._before = list(leaves)
        return True

    def _stream(self, source: ArgumentSource) -> str | None:
        """The first block's stream that comes from there."""
        if source.kind == "plain":
            return None
        if source.kind == "out":
            made = self.chain.links[-1].made[source.what]
            return made.stream if isinstance(made, Made) and made.stream else None
        first, name = self.first, source.what
        if isinstance(name, int):
            name = dict(enumerate(list(first.signature.parameters)[1:])).get(name)
        return name if name in first.launch.packer.streams.lengths else None


def _made(column: list[Any], streams: Streams, of_first: dict[str, str]) -> Any:
    """What a chain keeps of one leaf of what a layer gives; a tensor that is of no one stream is of stream ''."""
    first = column[0]
    if not isinstance(first, torch.Tensor):
        return first
    tokens = tuple(x.shape[1] for x, rows in zip(column, streams.rows, strict=True) for _ in range(rows))
    stream = next((of_first[name] for name, lengths in streams.lengths.items() if lengths == tokens), "")
    return Made(stream, tuple(first.shape[2:]), first.dtype, first.device)


class _Template(NamedTuple):
    """Arguments without their tensors: those stand in a list, from ``at`` on."""

    spec: TreeSpec
    leaves: tuple[Any, ...]
    at: int

    @classmethod
    def of(cls, arguments: dict[str, Any], tensors: list[torch.Tensor]) -> _Template:
        at = len(tensors)
        leaves, spec = tree_flatten(arguments)
        kept: list[Any] = []
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor | RowEntries):
                tensors.append(leaf.values if isinstance(leaf, RowEntries) else leaf)
                kept.append((leaf.pack, leaf.fold) if isinstance(leaf, RowEntries) else _TENSOR)
            else:
                kept.append(_Plain(leaf))
        return cls(spec, tuple(kept), at)

    def filled(self, tensors: Sequence[torch.Tensor]) -> dict[str, Any]:
        at, leaves = self.at, []
        for leaf in self.leaves:
            if isinstance(leaf, _Plain):
                leaves.append(leaf.value)
                continue
            leaves.append(tensors[at] if leaf is _TENSOR else RowEntries(tensors[at], *leaf))
            at += 1
        arguments: dict[str, Any] = tree_unflatten(leaves, self.spec)
        return arguments


class _Plain(NamedTuple):
    value: Any


_TENSOR = object()


def _run_links(
    layers: Sequence[tuple[Callable[..., Any], ChainLink]],
    packs: Sequence[Pack],
    templates: Sequence[_Template],
    attention: RowAttention | None = None,
) -> Callable[..., list[Any]]:
    """From the streams of a chain to what its last layer gives: what can be recorded."""

    def run(streams: dict[str, torch.Tensor], tensors: Sequence[torch.Tensor]) -> list[Any]:
        others = [template.filled(tensors) for template in templates]
        leaves: list[Any] = []
        rows = attention or RowAttention(packs[0])
        with within(rows):
            for forward, link in layers:
                rows.pack = packs[link.group]
                given = {
                    name: leaves[source.what] if source.kind == "out" else streams[link.of_first[name]]
                    for name, source in link.streams.items()
                }
                out = link.call(forward, given | others[link.group])
                flat = type(out) is tuple and len(out) == len(link.made)
                leaves = list(out) if flat else tree_flatten(out)[0]
        return leaves

    return run
