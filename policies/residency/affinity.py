"""The replica that would be done with a request first, the load of its weights included."""

from __future__ import annotations

from collections.abc import Sequence

from policies.job import Job
from policies.parameters import Weight
from policies.residency.contract import DispatchPolicy, Lane


class Affinity(DispatchPolicy):
    """Least backlog plus what a load would cost; among equals the replica with most room.

    So requests go where their weights are, until the queue there costs more than another copy: a popular checkpoint
    spreads over as many replicas as it needs, and a rare one stays on one.

    Args:
        load_weight: seconds of backlog that a second of loading is worth. Above 1, because a load also takes the place
            of weights that somebody else will want again.
    """

    def __init__(self, load_weight: Weight = 3.0) -> None:
        self.load_weight = load_weight

    def choose(self, job: Job, lanes: Sequence[Lane], now: float) -> Lane:
        checkpoint = job.request.checkpoint

        def cost(lane: Lane) -> tuple[float, float]:
            return lane.backlog_s(now) + self.load_weight * lane.load_s(checkpoint), -lane.room_gb()

        return min(lanes, key=cost)
