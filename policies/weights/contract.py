"""What a weights policy is asked and may answer: which weights make room for others on a full replica.

Its constructor only stores parameters; `policies.weights.swapping` copies it for every replica.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract import Policy


class WeightsPolicy(Policy):
    """Base of every weights policy; each replica has one of its own."""

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
        """Which of these, at least one, to evict. Where some have no requests waiting, only they are named."""
        raise NotImplementedError
