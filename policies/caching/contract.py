"""What a caching policy is asked and may answer.

Before a block (patch cache) or a tile is computed, the executor has signals per unit that exist only then. The
policy says which units to compute; the others reuse what they gave last time. `decide` changes nothing, `commit`
learns what was really done, so that a decision can be asked for, redistributed over devices and only then made.
On a device the signals come from tensors, in a simulation from a model fitted on recorded signals.

A batch asks once a block, for the units of all its requests at once, so signals are columns and not objects.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from policies.contract import Policy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Signals(NamedTuple):
    """What is known of the units of one block before it is computed; every array has one entry a unit.

    Attributes:
        request_ids: the requests of the batch.
        request: whose unit it is, an index into ``request_ids``; the units of a request stand together.
        unit: which patch or tile of the request, 0, 1, 2, ... (with classifier-free guidance the unguided and the
            guided row have units of their own).
        block: which block of the model, in the order they run.
        blocks: how many there are.
        step: denoising step of the request, from 0.
        steps: denoising steps the request asked for.
        input_change: mean squared change of the block's input since the output that would be reused was computed,
            relative to the mean square of the input then; infinity when there is nothing to reuse.
        skip_change: the same for what comes in by skip connections, the largest of them; 0 where there are none.

    The last four are known of tiles only, for which a block is the whole model; they are means of magnitudes over the
    tile's window, and None for a policy that does not need them:

        input_shift: how far the input has moved since the output that would be reused was computed.
        output_level: of the output that would be reused; 0: there is none.
        output_gain: how far the output moved between the last two times that the tile was computed ...
        input_gain: ... and the input meanwhile; 0: it was not computed twice yet.
    """

    request_ids: tuple[str, ...]
    request: Ints
    unit: Ints
    block: int
    blocks: int
    step: Ints
    steps: Ints
    input_change: Floats
    skip_change: Floats
    input_shift: Floats | None = None
    output_level: Floats | None = None
    output_gain: Floats | None = None
    input_gain: Floats | None = None


class CachingPolicy(Policy):
    """Base of every caching policy. The constructor only stores parameters.

    Attributes:
        needs_gain: whether the policy looks at what is known of tiles only; where it does not, pixels that would be
            fetched for that alone stay where they are.
    """

    required = ("decide",)
    needs_gain = False

    def reset(self) -> None:
        """Begin a run: forget everything of an earlier one."""

    def watches(self, block: int) -> bool:
        """Whether the policy looks at the changes of this block.

        Where it does not they cost nothing: they are 0, and infinity where there is nothing to reuse.
        """
        return True

    def decide(self, signals: Signals) -> Flags:
        """For each unit: True to compute it, False to reuse. A unit with nothing to reuse must be computed."""
        raise NotImplementedError

    def commit(self, signals: Signals, computed: Flags) -> None:
        """What was really done with these units."""

    def forget(self, request_id: str) -> None:
        """The request has ended, or its cache was evicted; drop its state."""
