"""Batching of requests of one size: the two forms that serving systems offer today.

`SameSizeDynamic` collects a batch and runs it to its end. `SameSizeContinuous` lets requests join and leave between
denoising steps. Both count a batch in images, because that is what fills a device.
"""

from __future__ import annotations

from collections import deque

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import BatchKey, Job
from policies.scheduling.batch import next_quantum


class SizeQueues:
    """Waiting jobs by batch key, oldest first. Jobs that ended while waiting are passed over."""

    def __init__(self) -> None:
        self._queues: dict[BatchKey, deque[Job]] = {}

    def add(self, job: Job) -> None:
        self._queues.setdefault(job.batch_key, deque()).append(job)

    def heads(self) -> list[Job]:
        """The oldest waiting job of every size."""
        heads = [self.head(key) for key in list(self._queues)]
        return [head for head in heads if head is not None]

    def head(self, key: BatchKey) -> Job | None:
        queue = self._queues.get(key)
        while queue:
            if queue[0].state == "waiting":
                return queue[0]
            queue.popleft()
        if queue is not None:
            del self._queues[key]
        return None

    def images(self, key: BatchKey) -> int:
        """Waiting images of one size."""
        return sum([job.images for job in self._queues.get(key, ()) if job.state == "waiting"])

    def take(self, key: BatchKey, images: int, limit: int) -> list[Job]:
        """Remove the oldest jobs that fit beside ``images`` images under ``limit``; one alone always fits."""
        taken: list[Job] = []
        while (head := self.head(key)) is not None and (images + head.images <= limit or images == 0):
            taken.append(self._queues[key].popleft())
            images += head.images
        return taken


class SameSizeDynamic(SchedulingPolicy):
    """Same-size batching with a size and a window, run to the end without joins.

    A batch starts when ``max_batch`` images of one size wait, or when the oldest of them has waited ``window_s``
    seconds; among sizes that are ready the one with the oldest request goes first.
    """

    def __init__(self, max_batch: int = 8, window_s: float = 0.5) -> None:
        self.max_batch = max_batch
        self.window_s = window_s

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._queues = SizeQueues()

    def arrived(self, job: Job, now: float) -> None:
        self._queues.add(job)

    def _ready_s(self, head: Job) -> float:
        return head.request.arrival_s + self.window_s

    def plan(self, replica: Replica, now: float) -> Decision | None:
        if replica.resident:
            return next_quantum(replica.resident.values())
        ready = [
            head
            for head in self._queues.heads()
            if self._ready_s(head) <= now or self._queues.images(head.batch_key) >= self.max_batch
        ]
        if not ready:
            return None
        oldest = min(ready, key=_order)
        return next_quantum(self._queues.take(oldest.batch_key, 0, self.max_batch))

    def wakeup(self, now: float) -> float | None:
        times = [t for head in self._queues.heads() if (t := self._ready_s(head)) > now]
        return min(times, default=None)


class SameSizeContinuous(SchedulingPolicy):
    """Same-size continuous batching: requests of the running size join and leave between denoising steps.

    A replica works on one size at a time. To keep the other sizes from starving, nothing joins any more once the
    oldest waiting request of another size has waited ``patience`` times its own standalone latency; the batch then
    drains, and the replica turns to the size of the oldest request.
    """

    def __init__(self, max_batch: int = 8, patience: float = 2.0) -> None:
        self.max_batch = max_batch
        self.patience = patience

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._queues = SizeQueues()
        self._changed: set[BatchKey | None] = set()

    def arrived(self, job: Job, now: float) -> None:
        self._queues.add(job)
        self._changed.add(job.batch_key)

    def ended(self, job: Job, now: float) -> None:
        if job.replica < 0:
            self._changed.add(None)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        jobs = list(replica.resident.values())
        if jobs:
            key = jobs[0].batch_key
            images = sum([job.images for job in jobs])
            decoding = any(job.stage == "decode" for job in jobs)  # decodes go first; who joins is settled after
            may_join = not decoding and self._may_join(key, now)
            joining = self._queues.take(key, images, self.max_batch) if may_join else []
        else:
            oldest = min(self._queues.heads(), key=_order, default=None)
            if oldest is None:
                return None
            joining = self._queues.take(oldest.batch_key, 0, self.max_batch)
        if joining:
            self._changed.add(None)  # another size may no longer be waiting: blocked joins may now be allowed
        return next_quantum(jobs + joining)

    def recalls(self, now: float) -> list[int]:
        changed, self._changed = self._changed, set()
        if not changed:
            return []
        named = []
        for replica in self.cluster.replicas:
            launch = replica.launch
            if launch is None or launch.steps == 1:
                continue
            key = launch.jobs[0].batch_key
            head = self._queues.head(key) if key in changed or None in changed else None
            if head is not None:
                images = sum([job.images for job in replica.resident.values()])
                if images + head.images <= self.max_batch:
                    named.append(launch.launch_id)
        return named

    def _may_join(self, key: BatchKey, now: float) -> bool:
        standalone = self.cluster.predictor.standalone
        return all(
            head.batch_key == key or now - head.request.arrival_s < self.patience * standalone(head.request)
            for head in self._queues.heads()
        )


def _order(job: Job) -> int:
    return job.order
