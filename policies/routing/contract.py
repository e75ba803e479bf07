"""What a routing policy is asked and may answer: where a request waits.

It is asked when a request arrives and when the request has lost its replica. It sees the whole cluster and decides
nothing else: what runs next where is the scheduling policy's question (`policies.contract`), which sees one queue.
Replicas may be of several pools, which are unlike: what a request takes is to be asked of each pool's own costs.

The trap: how many steps a running job has done is known at the ends of launches only, and those fall elsewhere when the
same steps are grouped into launches otherwise. What an answer depends on may therefore change only when a request is
routed, starts or ends, when `planned` is called, and with the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from policies.contract import Cluster, Policy, Replica
from policies.job import Job


class RoutingPolicy(Policy):
    """Base of every routing policy. Only `route` must be written.

    Attributes:
        binds: whether every replica has a queue of its own. Otherwise all of a pool draw from one: an answer names any
            replica of the pool, and nothing is asked where there is only one.
    """

    required = ("route",)
    binds: ClassVar[bool] = True
    cluster: Cluster

    def reset(self, cluster: Cluster) -> None:
        """Begin a run: forget everything of an earlier one. Overriders call ``super().reset(cluster)``."""
        self.cluster = cluster

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica | None:
        """One of these replicas, at least one, which all work and serve the request's model; or None: whichever has
        nothing else to run first."""
        raise NotImplementedError

    def planned(self, replica: Replica, jobs: Sequence[Job], now: float) -> None:
        """Of these jobs, each has started on a replica or starts now.

        It is told when a request starts, when weights begin to come onto the replica, and when the scheduling policy
        says that it has thought through again what it has started.
        """

    def ended(self, job: Job, now: float) -> None:
        """A request that it had routed finished, was dropped, failed or was cancelled, or is lost with its replica; or
        it had not started, and is routed again next because a replica has come."""

    def replica_down(self, replica: Replica, now: float) -> None:
        """A replica failed. What has started there ends; what waits in its queue is routed again next if no other
        replica that works draws from it."""
