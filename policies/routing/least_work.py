"""The replica with the least to do, whatever weights it holds."""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract import Cluster, Replica
from policies.job import Job
from policies.routing.backlog import Backlogs
from policies.routing.contract import RoutingPolicy


class LeastWork(RoutingPolicy):
    """The replica with the fewest predicted seconds of work, one request after another; the first of several.

    Where pools are unlike, the request's own seconds there count as well.
    """

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._backlogs = Backlogs(cluster)
        self._unlike = len({replica.pool for replica in cluster.replicas}) > 1

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        chosen = min(replicas, key=lambda replica: self.cost(job, replica, now))
        self._backlogs.add(job, chosen)
        return chosen

    def cost(self, job: Job, replica: Replica, now: float) -> tuple[float, ...]:
        """What the replica is ranked by for a job, the least first."""
        return (self._work_s(job, replica, now),)

    def _work_s(self, job: Job, replica: Replica, now: float) -> float:
        """Predicted seconds of what the replica has to do, with a job where that differs from replica to replica."""
        backlog_s = self._backlogs.seconds(replica, now)
        return backlog_s + replica.costs.standalone_s(job.request) if self._unlike else backlog_s

    def planned(self, replica: Replica, jobs: Sequence[Job], now: float) -> None:
        self._backlogs.planned(replica, jobs, now)

    def ended(self, job: Job, now: float) -> None:
        self._backlogs.ended(job)

    def replica_down(self, replica: Replica, now: float) -> None:
        self._backlogs.replica_down(replica)
