"""The patch cache of a transformer: before each block a caching policy says which image tokens go through it.

A block is one transformer block, a unit a group of neighbouring tokens of its main stream (its first argument), of one
row. A unit that is not computed keeps the block's output of the last time it was; its keys and values are kept as well,
so that the computed tokens still attend to the whole row. Other streams go through a block with every row of which
something is computed; a row of which nothing is computed keeps those too. A block of which nothing is computed is not
run. When everything is computed the result is exactly that without a cache.

What is decided for a row depends on nothing but this row, so a request is served the same whoever runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from backend.cache import BlockCache, Part
from backend.cached_state import Member, State
from backend.coroutine import DenoiserCall
from backend.packed.arguments import Packer
from backend.packed.entries import RowEntries
from backend.packed.pack import Arrangement, NotPackable, Pack
from backend.packed.units import Grid, Units, units_of
from backend.packed.within import RowAttention, within
from policies.caching import CachingPolicy, Signals
from policies.caching.contract import Flags, Floats
from policies.caching.step import decide_block, watches_block

Names = tuple[str, ...]
_TRIES = 16
"""Tokens that are computed once more until a pack's numbers of tokens are all different."""


class NoRoom(Exception):  # noqa: N818
    """Some calls have no room in the cache; ``admitted`` says which have, ``units`` how many units each has."""

    def __init__(self, admitted: Sequence[bool], units: Sequence[int]) -> None:
        super().__init__("no room in the cache")
        self.admitted = list(admitted)
        self.units = list(units)


class Given(NamedTuple):
    """What a block gives: for each leaf the streams it is of, or a plain value."""

    leaves: tuple[Any, ...]
    spec: TreeSpec

    @classmethod
    def of(cls, out: Any, pack: Pack) -> Given:
        leaves, spec = tree_flatten(out)
        named = [Streamed(pack.named(leaf.shape[1])) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        return cls(tuple(named), spec)

    @property
    def first(self) -> int:
        """Which leaf is the first tensor."""
        return next(number for number, leaf in enumerate(self.leaves) if isinstance(leaf, Streamed))

    @property
    def streams(self) -> set[str]:
        """All streams that it gives."""
        return {name for leaf in self.leaves if isinstance(leaf, Streamed) for name in leaf.names}


class Streamed(NamedTuple):
    """Stands for a tensor of these streams, end to end."""

    names: Names


class TokenCache(BlockCache):
    """Asks a caching policy and keeps what it reuses, for one transformer.

    Args:
        policy: the executor's own copy.
        budget_bytes: what may be kept; a request that does not fit runs without a cache.
        blocks: the model's, in the order they run.
        patch: side of a unit, latent pixels; 0: whole images.

    Attributes:
        index: of each block.
        given: what blocks are known to give.
    """

    def __init__(self, policy: CachingPolicy, budget_bytes: int, blocks: Sequence[Any], patch: int) -> None:
        super().__init__(policy, budget_bytes, blocks)
        self.patch = patch
        self.index = {block: index for index, block in enumerate(blocks)}
        self.given: dict[torch.nn.Module, Given] = {}
        self._names: dict[str, set[str]] = {}

    def member(self, request_id: str, part: int, entries: int) -> Member:
        """A call in the kept state. The calls of one step (with and without the text) are kept apart, and so are the
        batches they stand in: these follow each other in every step."""
        name = f"{request_id}\0{part}" if part else request_id  # no request can be called so
        self._names.setdefault(request_id, set()).add(name)
        return Member(name, entries, part)

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        for name in self._names.pop(request_id, {request_id}):
            super().forget(name)


class PackedBlock(NamedTuple):
    """A trusted block that has been given calls.

    Attributes:
        layer: the block.
        forward: its own, of arguments by name.
        packer: its streams, and what lies along them.
        pack: all tokens, with all that the block joins.
        arguments: of all tokens.
    """

    layer: torch.nn.Module
    forward: Callable[..., Any]
    packer: Packer
    pack: Pack
    arguments: dict[str, Any]

    @property
    def ambiguous(self) -> bool:
        """Whether its tokens cannot be told from something else by their number."""
        streams = self.packer.streams.lengths
        totals = {sum(of_rows) for of_rows in streams.values()}
        return self.pack.ambiguous or bool(totals & {self.arguments[name].shape[2] for name in streams})

    @property
    def main(self) -> tuple[int, ...]:
        """Main tokens of each row."""
        return self.packer.streams.lengths[self.packer.streams.main]


class CachedPass:
    """One forward of some calls with the cache.

    What is kept has an entry a token of the streams that the blocks join or give, row by row.

    Args:
        cache: of the model.
        calls: all the same part of their steps.
        grid: how the main tokens of each row of a call lie, given the call and their number, and a token's side.
    """

    def __init__(
        self, cache: TokenCache, calls: Sequence[DenoiserCall], grid: Callable[[DenoiserCall, int], tuple[Grid, int]]
    ) -> None:
        self._cache = cache
        self._calls = calls
        self._grid = grid
        self._stack = ExitStack()
        self._begun: _Begun | None = None

    def __enter__(self) -> CachedPass:
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def takes(self, block: PackedBlock) -> bool:
        """Whether a block has a part in the cache: one with the streams of the first one has."""
        begun, streams = self._begun, block.packer.streams
        if begun is None:
            return True
        same = all(streams.lengths.get(name) == lengths for name, lengths in begun.kept.items())
        return same and self._cache.given[block.layer].streams <= begun.kept.keys()

    def run(self, block: PackedBlock, joins: Iterable[Names]) -> list[Any]:
        """What the block gives to each call, computed where the policy says so.

        Args:
            block: the block, and what it is given.
            joins: the streams that it is known to join.

        Raises:
            NoRoom: the budget does not allow all of the calls.
        """
        begun = self._begun = self._begun or self._begin(block, joins)
        cache, state, units = self._cache, begun.state, begun.units
        index, given = cache.index[block.layer], cache.given[block.layer]
        has_output = begun.has_output & (f"block{index}.{given.first}" in state)
        watched, main = watches_block(cache.policy, index), block.packer.streams.main
        tokens = block.arguments[main][0]
        change = np.where(has_output, 0.0, np.inf)
        if watched and has_output.any():
            change = np.where(has_output, self._change(index, tokens, main), np.inf)
        computed = decide_block(cache.policy, begun.signals._replace(block=index, input_change=change))
        part = None
        if 0 < computed.sum() < len(computed) or (computed.any() and block.ambiguous):
            part = _part_of(block, units, computed, joins)
        count = int(computed.sum())
        cache.by_block[index] += count, len(computed) - count
        if count:
            memory = _Memory(begun, block.pack, f"block{index}", part)
            pack, arguments = (block.pack, block.arguments) if part is None else (part.pack, part.arguments)
            with within(RowAttention(pack, memory)):
                leaves = tree_flatten(block.forward(**arguments))[0]
            for number, (leaf, of) in enumerate(zip(leaves, given.leaves, strict=True)):
                if isinstance(of, Streamed):
                    begun.store(f"block{index}.{number}", leaf[0], begun.places(of.names, part))
            if watched:
                fresh = tokens if part is None else tokens.index_select(0, part.tokens[main])
                exact = torch.float64 if fresh.dtype == torch.float64 else torch.float32
                at = begun.places((main,), part)
                begun.store(f"block{index}.input", fresh, at)
                begun.store(f"block{index}.power", fresh.square().mean(1, dtype=exact), at)
        rows = block.packer.streams.rows
        columns = [self._of_calls(f"block{index}.{number}", of, rows) for number, of in enumerate(given.leaves)]
        return [tree_unflatten([column[call] for column in columns], given.spec) for call in range(len(rows))]

    def _of_calls(self, name: str, of: Any, rows: Sequence[int]) -> list[Any]:
        """One leaf of what a block gives, for each call."""
        begun = self._begun
        assert begun is not None
        if not isinstance(of, Streamed):
            return [of] * len(rows)
        return begun.arrangement(of.names).by_call(begun.kept_of(name, of.names)[None], rows)

    def _begin(self, block: PackedBlock, joins: Iterable[Names]) -> _Begun:
        """The calls take their places in the cache at the first block."""
        cache, streams = self._cache, block.packer.streams
        own = {streams.main, *cache.given[block.layer].streams, *(name for names in joins for name in names)}
        kept = {name: lengths for name, lengths in streams.lengths.items() if name in own}
        entries, grids, side, units_of_calls, at = [], [], 0, [], 0
        for call, rows in zip(self._calls, streams.rows, strict=True):
            entries.append(sum(sum(lengths[at : at + rows]) for lengths in kept.values()))
            grid, token_side = self._grid(call, block.main[at])
            side = -(-cache.patch // token_side)
            grids += [grid] * rows
            units_of_calls.append(len(units_of((grid,) * rows, side)))
            at += rows
        members = [
            cache.member(call.request_id, call.part, count) for call, count in zip(self._calls, entries, strict=True)
        ]
        admitted = cache.admit(members)
        if not all(admitted):
            raise NoRoom(admitted, units_of_calls)
        parts = [Part(member, call.step, call.steps) for member, call in zip(members, self._calls, strict=True)]
        state, known = self._stack.enter_context(cache.arranged(parts))
        firsts = np.cumsum([0, *entries])[:-1]
        return _Begun(
            kept=kept,
            state=state,
            units=units_of(tuple(grids), side),
            has_output=np.repeat(known.numpy()[firsts], units_of_calls),
            signals=cache.signals(parts, units_of_calls),
            device=block.arguments[streams.main].device,
        )

    def _change(self, index: int, tokens: torch.Tensor, main: str) -> Floats:
        """Relative mean squared change of each unit's input since its kept output was computed, [units]."""
        begun = self._begun
        assert begun is not None
        if f"block{index}.input" not in begun.state:
            return np.full(len(begun.units), np.inf)
        reference, power = (begun.kept_of(f"block{index}.{name}", (main,)) for name in ("input", "power"))
        change = (tokens - reference).square().mean(1, dtype=power.dtype)
        sums = power.new_zeros(2, len(begun.units)).index_add_(1, begun.of_token, torch.stack((change, power)))
        return np.asarray((sums[0] / sums[1].clamp_min(1e-30)).double().cpu().numpy())


class _Begun:
    """The calls of a pass in the cache.

    Args:
        kept: the streams of which something is kept, tokens of each row.
        state: what is kept: [tokens of these streams, row by row, ...].
        units: of the main tokens.
        has_output: [units] whether anything is kept.
        signals: before any block is known.
        device: where the tokens are.
    """

    def __init__(
        self,
        kept: dict[str, tuple[int, ...]],
        state: State,
        units: Units,
        has_output: Flags,
        signals: Signals,
        device: torch.device,
    ) -> None:
        self.kept = kept
        self.state = state
        self.units = units
        self.has_output = has_output
        self.signals = signals
        self.of_token = torch.from_numpy(units.of_token).to(device)
        joint = Arrangement(tuple(kept), list(kept.values()), device)
        self._count = joint.tokens
        entry = torch.arange(self._count, device=device)
        places = joint.arranged(entry).split([sum(lengths) for lengths in kept.values()])
        self._places = dict(zip(kept, places, strict=True))

    def arrangement(self, names: Names) -> Arrangement:
        """These streams end to end."""
        return Arrangement(names, [self.kept[name] for name in names], self.of_token.device)

    def places(self, names: Names, part: _PartOf | None = None) -> torch.Tensor:
        """Entries of the tokens of these streams end to end, of those that are computed."""
        found = [
            self._places[name] if part is None else self._places[name].index_select(0, part.tokens[name])
            for name in names
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    def store(self, name: str, fresh: torch.Tensor, at: torch.Tensor) -> None:
        """Keep what was computed."""
        if name not in self.state:
            self.state[name] = fresh.new_zeros(self._count, *fresh.shape[1:])
        self.state[name].index_copy_(0, at, fresh)

    def kept_of(self, name: str, names: Names) -> torch.Tensor:
        """What is kept of all tokens of these streams end to end."""
        return self.state[name].index_select(0, self.places(names))


class _PartOf(NamedTuple):
    """Some of a pack's tokens: their indices by stream, their pack, and the arguments for them alone."""

    tokens: dict[str, torch.Tensor]
    pack: Pack
    arguments: dict[str, Any]


def _part_of(block: PackedBlock, units: Units, computed: Flags, joins: Iterable[Names]) -> _PartOf:
    """The tokens of some units, and the other streams of their rows.

    Packed tensors are told by their number of tokens. Where two have the same the last main token is computed once
    more, which changes nothing: what attends to it finds it in the memory.
    """
    streams, device = block.packer.streams, block.pack.device
    main, rows = streams.main, len(block.main)
    counts = np.bincount(units.row[computed], units.tokens[computed], minlength=rows).astype(int)
    active = counts > 0
    chosen = {name: np.flatnonzero(np.repeat(active, of_rows)) for name, of_rows in streams.lengths.items()}
    chosen[main] = np.flatnonzero(computed[units.of_token])
    lengths = {name: tuple((active * np.array(of_rows)).tolist()) for name, of_rows in streams.lengths.items()}
    channels = {block.arguments[name].shape[2] for name in lengths}
    for _ in range(_TRIES):
        lengths[main] = tuple(counts.tolist())
        try:
            pack = Pack(lengths, device, fused=block.pack.fused)
            for names in joins:
                pack.join(names)
            if not channels & {sum(of_rows) for of_rows in lengths.values()}:
                break
        except NotPackable:
            pass
        counts[np.flatnonzero(active)[-1]] += 1
        chosen[main] = np.append(chosen[main], chosen[main][-1])
    else:
        raise NotPackable("streams of equal lengths", ambiguous=True)
    tokens = {name: torch.from_numpy(at).to(device) for name, at in chosen.items()}

    def chosen_of(leaf: Any) -> Any:
        if isinstance(leaf, RowEntries):
            return RowEntries(leaf.values, pack, leaf.fold)
        axis, names = block.packer.along.get(id(leaf), (0, ()))
        if not names:
            return leaf
        starts = np.cumsum([0, *(sum(streams.lengths[name]) for name in names)]).tolist()
        at = torch.cat([tokens[name] + start for name, start in zip(names, starts, strict=False)])
        return leaf.index_select(axis, at)

    arguments = {
        name: value.index_select(1, tokens[name]) if name in tokens else tree_map(chosen_of, value)
        for name, value in block.arguments.items()
    }
    return _PartOf(tokens, pack, arguments)


class _Memory:
    """Keys and values of the tokens that a block does not compute. See `backend.packed.within.KeyMemory`."""

    def __init__(self, begun: _Begun, whole: Pack, name: str, part: _PartOf | None) -> None:
        self._begun = begun
        self._whole = whole
        self._name = name
        self._part = part
        self._count = 0

    def complete(
        self, keys: Arrangement, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[Arrangement, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        begun, names = self._begun, keys.names
        if not begun.kept.keys() >= set(names) or self._whole.of_names(names) is None:
            return keys, key, value, mask  # a stream that goes through the block with every row
        name, at = f"{self._name}.attention{self._count}", begun.places(names, self._part)
        self._count += 1
        key, value = (
            self._all(f"{name}.{which}", x[0].transpose(0, 1), at, names).transpose(0, 1)[None]
            for which, x in (("key", key), ("value", value))
        )
        if mask is not None and mask.shape[-1] == keys.tokens:
            if mask.numel() != keys.tokens:
                raise NotPackable("a mask of every pair of tokens", always=True)
            mask = self._all(f"{name}.mask", mask.flatten(), at, names).view(*mask.shape[:-1], -1)
        whole = self._whole.of_names(names)
        assert whole is not None
        return whole, key, value, mask

    def _all(self, name: str, fresh: torch.Tensor, at: torch.Tensor, names: Names) -> torch.Tensor:
        self._begun.store(name, fresh, at)
        return fresh if self._part is None else self._begun.kept_of(name, names)
