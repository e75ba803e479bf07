"""A forward that several ranks run together, each for its share of the tokens.

Every rank goes through the forward with all calls, and computes what stands beside the blocks by itself: it is little.
At the blocks the ranks agree on what they are about to do: only if all come to the same blocks with the same numbers of
tokens, and know them well enough, are their tokens divided. Else each rank does the rest of the forward for itself,
learns, and they agree the next time. So ranks that know different things, or of which one has failed on its way, never
wait for each other in vain. A rank that fails while tokens are divided leaves, and the others see that it has left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from backend.packed.entries import RowEntries
from backend.packed.pack import NotPackable
from backend.packed.shard import Names, Shard, SharePack, kept_whole
from backend.ranks.group import Pieces, RankLost
from backend.recent import Recent

_END, _ROWS, _ALONE = "end", "end of rows", "alone"
_SHARDS = 16
"""Shares that are kept: a composition has one to four, and stays for some steps."""


class Exchanging(Protocol):
    """Ranks that divide a forward, as one of them sees them: a `backend.ranks.group.Group`, or a part of one."""

    rank: int
    size: int

    def exchange(self, sends: Pieces, receives: Pieces) -> None: ...


class Layers(NamedTuple):
    """Layers that pack alike.

    Attributes:
        names: of their streams, by their own names of them.
        joins: streams that they put end to end, by their own names.
        attended: their attentions, see `Pack.attended`.
    """

    names: Mapping[str, str]
    joins: frozenset[Names]
    attended: frozenset[tuple[Names, Names, str]]

    def named(self, names: Names) -> Names:
        """Names of streams, from the layers' own ones."""
        return tuple([self.names[name] for name in names])


class Division:
    """How one rank takes part in forwards of several ranks.

    Args:
        group: the ranks.
        lost: called when another rank is lost.
        failed: called when this rank fails while the others wait for it.

    Attributes:
        exchanges: in which tensors of divided tokens were sent, so far.
        sent_bytes: of such tensors.
        divided: how often tokens were divided, and ``undivided``: how often ranks did not agree.
        by_rows: all ranks have found that the model's tokens cannot be divided, whatever is asked.
    """

    def __init__(
        self,
        group: Exchanging,
        lost: Callable[[], None] = lambda: None,
        failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._group = group
        self._lost, self._failed = lost, failed
        self._agreeing = False
        self._shards: Recent[Any, Shard] = Recent(_SHARDS)
        self.exchanges = self.sent_bytes = 0
        self.divided = self.undivided = 0
        self.by_rows = False

    @contextmanager
    def forward(self, divisible: Callable[[], bool]) -> Iterator[None]:
        """Go through a forward, as all ranks of the group do. What goes wrong in it comes out.

        Args:
            divisible: whether the model has blocks whose tokens could be divided, as far as is known at its end.
        """
        self._agreeing = True
        try:
            yield
        finally:
            by_rows = not divisible()
            agreed = self._agree(_ROWS if by_rows else _END)
            self.by_rows |= agreed and by_rows

    def alone(self) -> None:
        """Layers come that this rank does not know yet."""
        self._agree(_ALONE)
        self._agreeing = False

    def shard(
        self,
        what: Sequence[str],
        lengths: Mapping[str, tuple[int, ...]],
        groups: Sequence[Layers],
        channels: frozenset[int],
        device: torch.device,
    ) -> Shard | None:
        """This rank's share of the tokens that some layers come next for; None: it computes all of them.

        Args:
            what: names of the layers.
            lengths: tokens of each row, by stream.
            groups: how they pack, the first layer's first.
            channels: of the streams.
            device: where tokens are.
        """
        if not self._agreeing:
            return None
        uses = {(group.named(q), group.named(k)) for group in groups for q, k, _ in group.attended}
        joins = {group.named(names) for group in groups for names in group.joins}
        if any(mask == "pairs" for group in groups for *_, mask in group.attended):
            self.alone()
            return None
        whole = kept_whole(lengths, uses, joins)
        key = (tuple(lengths.items()), whole, frozenset(joins), channels, device)
        content = [list(what), list(lengths.items()), sorted(whole), sorted(joins), sorted(uses)]
        if not self._agree(repr(content)):
            return None
        found = self._shards.get(key)
        if found is None:
            rank, ranks = self._group.rank, self._group.size
            found = Shard(lengths, whole, joins, channels, rank=rank, ranks=ranks, device=device)
            self._shards.keep(key, found)
        self.divided += 1
        return found

    @contextmanager
    def computing(self) -> Iterator[None]:
        """While tokens are divided. A lost rank comes out as `RankLost`."""
        try:
            yield
        except RankLost:
            self._leave()
            raise
        except BaseException as error:
            self._agreeing = False
            self._failed(error)
            raise

    def exchange(self, sends: Pieces, receives: Pieces) -> None:
        """Send tensors to other ranks and receive theirs."""
        self._group.exchange(sends, receives)
        self.exchanges += 1
        self.sent_bytes += sum(tensor.nbytes for _, tensor in sends)

    def gathered(self, x: torch.Tensor, pack: SharePack, layers: Layers) -> torch.Tensor:
        """[1, tokens of all ranks, ...] of the tokens that each rank has."""
        arrangement = pack.arrangement(x.shape[1]) if x.ndim > 1 and len(x) == 1 else None
        if arrangement is None:
            raise NotPackable(f"a result of the shape {tuple(x.shape)}")
        names, shard = layers.named(arrangement.names), pack.shard
        own = x[0].index_select(0, shard.kept(names)).contiguous()
        counts = shard.tokens(names)
        peers = [peer for peer in range(self._group.size) if peer != self._group.rank]
        parts = {peer: own.new_empty((counts[peer], *own.shape[1:])) for peer in peers}
        self.exchange([(peer, own) for peer in peers], list(parts.items()))
        parts[self._group.rank] = own
        every = own.new_empty((sum(counts), *own.shape[1:]))
        for rank, part in parts.items():
            every.index_copy_(0, shard.positions(names, rank), part)
        return every[None]

    def _agree(self, what: str) -> bool:
        """Whether all ranks are about to do the same. If not, nobody asks again in this forward."""
        if not self._agreeing:
            return False
        digest = hashlib.blake2b(what.encode(), digest_size=8).digest()
        mine = torch.frombuffer(bytearray(digest), dtype=torch.int64)
        peers = [peer for peer in range(self._group.size) if peer != self._group.rank]
        its = [torch.empty_like(mine) for _ in peers]
        try:
            self._group.exchange([(peer, mine) for peer in peers], list(zip(peers, its, strict=True)))
        except RankLost:
            self._leave()
            return False
        agreed = all(torch.equal(mine, other) for other in its)
        if not agreed or what in (_END, _ROWS):
            self.undivided += not agreed
            self._agreeing = False
        return agreed

    def _leave(self) -> None:
        self._agreeing = False
        self._lost()


def shared(
    arguments: dict[str, Any],
    pack: SharePack,
    along: Mapping[int, tuple[int, Names]],
    streams: Sequence[str],
    layers: Layers,
) -> dict[str, Any]:
    """Packed arguments of layers for a rank's share.

    Args:
        arguments: by name, of all ranks.
        pack: the rank's share.
        along: see `backend.packed.arguments.Packer.along`.
        streams: which arguments are streams.
        layers: whose.
    """

    def part(leaf: Any) -> Any:
        if isinstance(leaf, RowEntries):
            return pack.shard.entries(leaf, pack)
        found = along.get(id(leaf)) if isinstance(leaf, torch.Tensor) else None
        if found is None:
            return leaf
        axis, names = found
        return pack.shard.taken(leaf, axis, layers.named(names))

    return {
        name: pack.shard.taken(value, 1, layers.named((name,)))
        if name in streams
        else tree_map(part, value, is_leaf=lambda leaf: isinstance(leaf, RowEntries))
        for name, value in arguments.items()
    }


def all_tokens(division: Division, out: Any, pack: SharePack, layers: Layers) -> Any:
    """What layers give, with the tokens of all ranks."""
    leaves, spec = tree_flatten(out)
    every = [division.gathered(leaf, pack, layers) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    return tree_unflatten(every, spec)
