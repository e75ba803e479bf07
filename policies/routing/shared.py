"""Late binding: no request belongs to a replica before it starts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from policies.contract import Cluster, Replica
from policies.job import Job
from policies.pool import Pool
from policies.routing.contract import RoutingPolicy


class Shared(RoutingPolicy):
    """All replicas of a pool draw from one queue, so that none is idle while a request waits that it could run.

    Of several pools that serve a request, it goes to the one that would be done with it first: after what was given to
    that pool and has not ended, shared among the replicas that work, the request alone, all by that pool's own costs.
    """

    binds = False

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._outstanding_s: dict[Pool, float] = dict.fromkeys([replica.pool for replica in cluster.replicas], 0.0)
        self._routed: dict[Job, tuple[Pool, float]] = {}  # with its predicted seconds there
        self._counted: tuple[Sequence[Replica], dict[Pool, tuple[Replica, int]]] = ((), {})

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        chosen, alone_s, earliest_s = replicas[0], 0.0, math.inf
        for replica, working in self._pools(replicas).values():
            costs = replica.batch_costs
            whole_s = costs.whole_s(costs.kind(job))
            end_s = self._outstanding_s[replica.pool] / working + whole_s
            if end_s < earliest_s:
                chosen, alone_s, earliest_s = replica, whole_s, end_s
        self._outstanding_s[chosen.pool] += alone_s
        self._routed[job] = chosen.pool, alone_s
        return chosen

    def ended(self, job: Job, now: float) -> None:
        pool, alone_s = self._routed.pop(job)
        self._outstanding_s[pool] -= alone_s

    def replica_down(self, replica: Replica, now: float) -> None:
        if not any(other.up for other in self.cluster.replicas if other.pool is replica.pool):
            for job in replica.queue.values():
                self.ended(job, now)

    def _pools(self, replicas: Sequence[Replica]) -> dict[Pool, tuple[Replica, int]]:
        """Of each pool its first replica of these, and how many of them are its own."""
        known, pools = self._counted
        if known is not replicas:
            count = Counter([replica.pool for replica in replicas])
            first = {replica.pool: replica for replica in reversed(replicas)}
            pools = {pool: (first[pool], count[pool]) for pool in count}
            self._counted = replicas, pools
        return pools
