"""The one way from signals to what a block computes: both drivers go through `decide_block`.

The backend asks it before each block of a step with signals from its tensors, the simulator with modelled ones
(`policies.caching.plan`), so that neither can treat a policy's answer differently.
"""

from __future__ import annotations

import numpy as np

from policies.caching.contract import CachingPolicy, Flags, Signals
from policies.guard import ask, broken, short


def decide_block(policy: CachingPolicy, signals: Signals) -> Flags:
    """Which units of a block to compute, [units]; the policy is told that this is what will be done.

    What has nothing to reuse is computed whatever the policy says.

    Raises:
        PolicyError: the answer is no array of one True or False a unit, or the policy raised.
    """
    nothing_kept = np.isinf(signals.input_change)
    wanted = ask(policy, "decide", signals)
    if not isinstance(wanted, np.ndarray) or wanted.dtype != np.bool_ or wanted.shape != signals.unit.shape:
        raise broken(policy, "must answer an array of one True or False a unit")
    computed: Flags = wanted | nothing_kept
    ask(policy, "commit", signals, computed.copy())
    return computed


def watches_block(policy: CachingPolicy, block: int) -> bool:
    """Whether a policy looks at the changes of a block.

    Raises:
        PolicyError: the answer is no truth value, or the policy raised.
    """
    answer = ask(policy, "watches", block)
    if not isinstance(answer, bool | np.bool_):
        raise broken(policy, f"answers watches with {short(answer)}, expected True or False")
    return bool(answer)
