"""A forward whose rows are divided: each rank has some of every call's rows, and runs them by itself.

For UNets and for models that are not packed. Requests, pictures of a request and the two rows of guidance are rows; so
this is data parallelism, and CFG parallelism of one guided request. A call of one row is one rank's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from backend.coroutine import DenoiserCall
from backend.merge import Mixer, Rows, rows_in, some_rows
from backend.ranks.heartbeat import first_line
from backend.ranks.subgroup import Subgroup
from predictors.shards import row_cuts


class RowsFailed(RuntimeError):  # noqa: N818 - named for what it is
    """A rank could not run its rows; the message is its own."""


class CallRows(NamedTuple):
    """Rows ``begin`` to ``end`` of the call number ``call``."""

    call: int
    begin: int
    end: int


def parts_of(calls: Sequence[DenoiserCall], ranks: int) -> list[list[CallRows]]:
    """Which rows of which calls are each rank's. The first rank has some."""
    rows = [rows_in(call) for call in calls]
    weights = [weight for call, row in zip(calls, rows, strict=True) for weight in [_weight(call)] * row.count]
    ends = row_cuts(weights, ranks)
    starts = list(accumulate((row.count for row in rows), initial=0))
    made: list[list[CallRows]] = []
    for begin, end in zip((0, *ends), ends, strict=False):
        own = [CallRows(i, max(begin - s, 0), min(end - s, rows[i].count)) for i, s in enumerate(starts[:-1])]
        made.append([part for part in own if part.begin < part.end])
    return made


def run_rows(mixer: Mixer, calls: Sequence[DenoiserCall], group: Subgroup) -> list[Any]:
    """The outputs of calls of one `Mixer.key`, on the first rank; the others get none. All ranks call it alike.

    Raises:
        RowsFailed: a rank could not.
        RankLost: one is lost.
    """
    parts = parts_of(calls, group.size)
    mine = parts[group.rank]
    failed: Exception | None = None
    outputs: list[Any] = []
    try:
        if mine:
            outputs = mixer.run([some_rows(calls[part.call], slice(part.begin, part.end)) for part in mine])
    except Exception as error:
        failed = error
    why = "" if failed is None else f"{type(failed).__name__}: {first_line(failed)}"
    leaves = [tree_flatten(output)[0] for output in outputs]
    said = group.gather_objects([why, [[[str(x.dtype)[6:], list(x.shape)] for x in one] for one in leaves]])
    if failed is not None:
        raise failed
    for rank, (why, _) in enumerate(said):
        if why:
            raise RowsFailed(f"rank {rank}: {why}")
    if group.rank:
        group.exchange([(0, x.contiguous()) for one in leaves for x in one], [])
        return []
    received = {
        rank: [[_empty(leaves[0][0], *form) for form in one] for one in said[rank][1]] for rank in range(1, group.size)
    }
    group.exchange([], [(rank, x) for rank, of_rank in received.items() for one in of_rank for x in one])
    received[0] = leaves
    spec = tree_flatten(outputs[0])[1]
    by_call: list[list[list[torch.Tensor]]] = [[] for _ in calls]
    for rank in range(group.size):
        for part, one in zip(parts[rank], received[rank], strict=True):
            by_call[part.call].append(one)
    return [tree_unflatten([torch.cat(column) for column in zip(*of_call, strict=True)], spec) for of_call in by_call]


def _empty(like: torch.Tensor, dtype: str, shape: list[int]) -> torch.Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)


def _weight(call: DenoiserCall) -> int:
    """Numbers in a row of the call's sample."""
    rows: Rows = rows_in(call)
    sample = next(x for x in (*call.args, *call.kwargs.values()) if isinstance(x, torch.Tensor) and x.ndim)
    return sample.numel() // max(1, rows.count)
