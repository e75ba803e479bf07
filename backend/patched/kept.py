"""What a cache keeps of requests between steps: tensors by name, the requests of the running batch side by side.

While the same requests run step after step nothing is moved. When the batch changes, what is kept of those that go on
is put side by side anew; what is kept of those that rest stands apart until they come back or its memory is needed.
Whole requests are evicted, never parts of one: what is left of a request must be able to stand alone.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

import torch

State = dict[str, torch.Tensor]


class Member(NamedTuple):
    """A request in a batch: ``units`` entries along the first axis of everything kept. ``shape`` is what its entries
    look like (the patch): what was kept in another shape is of no use."""

    name: str
    units: int
    shape: Hashable


class KeptState:
    """Tensors of requests, bounded in bytes.

    Args:
        budget_bytes: what all kept tensors may take.

    Attributes:
        state: name -> [units of the batch, ...]; to be written by whoever computes.
        members: the requests of the running batch, in order.
        evicted: requests whose state was dropped since the attribute was last cleared.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.state: State = {}
        self.members: tuple[Member, ...] = ()
        self.evicted: list[str] = []
        self._resting: dict[str, tuple[Member, State]] = {}  # least recently used first
        self._unit_bytes: dict[Hashable, float] = {}

    @property
    def bytes(self) -> int:
        """Bytes of everything kept."""
        parts = [self.state, *(state for _, state in self._resting.values())]
        return sum(tensor.nbytes for state in parts for tensor in state.values())

    def admit(self, wanted: Sequence[Member]) -> list[bool]:
        """For each request of the next batch whether there is room for what is to be kept of it.

        Those of which something is kept have it; room for new ones is made by evicting requests that rest.
        """
        kept = {member.name for member in self.members} | self._resting.keys()
        names = {member.name for member in wanted}
        used: float = self.bytes
        answers = []
        for member in wanted:
            if member.name not in kept:
                needed = member.units * self._unit_bytes.get(member.shape, 0.0)
                while used + needed > self.budget_bytes and (idle := self._idle(names)) is not None:
                    used -= sum(tensor.nbytes for tensor in self._resting[idle][1].values())
                    self._evict(idle)
                if used + needed > self.budget_bytes:
                    answers.append(False)
                    continue
                used += needed
            answers.append(True)
        return answers

    def _idle(self, names: Collection[str]) -> str | None:
        """The resting request longest unused that is none of these."""
        return next((name for name in self._resting if name not in names), None)

    def arrange(self, members: Sequence[Member]) -> torch.Tensor | None:
        """Make ``members`` the running batch.

        Returns:
            [units] whether each unit has anything kept; None when the batch is as it was.
        """
        if tuple(members) == self.members:
            return None
        before = {member.name for member in self.members}
        self._rest_all()
        found: list[State | None] = []
        for member in members:
            kept, state = self._resting.pop(member.name, (member, None))
            if kept != member and state is not None:
                self.evicted.append(member.name)
                state = None
            found.append(state)
        self.members = tuple(members)
        example = next((state for state in found if state), {})
        for name, like in example.items():
            parts = [
                state[name] if state else like.new_zeros(member.units, *like.shape[1:])
                for member, state in zip(members, found, strict=True)
            ]
            self.state[name] = torch.cat(parts)
        for name in before & self._resting.keys():  # so far views of the whole former batch
            member, state = self._resting[name]
            self._resting[name] = member, {key: tensor.clone() for key, tensor in state.items()}
        known = [torch.full((m.units,), bool(state), dtype=torch.bool) for m, state in zip(members, found, strict=True)]
        return torch.cat(known)

    def settle(self) -> None:
        """After a step: note what a unit takes, and evict whole requests until the budget holds.

        Resting ones go first, the longest unused before the others; then those of the batch that joined last.
        """
        if self.members:
            taken = sum(tensor.nbytes for tensor in self.state.values())
            self._unit_bytes[self.members[0].shape] = taken / sum(member.units for member in self.members)
        while self.bytes > self.budget_bytes and self._resting:
            self._evict(next(iter(self._resting)))
        if self.bytes > self.budget_bytes:
            self._rest_all()
            while self.bytes > self.budget_bytes and self._resting:
                self._evict(next(reversed(self._resting)))

    def drop_batch(self) -> None:
        """Drop what is kept of the running batch, after a forward that failed half way."""
        self.evicted.extend(member.name for member in self.members)
        self.members, self.state = (), {}

    def forget(self, name: str) -> None:
        """Drop what is kept of a request that has ended."""
        if any(member.name == name for member in self.members):
            self._rest_all()
        self._resting.pop(name, None)

    def _rest_all(self) -> None:
        start = 0
        for member in self.members:
            own = {name: tensor[start : start + member.units] for name, tensor in self.state.items()}
            start += member.units
            if own:
                self._resting[member.name] = (member, own)
        self.members, self.state = (), {}

    def _evict(self, name: str) -> None:
        del self._resting[name]
        self.evicted.append(name)
