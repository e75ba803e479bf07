"""The replica that would be done first with everything it has and the request."""

from __future__ import annotations

import math
from collections.abc import Sequence

from policies.contract import Cluster, Replica
from policies.job import Job, JobKind
from policies.pool import Pool
from policies.routing.contract import RoutingPolicy

_SHARED_BY = 4


class EarliestCompletion(RoutingPolicy):
    """The replica that would be done first with what it has and a request of this kind; the first of several.

    What waits is taken to run in company of its own kind, four to a step; what has started is as `planned` saw it last,
    less the seconds since. A request that finds little company takes as long as it does alone, and where its weights
    do not lie they are loaded first. Of every replica the costs of its own pool are asked.
    """

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        indexes = [replica.index for replica in cluster.replicas]
        self._shares: dict[tuple[Pool, JobKind], float] = {}
        self._waiting_s = dict.fromkeys(indexes, 0.0)
        self._resident_s = dict.fromkeys(indexes, 0.0)
        self._seen_s = dict.fromkeys(indexes, 0.0)
        self._routed: dict[Job, tuple[int, float]] = {}  # the replica, and the seconds it adds to what waits

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        waiting_s, resident_s, seen_s = self._waiting_s, self._resident_s, self._seen_s
        chosen, earliest_s, pool, share_s, alone_s = replicas[0], math.inf, None, 0.0, 0.0
        loads, checkpoint = chosen.weights is not None, job.request.checkpoint
        for replica in replicas:
            index = replica.index
            if replica.pool is not pool:
                pool = replica.pool
                share_s, alone_s = (
                    self._share_s(job, replica),
                    replica.batch_costs.whole_s(replica.batch_costs.kind(job)),
                )
            end_s = max(0.0, resident_s[index] - (now - seen_s[index])) + waiting_s[index] + share_s
            if end_s < alone_s:
                end_s = alone_s
            if loads:
                end_s += replica.load_s(checkpoint)
            if end_s < earliest_s:
                chosen, earliest_s = replica, end_s
        share_s = self._share_s(job, chosen)
        waiting_s[chosen.index] += share_s
        self._routed[job] = (chosen.index, share_s)
        return chosen

    def planned(self, replica: Replica, jobs: Sequence[Job], now: float) -> None:
        index, resident_s, routed, several = replica.index, 0.0, self._routed, replica.pool.devices > 1
        if several:
            resident_s = max(0.0, self._resident_s[index] - (now - self._seen_s[index]))
        for job in jobs:
            share_s = routed[job][1]
            if share_s:
                self._waiting_s[index] -= share_s
                routed[job] = (index, 0.0)
            elif several:  # others run beside, and have come further than their launches say
                continue
            resident_s += self._share_s(job, replica) * job.denoise_left / job.denoise_steps
        self._resident_s[index], self._seen_s[index] = resident_s, now

    def ended(self, job: Job, now: float) -> None:
        index, share_s = self._routed.pop(job)
        self._waiting_s[index] -= share_s

    def replica_down(self, replica: Replica, now: float) -> None:
        for job in replica.queue.values():
            self.ended(job, now)
        self._resident_s[replica.index] = 0.0

    def _share_s(self, job: Job, replica: Replica) -> float:
        """Seconds of a whole request in company of its own kind on a replica, or alone if it mixes with none."""
        share_s = self._shares.get((replica.pool, job.kind))
        if share_s is None:
            costs = replica.batch_costs
            kind = costs.kind(job)
            batch, shared_by = costs.empty, _SHARED_BY if kind.mixes else 1
            for _ in range(shared_by):
                batch = costs.plus(batch, kind)
            alone = costs.alone(kind)
            share_s = alone.encode_s + kind.steps * costs.step_s(batch) / shared_by + alone.decode_s
            if not replica.costs.learns:
                self._shares[replica.pool, job.kind] = share_s
        return share_s
