"""Calls of any transformer that meet at whole blocks, of which nothing is known but that they repeat.

Like `backend.packed.lockstep`, but what the calls share is the model's blocks: their streams of tokens are put
together, the stock block runs once, and attention is kept within rows. The first time that a block meets calls of a new
form, it may call nothing that could mix tokens, and what it gives is compared with what it gives each call alone; from
then on it is trusted. A block that does not pass runs layer by layer, so the result is the model's own in any case.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from backend.coroutine import DenoiserCall
from backend.kernels.choice import REFERENCE, Kernels
from backend.kernels.graphs import Recorder
from backend.loading import first_line
from backend.packed.arguments import TEXT, Arguments, Differs, Packer, streams_of
from backend.packed.entries import RowEntries
from backend.packed.lockstep import BY_ITSELF, Lockstep, Stop
from backend.packed.pack import NotPackable, Pack
from backend.packed.within import Within

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Largest difference of a checked block from the same alone, in standard deviations; half precision rounds more."""
_HALF = 0.1


class Blocks(Lockstep):
    """Runs denoiser calls of any sizes together, block by block, and layer by layer where a block cannot be packed.

    Args:
        model: a transformer of diffusers: its blocks are the lists among its children.
        kernels: kernels of the packed blocks.
        recorder: may record the forwards of calls that are equal in every shape.

    Attributes:
        packed: how often blocks ran once for several calls, by their class.
        unpacked: how often they did not, by their class and the reason.
    """

    def __init__(self, model: torch.nn.Module, kernels: Kernels = REFERENCE, recorder: Recorder | None = None) -> None:
        super().__init__(model, recorder)
        lists = [child for child in model.children() if isinstance(child, torch.nn.ModuleList)]
        self._blocks = {block for blocks in lists for block in blocks if any(True for _ in block.children())}
        self._fused = kernels.fused
        self._signatures: dict[type, inspect.Signature] = {}
        self._trusted: dict[Hashable, frozenset[tuple[str, ...]]] = {}
        self._image_first: dict[type, bool] = {}
        self._packers: dict[Hashable, Packer] = {}
        self._refused: set[type] = set()
        self.packed: Counter[str] = Counter()
        self.unpacked: Counter[tuple[str, str]] = Counter()

    @property
    def notes(self) -> list[str]:
        """Which blocks run layer by layer, and why, a line each."""
        always = {kind.__name__ for kind in self._refused}
        return [
            f"{name} {'is' if name in always else f'was {count} times'} packed layer by layer, not as a block: {reason}"
            for (name, reason), count in sorted(self.unpacked.items())
        ]

    def run_in_step(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        try:
            return super().run_in_step(calls)
        finally:
            self._packers.clear()

    def layers(self) -> Iterator[torch.nn.Module]:
        yield from self._blocks
        yield from super().layers()

    def meets(self, layer: torch.nn.Module) -> bool:
        return type(layer) not in self._refused

    def together(self, stops: Sequence[Stop]) -> list[Any]:
        block = stops[0].layer
        if block not in self._blocks:
            return super().together(stops)
        name = type(block).__name__
        if len(stops) > 1 and self.meets(block):
            try:
                given = self._at_once(block, stops)
            except torch.OutOfMemoryError:
                raise
            except NotPackable as error:
                if error.always:
                    self._refused.add(type(block))
                self.unpacked[name, str(error)] += 1
            except Exception as error:  # whoever is to blame: by themselves, calls fail alone
                self.unpacked[name, f"{type(error).__name__}: {first_line(error)}"] += 1
            else:
                self.packed[name] += 1
                return given
        return [BY_ITSELF] * len(stops)

    def _at_once(self, block: torch.nn.Module, stops: Sequence[Stop]) -> list[Any]:
        """What the block gives to each call. How it joins image and text is seen when it does, and kept in mind."""
        kind = type(block)
        known = self._image_first.get(kind)
        pack, given = self._launched(block, stops, known or False)
        if pack.over_joint and known is None:
            if not pack.last:
                raise NotPackable("an argument lies over image and text, which it does not join", always=True)
            self._image_first[kind] = image_first = pack.last[-1] == TEXT
            if image_first:
                pack, given = self._launched(block, stops, image_first)
        return given

    def _launched(self, block: torch.nn.Module, stops: Sequence[Stop], image_first: bool) -> tuple[Pack, list[Any]]:
        signature = self._signatures.setdefault(type(block), inspect.signature(type(block).forward))
        bound = [signature.bind(block, *stop.args, **stop.kwargs) for stop in stops]
        calls = [{name: value for name, value in one.arguments.items() if name != "self"} for one in bound]
        packer, pack = self._packer(calls)
        arguments = packer.packed(calls, pack, image_first)
        form = (block, image_first, *_form(arguments))
        trusted = self._trusted.get(form)
        for names in trusted or ():
            pack.join(names)
        with Within(pack, checking=trusted is None, fused=self._fused):
            out = _called(stops[0], bound[0], arguments)
        given = _divided(out, pack, packer.streams.rows)
        settled = not pack.over_joint or type(block) in self._image_first or not pack.last or pack.last[-1] != TEXT
        if trusted is None and settled:
            self._compare(stops, given)
            self._trusted[form] = pack.joins
        return pack, given

    def _packer(self, calls: Sequence[Arguments]) -> tuple[Packer, Pack]:
        streams = streams_of(calls)
        key = (streams.main, streams.rows, tuple(streams.lengths.items()))
        packer = self._packers.get(key)
        if packer is None:
            packer = self._packers[key] = Packer(streams, calls[0][streams.main].device)
        return packer, packer.pack()

    def _compare(self, stops: Sequence[Stop], given: Sequence[Any]) -> None:
        """Refuse a block that gives calls anything else than alone."""
        for stop, packed in zip(stops, given, strict=True):
            alone = stop.forward(*stop.args, **stop.kwargs)
            for one, other in zip(tree_flatten(alone)[0], tree_flatten(packed)[0], strict=True):
                if not _equal(one, other):
                    raise NotPackable("packed, it gives other values than alone", always=True)


def _called(stop: Stop, bound: inspect.BoundArguments, arguments: Arguments) -> Any:
    bound.arguments.update(arguments)
    return stop.forward(*bound.args[1:], **bound.kwargs)


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
        return type(leaf).__name__, id(leaf)
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
    parts = [arrangement.of_row(x, row, 1) for row in range(sum(rows))]
    given, at = [], 0
    for count in rows:
        given.append(parts[at] if count == 1 else torch.cat(parts[at : at + count]))
        at += count
    return given


def _equal(alone: Any, packed: Any) -> bool:
    if not isinstance(alone, torch.Tensor):
        return bool(alone is packed or alone == packed)
    if not isinstance(packed, torch.Tensor) or alone.shape != packed.shape or alone.dtype != packed.dtype:
        return False
    if not alone.numel():
        return True
    tolerance = _TOLERANCE.get(alone.dtype, _HALF) * max(float(alone.double().std(correction=0)), 1e-12)
    return bool((alone.double() - packed.double()).abs().max() <= tolerance)
