"""How the replicas of a pool come and go: what a scaling policy decides about, and the facts that a run keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from policies.scaling.contract import ScalingPolicy

Lifetime = tuple[int, float | None, float | None, float | None]
"""(Replica, ordered, ready, gone) in seconds: it is paid for from the first to the last. Ordered and ready are None of
one that was there when the run began; ready is None of one that never was; gone is None of one that stays."""


@dataclass(frozen=True, eq=False)
class Elastic:
    """Of a pool whose replicas come and go.

    Attributes:
        policy: copied for every run.
        least: replicas that there are at least.
        initial: replicas that are there when a run begins, how many or which of the pool's; None: as many as the policy
            wants then of a pool that has nothing to do.
        start_s: predicted seconds from the order to start a replica until it takes requests.
    """

    policy: ScalingPolicy
    least: int = 1
    initial: int | Collection[int] | None = None
    start_s: float = 0.0


class Resize(NamedTuple):
    """What is to become of a replica.

    ``change`` is ``start`` (it is ordered, and takes requests once it is ready), ``drain`` (it takes no more requests
    and finishes what it has), ``keep`` (when it has finished that it takes requests again), ``resume`` (it has, and
    does) or ``stop`` (it is given up: it never came, or has nothing any more).
    """

    replica: int
    change: str


class Lifetimes:
    """When replicas came and went.

    Args:
        initial: those that are there when the run begins.
    """

    def __init__(self, initial: Iterable[int]) -> None:
        self._ended: list[Lifetime] = []
        self._open: dict[int, Lifetime] = {index: (index, None, None, None) for index in initial}

    @property
    def all(self) -> list[Lifetime]:
        """Those that have ended, in the order of their ends; then the others, by replica."""
        return [*self._ended, *[self._open[index] for index in sorted(self._open)]]

    def ordered(self, replica: int, now: float) -> None:
        """It is paid for from now on."""
        self._open[replica] = (replica, now, None, None)

    def ready(self, replica: int, now: float) -> None:
        """It takes requests."""
        _, ordered, _, _ = self._open[replica]
        self._open[replica] = (replica, ordered, now, None)

    def gone(self, replica: int, now: float) -> None:
        """It is paid for no longer."""
        _, ordered, ready, _ = self._open.pop(replica)
        self._ended.append((replica, ordered, ready, now))
