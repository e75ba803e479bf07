"""One replica after another."""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract import Cluster, Replica
from policies.job import Job
from policies.routing.contract import RoutingPolicy


class RoundRobin(RoutingPolicy):
    """The next of the replicas that work, in turn."""

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._last = -1

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        chosen = next((replica for replica in replicas if replica.index > self._last), replicas[0])
        self._last = chosen.index
        return chosen
