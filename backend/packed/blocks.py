"""Calls of any transformer that meet at whole blocks, of which nothing is known but that they repeat.

Like `backend.packed.lockstep`, but what the calls share is the model's blocks: their streams of tokens are put
together, the stock block runs once, and attention is kept within rows. The first time that a block meets calls of a new
form, it may call nothing that could mix tokens, and what it gives is compared with what it gives each call alone; from
then on it is trusted. A block that does not pass runs layer by layer, so the result is the model's own in any case.
Blocks that are seen to feed each other run one after another (`backend.packed.chain`). What stands beside the blocks
(what embeds the timestep, the last norm) is packed like one, or its rows are stacked.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from backend.coroutine import DenoiserCall
from backend.identity import Itself
from backend.kernels.choice import REFERENCE, Kernels
from backend.kernels.graphs import Recorder
from backend.loading import first_line
from backend.packed.arguments import TEXT, Arguments, Differs, Packer, Streams, is_stream, stacked, streams_of
from backend.packed.cache import CachedPass, Given, NoRoom, PackedBlock, TokenCache
from backend.packed.chain import (
    ArgumentSource,
    Chain,
    ChainLink,
    Made,
    NotChained,
    PackedAlike,
    Sources,
    leaves_of,
    named,
    order_of,
    sources_of,
    value_of,
)
from backend.packed.entries import RowEntries
from backend.packed.lockstep import BY_ITSELF, Lockstep, Stop, lora_scale, treats_tokens_alone
from backend.packed.pack import Arrangement, NotPackable, Pack
from backend.packed.recent import Recent
from backend.packed.units import Grid, grid_of_tokens
from backend.packed.within import Checking, RowAttention, within
from policies.caching import CachingPolicy
from policies.contract import PolicyError

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Largest difference of a checked block from the same alone, in standard deviations; half precision rounds more."""
_HALF = 0.1
_ARRANGED = 12
"""Sets of streams of which the tables are kept: a composition has one to four, and stays for some steps."""
_FORMS = 4096
"""Forms of calls that are remembered to be trusted."""


class PackedCalls(NamedTuple):
    """Calls of one block as one call."""

    packer: Packer
    pack: Pack
    image_first: bool
    arguments: dict[str, Any]
    form: Hashable


class Blocks(Lockstep):
    """Runs denoiser calls of any sizes together, block by block, and layer by layer where a block cannot be packed.

    Args:
        model: a transformer of diffusers: its blocks are the lists among its children.
        kernels: kernels of the packed blocks.
        recorder: may record the forwards of calls that are equal in every shape, and chains of blocks.
        caching: decides which tokens go through which block, refiners of the text or the image apart; None: all, and
            nothing is kept.
        cache_bytes: what the cache may keep.
        cache_patch: side of the groups of tokens that the cache decides about, latent pixels; 0: whole images.

    Attributes:
        cache: None without a caching policy.
        packed: how often blocks ran once for several calls, by their class.
        unpacked: how often they did not, by their class and the reason.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        kernels: Kernels = REFERENCE,
        recorder: Recorder | None = None,
        caching: CachingPolicy | None = None,
        cache_bytes: int = 2**30,
        cache_patch: int = 32,
    ) -> None:
        super().__init__(model, recorder)
        self.recorder = recorder or Recorder()
        lists = {name: child for name, child in model.named_children() if isinstance(child, torch.nn.ModuleList)}
        blocks = {
            block: name for name, listed in lists.items() for block in listed if any(True for _ in block.children())
        }
        self._blocks = set(blocks)
        self.cache: TokenCache | None = None
        if caching is not None:
            cached = [block for block, name in blocks.items() if "refiner" not in name]
            self.cache = TokenCache(caching, cache_bytes, cached, cache_patch)
        self._cached: CachedPass | None = None
        self._fused = kernels.fused
        self._signatures: dict[type, inspect.Signature] = {}
        self._plain_names: dict[type, list[str]] = {}
        self._trusted: dict[Hashable, frozenset[tuple[str, ...]]] = {}
        self._image_first: dict[type, bool] = {}
        self._packers: dict[Hashable, Packer] = {}
        self._arrangements: Recent[Hashable, dict[tuple[str, ...], Arrangement]] = Recent(_ARRANGED)
        self._refused: set[Hashable] = set()
        self._chains: dict[Hashable, Chain] = {}
        self._learning: _Learning | None = None
        self._calls = 0
        self._scale = 1.0
        self.packed: Counter[str] = Counter()
        self.unpacked: Counter[tuple[str, str]] = Counter()

    @property
    def notes(self) -> list[str]:
        """Which blocks run layer by layer, and why, a line each."""
        always = {kind.__name__ for kind in self._refused if isinstance(kind, type)}
        return [
            f"{name} {'is' if name in always else f'was {count} times'} packed layer by layer, not as a block: {reason}"
            for (name, reason), count in sorted(self.unpacked.items())
        ]

    def run_in_step(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """See `Lockstep.run_in_step`. Calls alike stand together, which their attention shares then."""
        order = sorted(range(len(calls)), key=lambda index: _sizes(calls[index]))
        outputs = self._in_order([calls[index] for index in order])
        return [outputs[order.index(index)] for index in range(len(calls))]

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """See `Lockstep.run`. With a cache, calls that are the same part of their steps run together."""
        if self.cache is None:
            return super().run(calls)
        outputs: list[Any] = [None] * len(calls)
        groups: dict[int, list[int]] = {}
        for index, call in enumerate(calls):
            groups.setdefault(call.part, []).append(index)
        for indices in groups.values():
            done = self._run_cached([calls[index] for index in indices], self.cache)
            for index, output in zip(indices, done, strict=True):
                outputs[index] = output
        return outputs

    @torch.no_grad()
    def _run_cached(self, calls: Sequence[DenoiserCall], cache: TokenCache) -> list[Any]:
        order = sorted(range(len(calls)), key=lambda index: _sizes(calls[index]))
        ordered = [calls[index] for index in order]
        try:
            with CachedPass(cache, ordered, self._grid) as self._cached:
                done = self._in_order(ordered)
        except NoRoom as error:
            self._cached = None
            done = self._run_some_cached(ordered, cache, error)
        finally:
            self._cached = None
        return [done[order.index(index)] for index in range(len(calls))]

    def _run_some_cached(self, calls: Sequence[DenoiserCall], cache: TokenCache, room: NoRoom) -> list[Any]:
        """Those for which there is room with the cache, the others without."""
        outputs: list[Any] = [None] * len(calls)
        for admitted in (True, False):
            indices = [index for index, has_room in enumerate(room.admitted) if has_room == admitted]
            if not indices:
                continue
            some = [calls[index] for index in indices]
            done = self._run_cached(some, cache) if admitted else super().run(some)
            if not admitted:
                cache.by_block[:, 0] += sum(room.units[index] for index in indices)
            for index, output in zip(indices, done, strict=True):
                outputs[index] = output
        return outputs

    def _grid(self, call: DenoiserCall, tokens: int) -> tuple[Grid, int]:
        patch = getattr(self.model.config, "patch_size", 1)
        return grid_of_tokens(call, tokens, patch[-1] if isinstance(patch, list | tuple) else patch or 1)

    def _in_order(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        self._calls, self._scale = len(calls), lora_scale(calls[0].kwargs)
        while True:
            try:
                return super().run_in_step(calls)
            except NotChained as error:
                error.chain.cut(error.links)
            finally:
                self._packers.clear()
                self._end_chain()

    def layers(self) -> Iterator[torch.nn.Module]:
        for child in self.model.children():
            for part in child if isinstance(child, torch.nn.ModuleList) else (child,):
                if self._is_whole(part):
                    yield part
                else:
                    yield from self._inner(part)

    def _inner(self, part: torch.nn.Module) -> Iterator[torch.nn.Module]:
        return (layer for layer in part.modules() if treats_tokens_alone(layer))

    def _is_whole(self, layer: torch.nn.Module) -> bool:
        """Whether calls meet there and not at what is in it."""
        return self._kind(layer) not in self._refused and not treats_tokens_alone(layer)

    def _kind(self, layer: torch.nn.Module) -> Any:
        """What is refused if it is: all blocks of a class, or the one layer beside them."""
        return type(layer) if layer in self._blocks else layer

    def together(self, stops: Sequence[Stop]) -> list[Any]:
        layer = stops[0].layer
        if treats_tokens_alone(layer):
            given = super().together(stops)
            self._go_on(layer, stops, given)
            return given
        cached = self._cached is not None and self.cache is not None and layer in self.cache.index
        if (len(stops) > 1 or cached) and self._is_whole(layer):
            try:
                given = self._from_cache(layer, stops) if cached else self._told_apart(layer, stops)
            except (torch.OutOfMemoryError, NotChained, NoRoom, PolicyError):
                raise
            except Exception as error:  # whoever is to blame: by themselves, calls fail alone
                known = isinstance(error, NotPackable)
                if isinstance(error, NotPackable) and (error.always or layer not in self._blocks):
                    self._refused.add(self._kind(layer))
                if layer in self._blocks:
                    reason = str(error) if known else f"{type(error).__name__}: {first_line(error)}"
                    self.unpacked[type(layer).__name__, reason] += 1
            else:
                return given
        self._end_chain()
        self.hook(self._inner(layer))
        return [BY_ITSELF] * len(stops)

    def _go_on(self, layer: torch.nn.Module, stops: Sequence[Stop], given: Sequence[Any]) -> None:
        """A layer that treats tokens alone may be part of a chain as it is."""
        if self._learning is None:
            return
        try:
            launch = self._launch(layer, [self._named(layer, stop) for stop in stops], image_first=False)
        except NotPackable:
            self._end_chain()
        else:
            self._trusted.setdefault(launch.form, frozenset())
            self._learn(layer, stops, launch, given)

    def _told_apart(self, layer: torch.nn.Module, stops: Sequence[Stop]) -> list[Any]:
        """`_at_once`. Packed tensors are told by their number of tokens: if two have the same, a call runs twice."""
        for more in range(3):
            try:
                return self._at_once(layer, [*stops, *[stops[0]] * more])[: len(stops)]
            except NotPackable as error:
                if not error.ambiguous or more == 2:
                    raise
        raise AssertionError

    def _all(self, stops: Sequence[Stop]) -> bool:
        """Whether all calls under way have come."""
        return len({stop.call for stop in stops}) == self._calls

    def _at_once(self, layer: torch.nn.Module, stops: Sequence[Stop]) -> list[Any]:
        """What the layer gives to each call. How it joins image and text is seen when it does, and kept in mind."""
        kind = type(layer)
        calls = [self._named(layer, stop) for stop in stops]
        if not is_stream(next(iter(calls[0].values()), None)):
            if layer in self._blocks:
                streams_of(calls)  # says what it is not
            return self._rows_at_once(layer, stops, calls)
        known = self._image_first.get(kind)
        launch = self._launch(layer, calls, known or False)
        chain = self._chains.get(launch.form)
        if chain is not None and self._all(stops):
            given = self._through(chain, stops, launch)
            if given is not None:
                return given
        given, last = self._launched(layer, stops, launch)
        if launch.pack.over_joint and known is None:
            if not last:
                raise NotPackable("an argument lies over image and text, which it does not join", always=True)
            self._image_first[kind] = image_first = last[-1] == TEXT
            if image_first:
                launch = self._launch(layer, calls, image_first)
                given, _ = self._launched(layer, stops, launch)
        if layer in self._blocks:
            self.packed[kind.__name__] += 1
        self._learn(layer, stops, launch, given)
        return given

    def _from_cache(self, layer: torch.nn.Module, stops: Sequence[Stop]) -> list[Any]:
        """What the block gives to each call, as much of it as the policy wants computed."""
        cache, cached, kind = self.cache, self._cached, type(layer)
        assert cache is not None
        assert cached is not None
        if len(stops) != self._calls:
            raise NotPackable("some calls do not come to it")
        calls = [self._named(layer, stop) for stop in stops]
        launch = self._launch(layer, calls, self._image_first.get(kind, False), any_lengths=True)
        if launch.form not in self._trusted or layer not in cache.given:
            rows = sum(launch.packer.streams.rows)
            self._cached = None
            try:
                self._told_apart(layer, stops if rows > 1 else [*stops, *stops])  # one row alone would prove nothing
            finally:
                self._cached = cached
            launch = self._launch(layer, calls, self._image_first.get(kind, False), any_lengths=True)
        block = PackedBlock(layer, stops[0].forward, launch.packer, launch.pack, launch.arguments)
        if launch.form not in self._trusted or not cached.takes(block):
            return self._told_apart(layer, stops) if len(stops) > 1 else [BY_ITSELF]
        given = cached.run(block, self._trusted[launch.form])
        self.packed[kind.__name__] += 1
        return given

    def _named(self, layer: torch.nn.Module, stop: Stop) -> dict[str, Any]:
        """The arguments of a call by name, in the order of the signature."""
        kind = type(layer)
        if kind not in self._plain_names:
            parameters = list(self._signature(layer).parameters.values())[1:]
            plain = all(one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)
            self._plain_names[kind] = [one.name for one in parameters] if plain else []
        names = self._plain_names[kind]
        if names and len(stop.args) <= len(names) and not stop.kwargs.keys() - set(names[len(stop.args) :]):
            given = dict(zip(names, stop.args, strict=False)) | stop.kwargs
            return {name: given[name] for name in names if name in given}
        bound = self._signature(layer).bind(layer, *stop.args, **stop.kwargs)
        return {name: value for name, value in bound.arguments.items() if name != "self"}

    def _signature(self, layer: torch.nn.Module) -> inspect.Signature:
        kind = type(layer)
        if kind not in self._signatures:
            self._signatures[kind] = inspect.signature(kind.forward)
        return self._signatures[kind]

    def _launch(
        self, layer: torch.nn.Module, calls: Sequence[Arguments], image_first: bool, any_lengths: bool = False
    ) -> PackedCalls:
        packer = self._packer(streams_of(calls, any_lengths), calls[0][next(iter(calls[0]))].device)
        pack = packer.pack(any_lengths)
        arguments = packer.packed(calls, pack, image_first)
        form = (layer, image_first, *_form(arguments))
        for names in self._trusted.get(form, ()):
            pack.join(names)
        return PackedCalls(packer, pack, image_first, arguments, form)

    def _launched(
        self, layer: torch.nn.Module, stops: Sequence[Stop], launch: PackedCalls
    ) -> tuple[list[Any], tuple[str, ...]]:
        """What the calls are given, and what the layer joined last."""
        pack, trusted = launch.pack, launch.form in self._trusted
        bound = self._signature(layer).bind(layer, *stops[0].args, **stops[0].kwargs)
        bound.arguments.update(launch.arguments)
        with within(RowAttention(pack)):
            if trusted:
                out = stops[0].forward(*bound.args[1:], **bound.kwargs)
            else:
                with Checking(pack):
                    out = stops[0].forward(*bound.args[1:], **bound.kwargs)
        given = _divided(out, pack, launch.packer.streams.rows)
        if self.cache is not None:
            self.cache.given[layer] = Given.of(out, pack)
        settled = not pack.over_joint or type(layer) in self._image_first or not pack.last or pack.last[-1] != TEXT
        if not trusted and settled:
            self._compare(stops, given)
            if len(self._trusted) >= _FORMS:
                self._trusted.clear()
                self._chains.clear()
            self._trusted[launch.form] = pack.joins
        return given, pack.last

    def _packer(self, streams: Streams, device: torch.device) -> Packer:
        key = (streams.main, streams.rows, tuple(streams.lengths.items()), device)
        packer = self._packers.get(key)
        if packer is None:
            tables = self._arrangements.get(key)
            if tables is None:
                self._arrangements.keep(key, tables := {})
            packer = self._packers[key] = Packer(streams, device, tables, self._fused)
        return packer

    def _rows_at_once(self, layer: torch.nn.Module, stops: Sequence[Stop], calls: Sequence[Arguments]) -> list[Any]:
        """What a layer that has no tokens gives to the rows of each call."""
        arguments, rows = stacked(calls)
        form = (layer, *_form(arguments))
        bound = self._signature(layer).bind(layer, *stops[0].args, **stops[0].kwargs)
        bound.arguments.update(arguments)
        leaves, spec = tree_flatten(stops[0].forward(*bound.args[1:], **bound.kwargs))
        if not all(isinstance(leaf, torch.Tensor) and leaf.ndim and len(leaf) == sum(rows) for leaf in leaves):
            raise NotPackable("it gives other rows than it is given", always=True)
        columns = [leaf.split(rows) for leaf in leaves]
        given = [tree_unflatten([column[index] for column in columns], spec) for index in range(len(rows))]
        if form not in self._trusted:
            self._compare(stops, given)
            self._trusted[form] = frozenset()
        return given

    def _compare(self, stops: Sequence[Stop], given: Sequence[Any]) -> None:
        """Refuse a block that gives calls anything else than alone."""
        for stop, packed in zip(stops, given, strict=True):
            alone = stop.forward(*stop.args, **stop.kwargs)
            for one, other in zip(tree_flatten(alone)[0], tree_flatten(packed)[0], strict=True):
                if not _equal(one, other):
                    raise NotPackable("packed, it gives other values than alone", always=True)

    def _through(self, chain: Chain, stops: Sequence[Stop], launch: PackedCalls) -> list[Any] | None:
        """What the first block of a chain gives to each call, when the chain has run; None: it is not for these."""
        streams = launch.packer.streams
        tensors: list[Any] = []
        packs, templates = [], []
        for index, group in enumerate(chain.groups):
            if index:
                own = {name: streams.lengths[of_first] for name, of_first in group.streams.items()}
                packer = self._packer(Streams(next(iter(own)), streams.rows, own), launch.packer.device)
                pack = packer.pack()
                for names in group.joins:
                    pack.join(names)
                others = {
                    name: packer.argument(name, [value_of(sources, stop) for stop in stops], pack, group.image_first)
                    for name, sources in group.others.items()
                }
                if _form(others) != group.form:
                    return None
            else:
                pack, others = launch.pack, {name: launch.arguments[name] for name in group.others}
            packs.append(pack)
            templates.append(_Template.of(others, tensors))
        given_streams = {name: launch.arguments[name] for name in streams.lengths}
        layers = [(self.stock(link.layer), link) for link in chain.links]
        key = "chain", launch.form, len(chain.links), tuple(streams.lengths.items()), self._scale
        leaves = self.recorder.run(key, _run_links(layers, packs, templates), given_streams, tensors)
        last = chain.links[-1]
        finals = _divided(tree_unflatten(list(leaves), last.spec), packs[last.group], streams.rows)
        given, at = [], 0
        for stop, rows, final in zip(stops, streams.rows, finals, strict=True):
            tokens = {name: lengths[at] for name, lengths in streams.lengths.items()}
            given.append(chain.send_ahead(stop, rows, tokens, final))
            at += rows
        self.packed.update(type(link.layer).__name__ for link in chain.links if link.layer in self._blocks)
        return given

    def _learn(self, layer: torch.nn.Module, stops: Sequence[Stop], launch: PackedCalls, given: Sequence[Any]) -> None:
        """See whether the layer was fed by the one before, in all calls; else a new chain may begin with it."""
        if self.cache is not None or not self._all(stops) or launch.form not in self._trusted:
            self._end_chain()
            return
        fed = Fed(layer, self._signature(layer), stops, launch, self._trusted[launch.form], given)
        if self._learning is not None and self._learning.add(fed):
            return
        self._end_chain()
        if layer in self._blocks and launch.form not in self._chains:
            begun = _Learning(fed)
            self._learning = begun if begun.add(fed) else None

    def _end_chain(self) -> None:
        learned, self._learning = self._learning, None
        if learned is not None:
            self._chains[learned.first.launch.form] = learned.chain


class Fed(NamedTuple):
    """A layer that ran for all calls at once, what it was given and what it gave."""

    layer: torch.nn.Module
    signature: inspect.Signature
    stops: Sequence[Stop]
    launch: PackedCalls
    joins: frozenset[tuple[str, ...]]
    given: Sequence[Any]


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
            _form({name: fed.launch.arguments[name] for name in others}),
            fed.joins,
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
    layers: Sequence[tuple[Callable[..., Any], ChainLink]], packs: Sequence[Pack], templates: Sequence[_Template]
) -> Callable[..., list[Any]]:
    """From the streams of a chain to what its last layer gives: what can be recorded."""

    def run(streams: dict[str, torch.Tensor], tensors: Sequence[torch.Tensor]) -> list[Any]:
        others = [template.filled(tensors) for template in templates]
        leaves: list[Any] = []
        rows = RowAttention(packs[0])
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


def _sizes(call: DenoiserCall) -> list[tuple[int, ...]]:
    """The shapes of a call's tensors."""
    leaves = [*call.args, *call.kwargs.values()]
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _form(arguments: Arguments) -> tuple[Any, ...]:
    """What of packed arguments decides which way a block goes."""
    leaves, spec = tree_flatten(dict(arguments))
    return spec, tuple(_form_of(leaf) for leaf in leaves)


def _form_of(leaf: Any) -> Hashable:
    if isinstance(leaf, torch.Tensor | RowEntries):
        return type(leaf).__name__, leaf.ndim, leaf.dtype
    if isinstance(leaf, Differs):
        return "differs"
    try:
        hash(leaf)
    except TypeError:
        return Itself(leaf)
    return leaf


def _divided(out: Any, pack: Pack, rows: Sequence[int]) -> list[Any]:
    """The result of a block on a pack, one a call."""
    leaves, spec = tree_flatten(out)
    columns = [_rows_divided(leaf, pack, rows) for leaf in leaves]
    return [tree_unflatten([column[index] for column in columns], spec) for index in range(len(rows))]


def _rows_divided(x: Any, pack: Pack, rows: Sequence[int]) -> list[Any]:
    if not isinstance(x, torch.Tensor):
        return [x] * len(rows)
    arrangement = pack.arrangement(x.shape[1]) if x.ndim > 1 and len(x) == 1 else None
    if arrangement is None:
        raise NotPackable(f"a result of the shape {tuple(x.shape)}")
    return arrangement.by_call(x, rows)


def _equal(alone: Any, packed: Any) -> bool:
    if not isinstance(alone, torch.Tensor):
        return bool(alone is packed or alone == packed)
    if not isinstance(packed, torch.Tensor) or alone.shape != packed.shape or alone.dtype != packed.dtype:
        return False
    if not alone.numel():
        return True
    tolerance = _TOLERANCE.get(alone.dtype, _HALF) * max(float(alone.double().std(correction=0)), 1e-12)
    return bool((alone.double() - packed.double()).abs().max() <= tolerance)
