"""The ranks of one replica and what they send each other.

Everything is made of one primitive, an exchange of tensors between pairs of ranks: one batch of sends and receives,
bounded in time, counted to the byte. Sums, broadcasts and gathers are exchanges too: between the few ranks of a
replica the direct way has the lowest latency, and there is one place that can time out, break or be counted.

The process groups are plain objects with a store of their own; torch's global default group is neither needed nor
touched, so a replica that lost a rank can be started again in the same process. CPU tensors travel by gloo and CUDA
tensors by NCCL: control data never waits for a GPU.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist

from backend.ranks.heartbeat import Heartbeat, RankLost, first_line
from backend.ranks.transport import gloo, nccl

__all__ = ["Group", "OneRank", "Pieces", "ProcessGroup", "RankLost", "Traffic"]

Pieces = Sequence[tuple[int, torch.Tensor]]
"""(peer, contiguous tensor) pairs.

Sender and receiver agree on their number, order, sizes and dtypes, as both have planned the same step. Nothing checks
it: gloo ends the receiver's process if more comes than it expects.
"""

_PATIENT_POLL_S = 1e-4, 0.01
"""The shortest and the longest pause between two looks of a rank that waits patiently: an eighth of its wait so far, so
that the next step's order is seen at once and the next request's costs nothing to wait for."""
_NCCL_POLL_S = 20e-6


@dataclass
class Traffic:
    """What one rank has sent and received. Bytes are those of the tensors, without the transport's headers.

    Attributes:
        sent_bytes: bytes sent, once a receiver.
        received_bytes: bytes received.
        messages: tensors sent and tensors received.
        waited_s: seconds in exchanges, from their start until the last tensor was there. Patience is not counted.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    messages: int = 0
    waited_s: float = 0.0

    def reset(self) -> None:
        """Count from zero."""
        self.sent_bytes = self.received_bytes = self.messages = 0
        self.waited_s = 0.0


class Group(Protocol):
    """One rank's view of the ranks of its replica. All ranks make the same calls in the same order.

    A call that needs another rank raises `RankLost` once one is lost, at the latest when it has waited for the group's
    timeout. From then on every such call does.

    Attributes:
        rank: 0 .. size - 1.
        size: number of ranks.
        device: where this rank computes.
        traffic: what this rank has sent and received.
    """

    rank: int
    size: int
    device: torch.device
    traffic: Traffic

    def exchange(self, sends: Pieces, receives: Pieces) -> None:
        """Send and receive tensors; receives are written in place. Empty tensors are not sent.

        Each rank calls it, with empty lists if it has nothing to send or receive.
        """

    def total(self, numbers: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks of CPU int64 ``numbers``, of one shape everywhere. Exact, so the same on every rank."""

    def broadcast(self, tensor: torch.Tensor, source: int = 0) -> None:
        """Write ``source``'s contiguous ``tensor`` into that of every rank, of the same shape and dtype."""

    def broadcast_object(self, value: Any = None, source: int = 0, patient: bool = False) -> Any:
        """``source``'s JSON-able ``value``, on every rank, as JSON gives it back.

        A receiver that is ``patient`` waits for as long as all ranks live: between requests, for the next one.
        """

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's JSON-able ``value``, by rank, on every rank, as JSON gives it back."""

    def barrier(self, patient: bool = False) -> None:
        """Wait until every rank is here; if ``patient``, for as long as all live: while they load their models."""


class OneRank:
    """The group of one rank: nothing to send, nobody to wait for."""

    rank = 0
    size = 1

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.traffic = Traffic()

    def exchange(self, sends: Pieces, receives: Pieces) -> None:
        _check_pieces(self, [*sends, *receives])

    def total(self, numbers: torch.Tensor) -> torch.Tensor:
        _check_numbers(numbers)
        return numbers.clone()

    def broadcast(self, tensor: torch.Tensor, source: int = 0) -> None:
        _check_source(self, source)

    def broadcast_object(self, value: Any = None, source: int = 0, patient: bool = False) -> Any:
        _check_source(self, source)
        return json.loads(json.dumps(value))

    def gather_objects(self, value: Any) -> list[Any]:
        return [json.loads(json.dumps(value))]

    def barrier(self, patient: bool = False) -> None:
        pass


class ProcessGroup:
    """Ranks in processes of their own, by torch.distributed. `backend.ranks.launch` makes them.

    Args:
        store: the group's store, the same on all ranks and used for this group only.
        rank: this rank.
        size: number of ranks, at least 2.
        timeout_s: the longest wait for another rank.
        heartbeat: this rank's; stopped by `close`.
        device: ``cpu``, or this rank's CUDA device, which adds NCCL.
        loopback: all ranks are on this machine.

    Raises:
        RankLost: the ranks cannot be connected.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        timeout_s: float,
        heartbeat: Heartbeat,
        device: str = "cpu",
        loopback: bool = True,
    ) -> None:
        self.rank, self.size, self.timeout_s = rank, size, timeout_s
        self.device = torch.device(device)
        self.traffic = Traffic()
        self._heartbeat = heartbeat
        self._store = dist.PrefixStore("group", store)
        self._announced = self._own_announced = 0
        self._closed = False
        self._gloo: Any = None
        self._nccl: Any = None
        try:
            self._gloo = gloo(dist.PrefixStore("gloo", store), rank, size, timeout_s, loopback)
            if self.device.type == "cuda":
                self._nccl = nccl(dist.PrefixStore("nccl", store), rank, size, timeout_s, self.device)
        except RuntimeError as error:
            raise RankLost(heartbeat.broken(f"rank {rank} cannot connect ({first_line(error)})")) from error

    def exchange(self, sends: Pieces, receives: Pieces) -> None:
        _check_pieces(self, [*sends, *receives])
        self._exchange(sends, receives)

    def total(self, numbers: torch.Tensor) -> torch.Tensor:
        _check_numbers(numbers)
        every = numbers.new_empty((self.size, *numbers.shape))
        every[self.rank] = numbers
        own = every[self.rank]
        self._exchange([(p, own) for p in self._peers()], [(p, every[p]) for p in self._peers()])
        return every.sum(0)

    def broadcast(self, tensor: torch.Tensor, source: int = 0) -> None:
        _check_source(self, source)
        _check_pieces(self, [(peer, tensor) for peer in self._peers()])
        self._from(source, tensor)

    def broadcast_object(self, value: Any = None, source: int = 0, patient: bool = False) -> Any:
        _check_source(self, source)
        content = _as_bytes(value) if self.rank == source else torch.empty(0, dtype=torch.uint8)
        self._announce([source], patient)
        length = torch.tensor([content.numel()])
        self._from(source, length)
        if self.rank != source:
            content = torch.empty(int(length), dtype=torch.uint8)
        self._from(source, content)
        return _from_bytes(content)

    def gather_objects(self, value: Any) -> list[Any]:
        content = _as_bytes(value)
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = content.numel()
        lengths = self.total(lengths)
        every = [torch.empty(int(n), dtype=torch.uint8) for n in lengths]
        every[self.rank] = content
        self._exchange([(p, content) for p in self._peers()], [(p, every[p]) for p in self._peers()])
        return [_from_bytes(x) for x in every]

    def barrier(self, patient: bool = False) -> None:
        self._announce(range(self.size), patient)
        self.total(torch.zeros(1, dtype=torch.int64))

    def close(self) -> None:
        """Free the connections. Later calls raise RuntimeError."""
        self._heartbeat.stop()
        self._closed = True
        if self._nccl is not None:
            self._nccl.abort()
        self._gloo = self._nccl = None

    def _peers(self) -> Iterator[int]:
        return (peer for peer in range(self.size) if peer != self.rank)

    def _announce(self, ranks: Sequence[int], patient: bool) -> None:
        """Say in the store that this rank has come, if it is one of ``ranks``; if ``patient``, wait until all have.

        In the store, as gloo gives up every connection when one wait has reached its limit.
        """
        self._check_alive()
        self._announced += 1
        with self._named(0, math.inf):
            if self.rank in ranks:
                self._store.set(f"come/{self._announced}/{self.rank}", "")
                self._store.delete_key(f"come/{self._own_announced}/{self.rank}")  # all have passed that one
                self._own_announced = self._announced
            keys = [f"come/{self._announced}/{rank}" for rank in ranks]
            since = time.monotonic()
            while patient and not self._store.check(keys):
                self._check_alive()
                shortest_s, longest_s = _PATIENT_POLL_S
                time.sleep(min(longest_s, max(shortest_s, (time.monotonic() - since) / 8)))

    def _check_alive(self) -> None:
        if self._closed:
            raise RuntimeError("the group is closed")
        if self._heartbeat.lost is not None:
            raise RankLost(self._heartbeat.lost)

    def _from(self, source: int, tensor: torch.Tensor) -> None:
        if self.rank == source:
            self._exchange([(peer, tensor) for peer in self._peers()], [])
        else:
            self._exchange([], [(source, tensor)])

    def _exchange(self, sends: Pieces, receives: Pieces) -> None:
        self._check_alive()
        self._heartbeat.exchange += 1
        start = time.monotonic()
        sends = [piece for piece in sends if piece[1].numel()]
        receives = [piece for piece in receives if piece[1].numel()]
        for is_cuda, transport in ((True, self._by_nccl), (False, self._by_gloo)):
            outgoing, incoming = ([piece for piece in x if piece[1].is_cuda == is_cuda] for x in (sends, receives))
            if outgoing or incoming:
                transport(outgoing, incoming, start + self.timeout_s)
        self.traffic.sent_bytes += sum(tensor.nbytes for _, tensor in sends)
        self.traffic.received_bytes += sum(tensor.nbytes for _, tensor in receives)
        self.traffic.messages += len(sends) + len(receives)
        self.traffic.waited_s += time.monotonic() - start

    def _by_gloo(self, sends: Pieces, receives: Pieces, deadline: float) -> None:
        waits = []
        with self._named(sends[0][0] if sends else receives[0][0], deadline):
            waits += [(peer, self._gloo.recv([tensor], peer, 0)) for peer, tensor in receives]
            waits += [(peer, self._gloo.send([tensor], peer, 0)) for peer, tensor in sends]
        for peer, work in waits:
            with self._named(peer, deadline):
                work.wait(timedelta(seconds=max(0.001, deadline - time.monotonic())))

    def _by_nccl(self, sends: Pieces, receives: Pieces, deadline: float) -> None:
        peer = receives[0][0] if receives else sends[0][0]
        try:
            with self._named(peer, deadline):
                self._nccl._start_coalescing()
                for source, tensor in receives:
                    self._nccl.recv([tensor], source, 0)
                for target, tensor in sends:
                    self._nccl.send([tensor], target, 0)
                work = self._nccl._end_coalescing()
                while not work.is_completed():
                    if self._heartbeat.lost is not None or time.monotonic() > deadline:
                        raise RuntimeError("no answer")
                    time.sleep(_NCCL_POLL_S)
                work.wait()
        except RankLost:
            self._nccl.abort()
            raise

    @contextlib.contextmanager
    def _named(self, peer: int, deadline: float) -> Iterator[None]:
        """A transport error while waiting for ``peer`` becomes the error that names the lost rank."""
        try:
            yield
        except RankLost:
            raise
        except RuntimeError as error:
            if time.monotonic() >= deadline - 0.01:
                verdict = self._heartbeat.timed_out(peer)
            else:
                verdict = self._heartbeat.broken(f"rank {peer} closed its connection ({first_line(error)})")
            raise RankLost(verdict) from error


def _check_pieces(group: Group, pieces: Pieces) -> None:
    for peer, tensor in pieces:
        if not 0 <= peer < group.size or peer == group.rank:
            raise ValueError(f"rank {group.rank} of {group.size} cannot exchange with rank {peer}")
        if not tensor.is_contiguous():
            raise ValueError(f"a tensor exchanged with rank {peer} must be contiguous")
        if tensor.device.type not in ("cpu", group.device.type):
            raise ValueError(f"a tensor exchanged by a group on {group.device} is on {tensor.device}")


def _check_numbers(numbers: torch.Tensor) -> None:
    if numbers.dtype != torch.int64 or numbers.is_cuda:
        raise ValueError(f"only int64 on the CPU is summed, not {numbers.dtype} on {numbers.device}")


def _check_source(group: Group, source: int) -> None:
    if not 0 <= source < group.size:
        raise ValueError(f"there is no rank {source} in a group of {group.size}")


def _as_bytes(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _from_bytes(content: torch.Tensor) -> Any:
    return json.loads(content.numpy().tobytes())
