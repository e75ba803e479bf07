"""The replica that would be done with a request first, the load of its weights included."""

from __future__ import annotations

from policies.contract import Replica
from policies.job import Job
from policies.parameters import Weight
from policies.routing.least_work import LeastWork


class Affinity(LeastWork):
    """Least backlog plus what a load would cost; among equals the replica with most room.

    So requests go where their weights are, until the queue there costs more than another copy: a popular checkpoint
    spreads over as many replicas as it needs, and a rare one stays on one. Where all weights are always there, it is
    the replica with the least to do.

    Args:
        load_weight: seconds of backlog that a second of loading is worth. Above 1, because a load also takes the place
            of weights that somebody else will want again.
    """

    def __init__(self, load_weight: Weight = 3.0) -> None:
        self.load_weight = load_weight

    def cost(self, job: Job, replica: Replica, now: float) -> tuple[float, ...]:
        checkpoint, load_s = job.request.checkpoint, 0.0
        if not self._backlogs.has_requests_for(checkpoint, replica):  # else the load comes for these
            load_s = replica.load_s(checkpoint)
        return self._work_s(job, replica, now) + self.load_weight * load_s, -replica.room_gb
