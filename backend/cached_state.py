"""What a cache keeps of requests between steps: tensors by name, the requests of a batch side by side.

While the same requests run step after step nothing is moved. When a batch changes, what is kept of those that go on is
put side by side anew; what is kept of those that rest stands apart until they come back or its memory is needed.
Requests of different patches never stand side by side, so each patch has a batch of its own.
Whole requests are evicted, never parts of one: what is left of a request must be able to stand alone.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

import torch

State = dict[str, torch.Tensor]


class Member(NamedTuple):
    """A request in a batch: ``units`` entries along the first axis of everything kept. ``shape`` is what its entries
    look like (the patch): what was kept in another shape is of no use. Where a step has several calls, each is a
    member; a request's name ends before the first zero character."""

    name: str
    units: int
    shape: Hashable

    @property
    def request(self) -> str:
        """The request's name."""
        return _request(self.name)


class CachedBatch(NamedTuple):
    """Requests side by side: each tensor of ``state`` is [units of all members, ...]."""

    members: tuple[Member, ...]
    state: State


class CachedState:
    """Tensors of requests, bounded in bytes.

    Args:
        budget_bytes: what all kept tensors may take.

    Attributes:
        evicted: requests whose state was dropped; to be emptied by the reader.
        peak_bytes: the most that was kept after any step.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.evicted: list[str] = []
        self.peak_bytes = 0
        self._batches: dict[Hashable, CachedBatch] = {}  # by shape
        self._resting: dict[str, tuple[Member, State]] = {}  # least recently used first
        self._unit_bytes: dict[Hashable, float] = {}

    @property
    def bytes(self) -> int:
        """Bytes of everything kept."""
        states = [batch.state for batch in self._batches.values()] + [state for _, state in self._resting.values()]
        return sum(_bytes(state) for state in states)

    @property
    def requests(self) -> list[str]:
        """Requests of which something is kept."""
        active = [member.name for batch in self._batches.values() for member in batch.members]
        return [*active, *self._resting]

    def admit(self, wanted: Sequence[Member]) -> list[bool]:
        """For each request that is to run next whether there is room for what is to be kept of it.

        Those of which something is kept have it; room for new ones is made by evicting requests that rest.
        """
        names, kept = {member.request for member in wanted}, set(self.requests)
        used: float = self.bytes
        reserved = 0.0
        answers = []
        for member in wanted:
            if member.name not in kept:
                needed = member.units * self._unit_bytes.get(member.shape, 0.0)
                while used + needed > self.budget_bytes and (idle := self._idle(names)) is not None:
                    self._evict(idle)
                    used = self.bytes + reserved
                if used + needed > self.budget_bytes:
                    answers.append(False)
                    continue
                used += needed
                reserved += needed
            answers.append(True)
        return answers

    def arrange(self, members: Sequence[Member]) -> tuple[State, torch.Tensor]:
        """Make ``members``, all of one shape, a batch.

        Returns:
            Its state, to be written by whoever computes, and [units] whether each unit has anything kept.
        """
        shape, members = members[0].shape, tuple(members)
        units = sum(member.units for member in members)
        batch = self._batches.get(shape)
        if batch is not None and batch.members == members:
            return batch.state, torch.ones(units, dtype=torch.bool)
        self._rest(shape)
        found = [self._take(member) for member in members]
        state: State = {}
        for name, like in next((own for own in found if own), {}).items():
            parts = [
                own[name] if own else like.new_zeros(member.units, *like.shape[1:])
                for member, own in zip(members, found, strict=True)
            ]
            state[name] = torch.cat(parts)
        for name, (member, own) in self._resting.items():  # views would keep the whole of a former batch alive
            if any(tensor.untyped_storage().nbytes() > tensor.nbytes for tensor in own.values()):
                self._resting[name] = member, {key: tensor.clone() for key, tensor in own.items()}
        self._batches[shape] = CachedBatch(members, state)
        known = [torch.full((m.units,), bool(own), dtype=torch.bool) for m, own in zip(members, found, strict=True)]
        return state, torch.cat(known)

    def settle(self, shape: Hashable) -> None:
        """After a step of the batch of this shape: note what a unit takes, and evict until the budget holds.

        Resting requests go first, the longest unused before the others; then those of the batch that stand last.
        """
        batch = self._batches[shape]
        self._unit_bytes[shape] = _bytes(batch.state) / sum(member.units for member in batch.members)
        while self.bytes > self.budget_bytes and self._resting:
            self._evict(next(iter(self._resting)))
        if self.bytes > self.budget_bytes:
            self._rest(shape)
            while self.bytes > self.budget_bytes and self._resting:
                self._evict(next(reversed(self._resting)))
        self.peak_bytes = max(self.peak_bytes, self.bytes)

    def forget(self, name: str) -> None:
        """Drop what is kept of a request that has ended."""
        for shape, batch in list(self._batches.items()):
            if any(member.name == name for member in batch.members):
                self._rest(shape)
        self._resting.pop(name, None)

    def drop_batch(self, shape: Hashable) -> None:
        """Drop what is kept of the batch of this shape, after a forward that failed half way."""
        self.evicted.extend(member.name for member in self._batches.pop(shape).members)

    def _take(self, member: Member) -> State | None:
        """What is kept of a resting request, if it is still of use."""
        kept, state = self._resting.pop(member.name, (member, None))
        if state is None or kept == member:
            return state
        self.evicted.append(member.name)
        return None

    def _rest(self, shape: Hashable) -> None:
        """Take a batch apart."""
        batch = self._batches.pop(shape, CachedBatch((), {}))
        start = 0
        for member in batch.members:
            own = {name: tensor[start : start + member.units] for name, tensor in batch.state.items()}
            start += member.units
            if own:
                self._resting[member.name] = (member, own)

    def _idle(self, requests: Collection[str]) -> str | None:
        """What is longest unused of a request that is none of these; its batch rests from now on."""
        for shape, batch in list(self._batches.items()):
            if not any(member.request in requests for member in batch.members):
                self._rest(shape)
        return next((name for name in self._resting if _request(name) not in requests), None)

    def _evict(self, name: str) -> None:
        """Drop all that rests of a request, every call of a step."""
        for resting in [other for other in self._resting if _request(other) == _request(name)]:
            del self._resting[resting]
            self.evicted.append(resting)


def _request(name: str) -> str:
    return name.partition("\0")[0]


def _bytes(state: State) -> int:
    return sum(tensor.nbytes for tensor in state.values())
