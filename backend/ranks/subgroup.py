"""Some ranks of a replica, among themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from backend.ranks.group import Group, Pieces


class Subgroup:
    """Ranks of a group, numbered anew in the order given.

    Args:
        group: as one of them sees it.
        ranks: which, the first one first.
    """

    def __init__(self, group: Group, ranks: Sequence[int]) -> None:
        self._group, self._ranks = group, list(ranks)
        self.rank = self._ranks.index(group.rank)
        self.size = len(self._ranks)

    def exchange(self, sends: Pieces, receives: Pieces) -> None:
        """See `Group.exchange`."""
        given, taken = ([(self._ranks[peer], tensor) for peer, tensor in pieces] for pieces in (sends, receives))
        self._group.exchange(given, taken)

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's JSON-able ``value``, by rank, on every rank, as JSON gives it back."""
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        peers = [peer for peer in range(self.size) if peer != self.rank]
        length, lengths = torch.tensor([content.numel()]), {peer: torch.zeros(1, dtype=torch.int64) for peer in peers}
        self.exchange([(peer, length) for peer in peers], list(lengths.items()))
        every = {peer: torch.empty(int(lengths[peer]), dtype=torch.uint8) for peer in peers}
        self.exchange([(peer, content) for peer in peers], list(every.items()))
        every[self.rank] = content
        return [json.loads(every[rank].numpy().tobytes()) for rank in range(self.size)]
