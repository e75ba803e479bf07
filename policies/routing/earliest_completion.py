"""The replica that would be done first with everything it has and the request."""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract import Cluster, Replica
from policies.job import Job
from policies.routing.contract import RoutingPolicy
from policies.scheduling.mixing import BatchCosts, BatchKind

_SHARED_BY = 4


class EarliestCompletion(RoutingPolicy):
    """The replica that would be done first with what it has and a request of this kind; the first of several.

    What waits is taken to run in company of its own kind, four to a step; what has started is as `planned` saw it last,
    less the seconds since. A request that finds little company takes as long as it does alone.
    """

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        indexes = [replica.index for replica in cluster.replicas]
        self._costs = BatchCosts(cluster.replicas[0].costs)
        self._waiting_s = dict.fromkeys(indexes, 0.0)
        self._resident_s = dict.fromkeys(indexes, 0.0)
        self._seen_s = dict.fromkeys(indexes, 0.0)
        self._routed: dict[Job, tuple[int, float]] = {}  # the replica, and the seconds it adds to what waits

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        kind = self._costs.kind(job)
        share_s, alone_s = self._share_s(kind), self._costs.whole_s(kind)
        ends = []
        for place, replica in enumerate(replicas):
            index = replica.index
            resident_s = max(0.0, self._resident_s[index] - (now - self._seen_s[index]))
            ends.append((max(alone_s, resident_s + self._waiting_s[index] + share_s), place))
        chosen = replicas[min(ends)[1]]
        self._waiting_s[chosen.index] += share_s
        self._routed[job] = (chosen.index, share_s)
        return chosen

    def planned(self, replica: Replica, jobs: Sequence[Job], now: float) -> None:
        index, resident_s = replica.index, 0.0
        for job in jobs:
            share_s = self._routed[job][1]
            if share_s:
                self._waiting_s[index] -= share_s
                self._routed[job] = (index, 0.0)
            kind = self._costs.kind(job)
            resident_s += self._share_s(kind) * job.denoise_left / kind.steps
        self._resident_s[index], self._seen_s[index] = resident_s, now

    def ended(self, job: Job, now: float) -> None:
        index, share_s = self._routed.pop(job)
        self._waiting_s[index] -= share_s
        self._costs.forget(job)

    def replica_down(self, replica: Replica, now: float) -> None:
        for job in replica.queue.values():
            self.ended(job, now)
        self._resident_s[replica.index] = 0.0

    def _share_s(self, kind: BatchKind) -> float:
        """Seconds of a whole request in company of its own kind, or alone if it mixes with none."""
        costs = self._costs
        batch, shared_by = costs.empty, _SHARED_BY if kind.mixes else 1
        for _ in range(shared_by):
            batch = costs.plus(batch, kind)
        alone = costs.alone(kind)
        return alone.encode_s + kind.steps * costs.step_s(batch) / shared_by + alone.decode_s
