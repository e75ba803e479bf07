"""One rank's share of a pack: which tokens of which streams, and how all become one again.

A rank has a contiguous piece of every row's streams. Packed tensors are told by their numbers of tokens, and code of
models does not expect to have none; so where a rank's share is too small, or two of its streams have as many tokens, it
has a few more in a row of their own, the *filler*, which is computed for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count

import torch

from backend.packed.entries import RowEntries
from backend.packed.pack import Arrangement, Pack
from predictors.shards import Share, divided_rows, share_of, shares

Names = tuple[str, ...]
Uses = Collection[tuple[Names, Names]]
"""Attentions: the streams of the queries, and of the keys."""
LEAST_TOKENS = 17
"""Of a stream on a rank: fewer could as well be a number of entries a row."""


def kept_whole(lengths: Mapping[str, tuple[int, ...]], uses: Uses, joins: Collection[Names]) -> frozenset[str]:
    """Streams that each rank has all of, for its rows: those that are only attended to, as texts are.

    Args:
        lengths: tokens of each row, by stream.
        uses: attentions of the layers.
        joins: streams that they put end to end.
    """
    asking = {name for queries, _ in uses for name in queries}
    joined = {name for names in joins for name in names}
    attended = {keys[0] for _, keys in uses if len(keys) == 1}
    found = frozenset(lengths) & attended - asking - joined
    divided = {of_rows for name, of_rows in lengths.items() if name not in found}
    return frozenset(name for name in found if lengths[name] not in divided)


@dataclass(frozen=True)
class AttentionShare:
    """What of one attention a rank computes.

    Attributes:
        queries_here: [tokens] those of rows that no cut divides, row by row, as they lie in its share; ``keys_here``.
        queries_divided: [tokens] those of divided rows; ``keys_divided``.
        here: rows that no cut divides, of queries and of keys, one after another.
        all: the divided rows with the tokens of all ranks, of queries and of keys, one after another.
        query_tokens: of divided rows on each rank; ``key_tokens``.
    """

    queries_here: torch.Tensor
    keys_here: torch.Tensor
    queries_divided: torch.Tensor
    keys_divided: torch.Tensor
    here: tuple[Arrangement, Arrangement]
    all: tuple[Arrangement, Arrangement]
    query_tokens: list[int]
    key_tokens: list[int]


class Shard:
    """The share of one rank in the streams of a launch.

    Args:
        lengths: tokens of each row, by stream.
        whole: streams that are not divided, see `kept_whole`.
        joins: streams that its layers put end to end.
        channels: numbers that must not be numbers of tokens.
        rank: whose share.
        ranks: that have one.
        device: where its tables are.
    """

    def __init__(
        self,
        lengths: Mapping[str, tuple[int, ...]],
        whole: frozenset[str],
        joins: Collection[Names],
        channels: Collection[int],
        rank: int,
        ranks: int,
        device: torch.device,
    ) -> None:
        self.rank, self.ranks, self.device = rank, ranks, device
        self._lengths, self._whole = lengths, whole
        divided = [of_rows for name, of_rows in lengths.items() if name not in whole]
        rows = [sum(of_streams) for of_streams in zip(*divided, strict=True)]
        self._rows = len(rows)
        self._shares = shares(rows, ranks)
        self.divided = divided_rows(self._shares)
        self._parts: dict[str, list[list[Share]]] = {
            name: [
                [
                    ((0, n) if end > begin else (0, 0)) if name in whole else share_of((begin, end), row, n)
                    for (begin, end), row, n in zip(share, rows, of_rows, strict=True)
                ]
                for share in self._shares
            ]
            for name, of_rows in lengths.items()
        }
        self._filler = self._filled(joins, channels)
        self._local = {
            name: tuple([end - begin for begin, end in parts[rank]]) + ((self._filler[name],) * self._has_filler)
            for name, parts in self._parts.items()
        }
        self._arrangements: dict[tuple[tuple[str, str], ...], dict[Names, Arrangement]] = {}
        self._taken: dict[Names, torch.Tensor] = {}
        self._attention: dict[tuple[Names, Names], AttentionShare] = {}

    @property
    def _has_filler(self) -> bool:
        return any(self._filler.values())

    def _filled(self, joins: Collection[Names], channels: Collection[int]) -> dict[str, int]:
        """Tokens of the filler, by stream."""
        own = {name: sum(end - begin for begin, end in parts[self.rank]) for name, parts in self._parts.items()}
        alike = {name: list(self._lengths.values()).index(of_rows) for name, of_rows in self._lengths.items()}
        every = {tuple([alike[name] for name in names]): names for names in [*[(name,) for name in own], *joins]}
        filler = dict.fromkeys(own, 0)
        for more in count(1):
            tokens = {name: n + filler[name] for name, n in own.items()}
            sums = [sum(tokens[name] for name in names) for names in every.values()]
            if min(tokens.values()) >= LEAST_TOKENS and len({*sums, *channels}) == len(every) + len({*channels}):
                return filler
            filler = {name: max(0, LEAST_TOKENS - n) + more * 2 ** alike[name] for name, n in own.items()}
        raise AssertionError

    def pack(self, names: Mapping[str, str], joins: Collection[Names], fused: bool) -> SharePack:
        """The rank's rows as a layer has them.

        Args:
            names: of the streams, by the layer's own names of them.
            joins: what it puts end to end, by its own names.
            fused: see `Pack`.
        """
        own = {name: self._local[first] for name, first in names.items()}
        arrangements = self._arrangements.setdefault(tuple(names.items()), {})
        pack = SharePack(own, self.device, arrangements, fused)
        pack.shard, pack.names = self, names
        for joined in joins:
            pack.join(joined)
        return pack

    def taken(self, x: torch.Tensor, axis: int, names: Names) -> torch.Tensor:
        """The rank's tokens of a tensor that has those of all on an axis: of these streams, end to end."""
        return x.index_select(axis, self._positions_taken(names))

    def entries(self, entries: RowEntries, pack: Pack) -> RowEntries:
        """What rows have entries of, for the rank's pack."""
        values = entries.values
        if self._has_filler:
            of_rows = values.unflatten(0, (entries.fold, self._rows))
            values = torch.cat([of_rows, of_rows[:, :1]], 1).flatten(0, 1)
        return RowEntries(values, pack, entries.fold)

    def tokens(self, names: Names) -> list[int]:
        """Of these streams, how many each rank hands to the others."""
        return [len(self._handed(names, rank)) for rank in range(self.ranks)]

    def kept(self, names: Names) -> torch.Tensor:
        """[tokens] which of the rank's tokens of these streams it hands to the others."""
        found, at = [], 0
        for name in names:
            for row, (begin, end) in enumerate(self._parts[name][self.rank]):
                if self._hands(name, row, self.rank):
                    found.append(torch.arange(at, at + end - begin))
                at += end - begin
            at += self._filler[name]
        return torch.cat(found).to(self.device) if found else self._none()

    def positions(self, names: Names, rank: int) -> torch.Tensor:
        """[tokens] where those that a rank hands over lie among all tokens of these streams."""
        return self._handed(names, rank).to(self.device)

    def attention(self, queries: Names, keys: Names) -> AttentionShare | None:
        """How an attention is divided; None: every row is attended where it lies."""
        if not any(self.divided) or set(keys) <= self._whole:
            return None
        found = self._attention.get((queries, keys))
        if found is None:
            found = self._attention[queries, keys] = self._attended(queries, keys)
        return found

    def _attended(self, queries: Names, keys: Names) -> AttentionShare:
        filler = [False] * self._has_filler
        here = [row for row, cut in enumerate([*self.divided, *filler]) if not cut]
        divided = [row for row, cut in enumerate(self.divided) if cut]
        of_all = [[sum(self._lengths[name][row] for name in names) for row in divided] for names in (queries, keys)]
        of_own = [[sum(self._local[name][row] for name in names) for row in here] for names in (queries, keys)]
        return AttentionShare(
            queries_here=self._own(queries, here),
            keys_here=self._own(keys, here),
            queries_divided=self._own(queries, divided),
            keys_divided=self._own(keys, divided),
            here=(self._one_stream(of_own[0]), self._one_stream(of_own[1])),
            all=(self._one_stream(of_all[0]), self._one_stream(of_all[1])),
            query_tokens=[self._of_divided(queries, rank) for rank in range(self.ranks)],
            key_tokens=[self._of_divided(keys, rank) for rank in range(self.ranks)],
        )

    def _one_stream(self, lengths: Sequence[int]) -> Arrangement:
        return Arrangement(("",), [lengths], self.device)

    def _own(self, names: Names, rows: Sequence[int]) -> torch.Tensor:
        """[tokens] where the tokens of some rows lie in the rank's share, row by row."""
        lengths = [self._local[name] for name in names]
        ends = list(accumulate((n for of_rows in lengths for n in of_rows), initial=0))
        each = len(lengths[0])
        pieces = [torch.arange(ends[at], ends[at + 1]) for row in rows for at in range(row, len(ends) - 1, each)]
        return torch.cat(pieces).to(self.device) if pieces else self._none()

    def _of_divided(self, names: Names, rank: int) -> int:
        return sum(
            end - begin
            for name in names
            for (begin, end), cut in zip(self._parts[name][rank], self.divided, strict=True)
            if cut
        )

    def _hands(self, name: str, row: int, rank: int) -> bool:
        """Whether a rank hands its tokens of a row to the others: of a stream that several have, the first does."""
        first = next((r for r, share in enumerate(self._shares) if share[row][1] > share[row][0]), -1)
        return name not in self._whole or rank == first

    def _handed(self, names: Names, rank: int) -> torch.Tensor:
        found, at = [], 0
        for name in names:
            for row, n in enumerate(self._lengths[name]):
                begin, end = self._parts[name][rank][row]
                if self._hands(name, row, rank):
                    found.append(torch.arange(at + begin, at + end))
                at += n
        return torch.cat(found)

    def _positions_taken(self, names: Names) -> torch.Tensor:
        taken = self._taken.get(names)
        if taken is None:
            found, at = [], 0
            for name in names:
                first = at
                for n, (begin, end) in zip(self._lengths[name], self._parts[name][self.rank], strict=True):
                    found.append(torch.arange(at + begin, at + end))
                    at += n
                found.append(torch.full((self._filler[name],), first))
            taken = self._taken[names] = torch.cat(found).to(self.device)
        return taken

    def _none(self) -> torch.Tensor:
        return torch.empty(0, dtype=torch.int64, device=self.device)


class SharePack(Pack):
    """A rank's share of a pack.

    Attributes:
        shard: which share.
        names: what the shard calls its streams, by their names here.
    """

    shard: Shard
    names: Mapping[str, str]

    def attention(self, queries: Arrangement, keys: Arrangement) -> AttentionShare | None:
        """See `Shard.attention`."""
        mine = [tuple([self.names[name] for name in one.names]) for one in (queries, keys)]
        return self.shard.attention(*mine)
