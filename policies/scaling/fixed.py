"""As many replicas as are said, always: what the others are compared with."""

from __future__ import annotations

from policies.parameters import Width
from policies.scaling.contract import PoolView, ScalingPolicy


class Fixed(ScalingPolicy):
    """The same number of replicas, whatever the load.

    Args:
        replicas: how many; not set: the most that the pool may have.
    """

    def __init__(self, replicas: Width | None = None) -> None:
        self.replicas = replicas

    def wanted(self, pool: PoolView, now: float) -> int:
        return pool.most if self.replicas is None else self.replicas
