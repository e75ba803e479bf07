"""Ranks that are threads of this process: exact, counted, and without the start of a process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import torch

from backend.ranks.group import Pieces
from tests.waiting import PATIENCE_S


class ThreadRank:
    """One of ``size`` ranks; ``sent`` has a queue for every pair."""

    def __init__(self, rank: int, size: int, sent: dict[tuple[int, int], queue.SimpleQueue[torch.Tensor]]) -> None:
        self.rank, self.size = rank, size
        self._sent = sent

    def exchange(self, sends: Pieces, receives: Pieces) -> None:
        for peer, tensor in sends:
            assert tensor.is_contiguous()
            self._sent[self.rank, peer].put(tensor.clone())
        for peer, tensor in receives:
            given = self._sent[peer, self.rank].get(timeout=PATIENCE_S)
            assert given.shape == tensor.shape
            assert given.dtype == tensor.dtype
            tensor.copy_(given)


def on_threads(ranks: int, work: Callable[[ThreadRank], Any]) -> list[Any]:
    """What ``work`` gives each rank. Raises what the first of them does that fails."""
    sent: dict[tuple[int, int], queue.SimpleQueue[torch.Tensor]] = {
        (one, other): queue.SimpleQueue() for one in range(ranks) for other in range(ranks)
    }
    found: list[Any] = [None] * ranks
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            with torch.no_grad():
                found[rank] = work(ThreadRank(rank, ranks, sent))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found
