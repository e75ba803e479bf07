"""What a caching policy is asked and may answer.

Before a block (patch cache) or a tile is computed, the executor has signals per unit that exist only then. The
policy says which units to compute; the others reuse what they gave last time. `decide` changes nothing, `commit`
learns what was really done, so that a decision can be asked for, redistributed over devices and only then made.
On a device the signals come from tensors, in a simulation from a model fitted on recorded signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Signal(NamedTuple):
    """What is known of one unit (a request's block, patch or tile) before it is computed.

    Attributes:
        request_id: whose unit it is.
        unit: which block, patch or tile of the request.
        step: denoising step, from 0.
        steps: denoising steps the request asked for.
        input_change: mean absolute change of the unit's input since it was last seen, relative to its mean
            absolute value; infinity when it was never seen.
    """

    request_id: str
    unit: int
    step: int
    steps: int
    input_change: float


class CachingPolicy:
    """Base of every caching policy. The constructor only stores parameters."""

    def reset(self) -> None:
        """Begin a run: forget everything of an earlier one."""

    def decide(self, signals: Sequence[Signal]) -> list[bool]:
        """For each unit: True to compute it, False to reuse. A unit never seen must be computed."""
        raise NotImplementedError

    def commit(self, signals: Sequence[Signal], computed: Sequence[bool]) -> None:
        """What was really done with these units."""

    def forget(self, request_id: str) -> None:
        """The request has ended; drop its state."""
