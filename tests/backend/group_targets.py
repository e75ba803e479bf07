"""What the ranks of the group tests do. Rank 0 does its part in the test."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import torch

from backend.ranks.group import Group, Pieces
from backend.ranks.launch import ranks_from_environment, start_ranks
from tests.waiting import PATIENCE_S
from traces.errors import BadInput


def serve(group: Group) -> None:
    """Do what rank 0 says, as often as it says so."""
    while True:
        order = group.broadcast_object(patient=True)
        DEEDS[order["deed"]](group, **order.get("args", {}))


class Server:
    """A target that is made before the ranks are connected."""

    def __init__(self, device: str, deeds: list[str]) -> None:
        if device != "cpu":
            raise BadInput(f"no {device} here")
        self._deeds = deeds

    def __call__(self, group: Group) -> None:
        for deed in self._deeds:
            DEEDS[deed](group, rank=group.rank)


def pieces(rank: int, size: int, seed: int) -> tuple[Pieces, Pieces, list[torch.Tensor]]:
    """Random pieces of every rank's own data for every other, as all ranks draw them alike.

    Returns what ``rank`` sends, empty tensors for what it receives, and what these should then hold.
    """
    draw = np.random.default_rng(seed)
    dtypes = (torch.float32, torch.bfloat16, torch.int64, torch.uint8)
    sends, receives, expected = [], [], []
    for source in range(size):
        data = torch.from_numpy(draw.integers(0, 200, 5000))
        for target in range(size):
            for _ in range(draw.integers(0, 4) if target != source else 0):
                index = torch.from_numpy(draw.integers(0, len(data), int(draw.integers(0, 3000))))
                piece = data[index].to(dtypes[draw.integers(len(dtypes))])
                if source == rank:
                    sends.append((target, piece))
                if target == rank:
                    receives.append((source, torch.zeros_like(piece)))
                    expected.append(piece)
    return sends, receives, expected


def exchange_pieces(group: Group, seed: int) -> bool:
    """Whether this rank received exactly what the others drew for it."""
    sends, receives, expected = pieces(group.rank, group.size, seed)
    group.exchange(sends, receives)
    return all(torch.equal(got, wanted) for (_, got), wanted in zip(receives, expected, strict=True))


def check_pieces(group: Group, seeds: int) -> None:
    group.traffic.reset()
    correct = [exchange_pieces(group, seed) for seed in range(seeds)]
    traffic = group.traffic
    counted = [traffic.sent_bytes, traffic.received_bytes, traffic.messages]
    group.gather_objects({"correct": correct, "traffic": counted})


def numbers(rank: int) -> torch.Tensor:
    """Integers whose sum float64 would round."""
    return torch.tensor([[2**60 + rank, -(3**rank)], [7 * rank, 1]])


def sum_up(group: Group) -> None:
    group.gather_objects(group.total(numbers(group.rank)).tolist())


def spread(group: Group, source: int) -> None:
    tensor = torch.arange(6.0).reshape(2, 3) * (group.rank + 1)
    group.broadcast(tensor, source)
    said = group.broadcast_object({"from": group.rank, "shape": (1, 2)} if group.rank == source else None, source)
    group.gather_objects([tensor.tolist(), said])


def wait(group: Group, seconds: float) -> None:
    """Every rank but 0 comes late."""
    time.sleep(seconds if group.rank else 0.0)
    group.barrier()


def die(group: Group, rank: int) -> None:
    if group.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    group.barrier()


def stop(group: Group, rank: int) -> None:
    """One rank stops, the next one up waits for it, and rank 0 for that one only."""
    if group.rank == rank:
        os.kill(os.getpid(), signal.SIGSTOP)
    pass_on(group)


def pass_on(group: Group) -> None:
    """A number goes from rank 1 to 2 and so on, and from the last to 0."""
    for source in range(1, group.size):
        target = (source + 1) % group.size
        sends = [(target, torch.ones(1))] if group.rank == source else []
        group.exchange(sends, [(source, torch.zeros(1))] if group.rank == target else [])


def fail(group: Group, rank: int) -> None:
    if group.rank == rank:
        raise BadInput("prompt is empty\nsecond line")
    group.barrier()


DEEDS = {deed.__name__: deed for deed in (check_pieces, sum_up, spread, wait, die, stop, fail)}


def main() -> None:
    """A rank that something else started."""
    with ranks_from_environment(timeout_s=PATIENCE_S) as ranks:
        sum_up(ranks.group)


def orphan() -> None:
    """Start two ranks, stop one, say who they are, and die."""
    ranks = start_ranks(serve, 3, timeout_s=PATIENCE_S)
    os.kill(ranks.processes[1], signal.SIGSTOP)
    print(*ranks.processes.values(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


class StopsItself:
    """A rank that is stopped while it is made."""

    def __init__(self, device: str) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
