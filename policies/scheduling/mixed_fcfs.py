"""Continuous batching of mixed sizes, first come, first served: what batching alone gives, without deadlines."""

from __future__ import annotations

from collections import deque

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job
from policies.parameters import Width
from policies.scheduling.batch import next_quantum
from policies.scheduling.quantum import Quanta, to_decode


class MixedFCFS(SchedulingPolicy):
    """Everything a replica holds denoises in one batch; the oldest waiting request joins at the next step boundary.

    There is one queue for all replicas, and no replica takes more than its share of all requests not ended, those that
    have failed left out. A tiled request runs by itself: a replica takes it when all that came before it have ended
    there.

    Args:
        max_batch: requests in a batch.
    """

    def __init__(self, max_batch: Width = 12) -> None:
        self.max_batch = max_batch

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._queue: deque[Job] = deque()
        self._quanta = Quanta(cluster)

    def arrived(self, job: Job, now: float) -> None:
        self._queue.append(job)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        decision = self._quanta.rest(replica)
        if decision is not None:
            return decision
        jobs = list(replica.resident.values())
        decision = to_decode(jobs)
        if decision is None:
            jobs += self._take(jobs)
            if not jobs:
                return None
            decision = next_quantum(jobs)
        return self._quanta.keep(replica, decision)

    def recalls(self, now: float) -> list[int]:
        if not self.cluster.waiting:
            return []
        share, head = self._share(), self._head()
        return self._quanta.broken(
            r.index for r in self.cluster.replicas if len(r.resident) < share and self._may_join(r, head)
        )

    def _head(self) -> Job | None:
        queue = self._queue
        while queue and queue[0].state != "waiting":
            queue.popleft()
        return queue[0] if queue else None

    def _may_join(self, replica: Replica, head: Job | None) -> bool:
        first = next(iter(replica.resident.values()), None)
        return first is None or (first.mixes and (head is None or head.mixes))

    def _share(self) -> int:
        """Requests a replica may hold: its share of all there are, rounded up, under the cap."""
        working = sum([replica.up for replica in self.cluster.replicas])
        return min(self.max_batch, -(-len(self.cluster.jobs) // max(1, working)))

    def _take(self, held: list[Job]) -> list[Job]:
        taken: list[Job] = []
        queue, room = self._queue, self._share() - len(held)
        first = held[0] if held else None
        while queue and len(taken) < room and (first is None or first.mixes):
            job = queue[0]
            if job.state == "waiting":
                if first is not None and not job.mixes:
                    break
                first = first or job
                taken.append(job)
            queue.popleft()
        return taken
