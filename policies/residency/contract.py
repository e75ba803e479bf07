"""Where a request goes, and which weights make room: the two questions that many checkpoints on few replicas add.

Both are answered by small policies whose constructors only store parameters. `ManyCheckpoints` copies them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from policies.contract import Policy
from policies.job import Job


class Lane(Protocol):
    """What a dispatch policy sees of a replica that works.

    Attributes:
        index: 0, 1, 2, ...
    """

    index: int

    def backlog_s(self, now: float) -> float:
        """Predicted seconds until it is done with all it was given, one request after another."""
        ...

    def load_s(self, checkpoint: str) -> float:
        """Seconds that a load takes first; 0.0 where the weights lie there, or come for requests given before."""
        ...

    def room_gb(self) -> float:
        """Memory that no weights lie in; infinite where memory is not limited."""
        ...


class DispatchPolicy(Policy):
    """Base of every dispatch policy."""

    required = ("choose",)

    def reset(self) -> None:
        """Begin a run: forget everything of an earlier one."""

    def choose(self, job: Job, lanes: Sequence[Lane], now: float) -> Lane:
        """The replica, of those that work, that a request is given to: when it comes, or when its replica has failed.

        It is asked once for every such request, and must not depend on how often it is asked for others.
        """
        raise NotImplementedError


class KeepPolicy(Policy):
    """Base of every keep policy; each replica has one of its own."""

    required = ("victim",)

    def reset(self) -> None:
        """Begin a run: forget everything of an earlier one."""

    def came(self, checkpoint: str, gb: float, load_s: float, now: float) -> None:
        """A checkpoint lies on the replica from now on; no request for it has started since.

        Args:
            checkpoint: which.
            gb: its size.
            load_s: what it would take to bring it again.
            now: seconds.
        """

    def used(self, checkpoint: str, gb: float, load_s: float, now: float) -> None:
        """A request for a checkpoint starts; the checkpoint lies on the replica. Arguments as of `came`."""

    def left(self, checkpoint: str) -> None:
        """A checkpoint lies on the replica no longer."""

    def victim(self, loaded: Sequence[str], now: float) -> str:
        """Which of these, at least one, to give up. Where some have no requests waiting, only they are named."""
        raise NotImplementedError
