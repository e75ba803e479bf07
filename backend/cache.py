"""What every block cache has in common, whether its units are patches of a UNet or tokens of a transformer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from backend.cached_state import CachedState, Member, State
from policies.caching import CachingPolicy, Signals
from policies.guard import ask


class Part(NamedTuple):
    """A request in a cached batch: its member of the kept state, and where it is in its course."""

    member: Member
    step: int
    steps: int


class BlockCache:
    """Keeps what a caching policy lets a model reuse, block by block.

    Args:
        policy: the executor's own copy.
        budget_bytes: what may be kept; a request that does not fit runs without a cache.
        blocks: the model's, in the order they run.

    Attributes:
        by_block: [blocks, 2] unit-blocks computed and reused since `start_count`.
    """

    def __init__(self, policy: CachingPolicy, budget_bytes: int, blocks: Sequence[Any]) -> None:
        self.policy = policy
        self.kept = CachedState(budget_bytes)
        self.blocks = list(blocks)
        self.by_block = np.zeros((len(blocks), 2), dtype=np.int64)
        ask(policy, "reset")

    @property
    def computed(self) -> int:
        """Unit-blocks computed since `start_count`."""
        return int(self.by_block[:, 0].sum())

    @property
    def reused(self) -> int:
        """Unit-blocks reused since `start_count`."""
        return int(self.by_block[:, 1].sum())

    def start_count(self) -> None:
        """Count from here on."""
        self.by_block[:] = 0

    def admit(self, wanted: Sequence[Member]) -> list[bool]:
        """Whether each member of the next batch can run with the cache."""
        admitted = self.kept.admit(wanted)
        self._forget_evicted()
        return admitted

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        self.kept.forget(request_id)
        ask(self.policy, "forget", request_id)

    @contextmanager
    def arranged(self, parts: Sequence[Part]) -> Iterator[tuple[State, torch.Tensor]]:
        """Run one forward of requests side by side: their state, and of which entries something is kept.

        When the forward fails, what was kept of them is dropped: it may be half of one step and half of another.
        """
        members = [part.member for part in parts]
        shape = members[0].shape
        arranged = self.kept.arrange(members)
        self._forget_evicted()
        try:
            yield arranged
        except BaseException:
            self.kept.drop_batch(shape)
            self._forget_evicted()
            raise
        self.kept.settle(shape)
        self._forget_evicted()

    def signals(self, parts: Sequence[Part], units: Sequence[int]) -> Signals:
        """The signals of a batch of which each part has so many units, before any block is known."""

        def spread(values: Sequence[int]) -> Any:
            return np.repeat(np.asarray(values, dtype=np.int64), units)

        nothing = np.zeros(sum(units))
        return Signals(
            request_ids=tuple(part.member.name for part in parts),
            request=spread(range(len(parts))),
            unit=np.concatenate([np.arange(count) for count in units]),
            block=0,
            blocks=len(self.blocks),
            step=spread([part.step for part in parts]),
            steps=spread([part.steps for part in parts]),
            input_change=nothing,
            skip_change=nothing,
        )

    def _forget_evicted(self) -> None:
        for name in self.kept.evicted:
            ask(self.policy, "forget", name)
        self.kept.evicted.clear()
