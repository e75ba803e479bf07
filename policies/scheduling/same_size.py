"""Batching of requests of one size: the two forms that serving systems offer today.

`SameSizeDynamic` collects a batch and runs it to its end. `SameSizeContinuous` lets requests join and leave between
denoising steps. Both count a batch in images, because that is what fills a device.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import BatchKey, Job
from policies.parameters import Wait, Weight, Width
from policies.scheduling.batch import next_quantum


class SizeQueues:
    """Waiting jobs by batch key, oldest first. A policy tells `left` of those that end while they wait."""

    def __init__(self) -> None:
        self._queues: dict[BatchKey, deque[Job]] = {}
        self._images: dict[BatchKey, int] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, job: Job) -> None:
        """A job waits."""
        key = job.batch_key
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(job)
        self._images[key] = self._images.get(key, 0) + job.images

    def left(self, job: Job) -> None:
        """A job has ended; if it never started it waits no more."""
        if job.replica < 0:
            key = job.batch_key
            self._queues[key].remove(job)
            self._took(key, job)

    def heads(self) -> list[Job]:
        """The oldest waiting job of every size."""
        return [queue[0] for queue in self._queues.values()]

    def head(self, key: BatchKey) -> Job | None:
        """The oldest waiting job of one size."""
        queue = self._queues.get(key)
        return queue[0] if queue else None

    def images(self, key: BatchKey) -> int:
        """Waiting images of one size."""
        return self._images.get(key, 0)

    def take(self, key: BatchKey, images: int, limit: int) -> list[Job]:
        """Remove the oldest jobs that fit beside ``images`` images under ``limit``; one alone always fits."""
        taken: list[Job] = []
        queue = self._queues.get(key)
        while queue and (images + queue[0].images <= limit or images == 0):
            job = queue.popleft()
            taken.append(job)
            images += job.images
            self._took(key, job)
        return taken

    def _took(self, key: BatchKey, job: Job) -> None:
        if self._queues[key]:
            self._images[key] -= job.images
        else:
            del self._queues[key], self._images[key]


class SameSizeDynamic(SchedulingPolicy):
    """Same-size batching with a size and a window, run to the end without joins.

    A batch starts when ``max_batch`` images of one size wait, or when the oldest of them has waited ``window_s``
    seconds; among sizes that are ready the one with the oldest request goes first.

    Args:
        max_batch: images in a batch.
        window_s: seconds that the oldest waits at most for others of its size.
    """

    def __init__(self, max_batch: Width = 8, window_s: Wait = 0.5) -> None:
        self.max_batch = max_batch
        self.window_s = window_s

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._queues = SizeQueues()
        self._ready_s = math.inf  # no size is ready before

    def arrived(self, job: Job, now: float) -> None:
        queues, key = self._queues, job.batch_key
        queues.add(job)
        full = queues.images(key) >= self.max_batch
        self._ready_s = min(self._ready_s, -math.inf if full else self._due_s(job))

    def ended(self, job: Job, now: float) -> None:
        self._queues.left(job)

    def _due_s(self, head: Job) -> float:
        return head.request.arrival_s + self.window_s

    def plan(self, replica: Replica, now: float) -> Decision | None:
        if replica.resident:
            return next_quantum(replica.resident.values())
        if now < self._ready_s:
            return None
        queues = self._queues
        heads = queues.heads()
        ready = [h for h in heads if self._due_s(h) <= now or queues.images(h.batch_key) >= self.max_batch]
        if not ready:
            self._ready_s = min(map(self._due_s, heads), default=math.inf)
            return None
        self._ready_s = -math.inf  # others may be ready too: look again
        oldest = min(ready, key=_order)
        return next_quantum(queues.take(oldest.batch_key, 0, self.max_batch))

    def wakeup(self, now: float) -> float | None:
        return self._ready_s if now < self._ready_s < math.inf else None


class SameSizeContinuous(SchedulingPolicy):
    """Same-size continuous batching: requests of the running size join and leave between denoising steps.

    A replica works on one size at a time. To keep the other sizes from starving, nothing joins any more once the
    oldest waiting request of another size has waited ``drain_after`` times its own standalone latency; the batch then
    drains, and the replica turns to the size of the oldest request.

    Args:
        max_batch: images in a batch.
        drain_after: standalone latencies after which the oldest waiting request of another size has its turn.
    """

    def __init__(self, max_batch: Width = 8, drain_after: Weight = 2.0) -> None:
        self.max_batch = max_batch
        self.drain_after = drain_after

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._queues = SizeQueues()
        self._changed: set[BatchKey | None] = set()

    def arrived(self, job: Job, now: float) -> None:
        self._queues.add(job)
        self._changed.add(job.batch_key)

    def ended(self, job: Job, now: float) -> None:
        if job.replica < 0:
            self._queues.left(job)
            self._changed.add(None)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        queues, jobs = self._queues, list(replica.resident.values())
        if not jobs:
            if not queues:
                return None
            joining = queues.take(min(queues.heads(), key=_order).batch_key, 0, self.max_batch)
        elif (head := queues.head(jobs[0].batch_key)) is not None and self._may_join(jobs, head, now):
            joining = queues.take(head.batch_key, _images(jobs), self.max_batch)
        else:
            return next_quantum(jobs)
        self._changed.add(None)  # another size may no longer be waiting: blocked joins may now be allowed
        return next_quantum(jobs + joining)

    def recalls(self, now: float) -> list[int]:
        if not self._changed:
            return []
        changed, self._changed = self._changed, set()
        queues, named = self._queues, []
        for replica in self.cluster.replicas if queues else ():
            launch = replica.launch
            if launch is None or launch.steps == 1:
                continue
            key = launch.jobs[0].batch_key
            head = queues.head(key) if key in changed or None in changed else None
            if head is not None and _images(replica.resident.values()) + head.images <= self.max_batch:
                named.append(launch.launch_id)
        return named

    def _may_join(self, jobs: list[Job], head: Job, now: float) -> bool:
        """Whether a job of the size that runs fits in beside others, and no other size has waited too long."""
        if _images(jobs) + head.images > self.max_batch or any(job.finishing for job in jobs):
            return False  # decodes go first; who joins is settled after
        standalone_s = self.cluster.replicas[0].costs.standalone_s
        return all(
            other is head or now - other.request.arrival_s < self.drain_after * standalone_s(other.request)
            for other in self._queues.heads()
        )


def _images(jobs: Iterable[Job]) -> int:
    return sum([job.images for job in jobs])


def _order(job: Job) -> int:
    return job.order
