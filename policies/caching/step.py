"""The one way from signals to what a block computes: both drivers go through `decide_block`.

The backend asks it before each block of a step with signals from its tensors, the simulator with modelled ones
(`policies.caching.plan`), so that neither can treat a policy's answer differently.
"""

from __future__ import annotations

import numpy as np

from policies.caching.contract import CachingPolicy, Flags, Signals
from policies.contract import PolicyError


def decide_block(policy: CachingPolicy, signals: Signals) -> Flags:
    """Which units of a block to compute, [units]; the policy is told that this is what will be done.

    What has nothing to reuse is computed whatever the policy says.

    Raises:
        PolicyError: the answer is no array of one True or False a unit.
    """
    wanted = policy.decide(signals)
    if not isinstance(wanted, np.ndarray) or wanted.dtype != np.bool_ or wanted.shape != signals.unit.shape:
        raise PolicyError(f"policy {type(policy).__name__} must answer an array of one True or False a unit")
    computed = wanted | np.isinf(signals.input_change)
    policy.commit(signals, computed)
    return computed
