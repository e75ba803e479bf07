"""Attention of a pack that is divided over ranks: rows on one rank there, divided rows by heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from backend.kernels.attention import attend
from backend.packed.pack import Arrangement, NotPackable
from backend.packed.shard import AttentionShare, SharePack
from backend.packed.within import RowAttention, rows_apart
from backend.ranks.group import Pieces
from predictors.shards import even_parts

Exchange = Callable[[Pieces, Pieces], None]
_Some = Callable[..., torch.Tensor] | None
"""Attention of rows of equal lengths; None: in whichever way suits the device."""


class ShardAttention(RowAttention):
    """Attention of one rank within the rows of a pack of which it has a share.

    Args:
        pack: its share.
        exchange: sends tensors to other ranks and receives theirs.
    """

    pack: SharePack

    def __init__(self, pack: SharePack, exchange: Exchange) -> None:
        super().__init__(pack)
        self._exchange = exchange

    def attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> torch.Tensor:
        share = None if is_causal else self._share(query, key, attn_mask)
        if share is None:
            return super().attention(query, key, value, attn_mask, dropout_p, is_causal, **more)
        if more.pop("enable_gqa", False):
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        if attn_mask is None and not any(more.values()):
            return self._attended(None, query, key, value, None, share=share)

        def some(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            return scaled_dot_product_attention(q, k, v, attn_mask=mask, **more)

        return self._attended(some, query, key, value, attn_mask, share=share)

    def row_by_row(
        self,
        attention: Callable[..., torch.Tensor],
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        share = self._share(query, key, mask)
        if share is None:
            return super().row_by_row(attention, query, key, value, mask)
        return self._attended(attention, query, key, value, mask, share=share)

    def _share(self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> AttentionShare | None:
        return self.pack.attention(*self._arrangements(query, key, mask))

    def _attended(
        self,
        some: _Some,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        share: AttentionShare,
    ) -> torch.Tensor:
        out = query.new_empty((*query.shape[:3], value.shape[-1]))
        if len(share.queries_here):
            q, k, v = _chosen(query, key, value, share.queries_here, share.keys_here)
            own = _of_tokens(mask, query, key, share.queries_here, share.keys_here)
            out.index_copy_(2, share.queries_here, self._of_rows(some, q, k, v, own, rows=share.here))
        q, k, v = _chosen(query, key, value, share.queries_divided, share.keys_divided)
        own = _of_tokens(mask, query, key, share.queries_divided, share.keys_divided)
        out.index_copy_(2, share.queries_divided, self._by_heads(some, q, k, v, own, share=share))
        return out

    def _of_rows(
        self,
        some: _Some,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        rows: tuple[Arrangement, Arrangement],
    ) -> torch.Tensor:
        """[1, heads, tokens, channels] of rows that stand one after another."""
        queries, keys = rows
        if some is not None:
            return rows_apart(some, q, k, v, mask, rows)
        own_q, own_k, own_v = (x[0].transpose(0, 1) for x in (q, k, v))
        return attend(own_q, own_k, own_v, queries.segments, keys.segments, self.pack.fused).transpose(0, 1)[None]

    def _by_heads(
        self,
        some: _Some,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        share: AttentionShare,
    ) -> torch.Tensor:
        """The rank's tokens of divided rows: all ranks' tokens come here for some heads, and go back attended."""
        shard = self.pack.shard
        of_rank = even_parts(q.shape[1], shard.ranks)
        mine = of_rank[shard.rank]
        channels, v_channels = q.shape[-1], v.shape[-1]
        given = [
            torch.cat([x.flatten() for x in parts])
            for parts in zip(*[x.split(of_rank, 1) for x in (q, k, v)], strict=True)
        ]
        sizes = [
            (mine * n * channels, mine * m * channels, mine * m * v_channels)
            for n, m in zip(share.query_tokens, share.key_tokens, strict=True)
        ]
        masks = self._masks(mask, of_rank, share)
        received = self._swapped(given, [sum(each) for each in sizes])
        columns = zip(*[x.split(each) for x, each in zip(received, sizes, strict=True)], strict=True)
        forms = ((share.query_tokens, channels), (share.key_tokens, channels), (share.key_tokens, v_channels))
        q, k, v = (
            torch.cat([x.view(1, mine, n, width) for x, n in zip(column, tokens, strict=True)], 2)
            for column, (tokens, width) in zip(columns, forms, strict=True)
        )
        out = (
            self._of_rows(some, q, k, v, masks, rows=share.all) if mine else q.new_empty((1, 0, q.shape[2], v_channels))
        )
        own = share.query_tokens[shard.rank]
        back = self._swapped(
            [x.flatten() for x in out.split(share.query_tokens, 2)], [own * heads * v_channels for heads in of_rank]
        )
        return torch.cat([x.view(1, heads, own, v_channels) for x, heads in zip(back, of_rank, strict=True)], 1)

    def _masks(self, mask: torch.Tensor | None, of_rank: Sequence[int], share: AttentionShare) -> torch.Tensor | None:
        """A mask of the keys of divided rows, for all ranks' tokens and the rank's heads."""
        shard = self.pack.shard
        if mask is None:
            return None
        mask = mask[(None,) * (4 - mask.ndim)]
        both = mask.shape[-2] > 1
        if both:  # pairs of which both count, see `backend.packed.within.mask_of`
            mask = mask.diagonal(dim1=-2, dim2=-1)[..., None, :].contiguous()
        by_head = mask.shape[1] > 1
        given = mask.split(of_rank, 1) if by_head else [mask] * shard.ranks
        heads = of_rank[shard.rank] if by_head else 1
        plain = [x.flatten().view(torch.uint8) if x.dtype == torch.bool else x.flatten() for x in given]
        parts = self._swapped(plain, [heads * n for n in share.key_tokens])
        parts = [x.view(torch.bool) if mask.dtype == torch.bool else x for x in parts]
        every = torch.cat([x.view(1, heads, 1, n) for x, n in zip(parts, share.key_tokens, strict=True)], -1)
        return every.transpose(-1, -2) * every if both else every

    def _swapped(self, given: Sequence[torch.Tensor], numbers: Sequence[int]) -> list[torch.Tensor]:
        """``given[p]`` goes to rank p; what rank p gives, of so many numbers."""
        rank = self.pack.shard.rank
        peers = [peer for peer in range(self.pack.shard.ranks) if peer != rank]
        received = [given[rank] if peer == rank else given[0].new_empty(n) for peer, n in enumerate(numbers)]
        self._exchange([(p, given[p].contiguous()) for p in peers], [(p, received[p]) for p in peers])
        return received


def _of_tokens(
    mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor | None:
    """A mask for some of its tokens."""
    if mask is None:
        return None
    if mask.ndim > 1 and mask.shape[-2] == query.shape[2]:
        mask = mask.index_select(-2, queries)
    return mask.index_select(-1, keys) if mask.shape[-1] == key.shape[2] else mask


def _chosen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if query.shape[0] != 1:
        raise NotPackable(f"attention of {tuple(query.shape)}")
    return query.index_select(2, queries), key.index_select(2, keys), value.index_select(2, keys)
