"""The one way from signals to what a block computes: both drivers go through `decide_block`.

The backend asks it before each block of a step with signals from its tensors, the simulator with modelled ones
(`policies.caching.plan`), so that neither can treat a policy's answer differently.
"""

from __future__ import annotations

import numpy as np

from policies import answers
from policies.caching.contract import CachingPolicy, Flags, Signals
from policies.guard import ask, read


def decide_block(policy: CachingPolicy, signals: Signals) -> Flags:
    """Which units of a block to compute, [units]; the policy is told that this is what will be done.

    What has nothing to reuse is computed whatever the policy says.

    Raises:
        PolicyError: the answer is no array of one True or False a unit, or the policy raised.
    """
    nothing_kept = np.isinf(signals.input_change)
    computed: Flags = wanted_units(policy, signals) | nothing_kept
    ask(policy, "commit", signals, computed.copy())
    return computed


def wanted_units(policy: CachingPolicy, signals: Signals) -> Flags:
    """Which units of a block a policy would have computed, [units].

    Raises:
        PolicyError: the answer is no array of one True or False a unit, or the policy raised.
    """
    return answers.flags(policy, ask(policy, "decide", signals), signals.unit.shape)


def needs_gain(policy: CachingPolicy) -> bool:
    """Whether a policy looks at what is known of tiles only.

    Raises:
        PolicyError: it says neither True nor False, or raised.
    """
    return answers.truth(policy, read(policy, "needs_gain"), "needs_gain")


def watches_block(policy: CachingPolicy, block: int) -> bool:
    """Whether a policy looks at the changes of a block.

    Raises:
        PolicyError: the answer is no truth value, or the policy raised.
    """
    return answers.truth(policy, ask(policy, "watches", block), "watches")
