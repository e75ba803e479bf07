"""The NIRVANA-like baseline, as PatchedServe's authors ran it: one resolution after another.

NIRVANA itself skips denoising steps by starting from a similar earlier picture. That part changes what is asked and
not when it runs, so it is a transformation of the trace (`Trace.with_step_reduction`) that any scheduler can be run
with. What is left here is the order of the authors' stand-in.
"""

from __future__ import annotations

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import BatchKey, Job
from policies.parameters import Width
from policies.scheduling.batch import next_quantum
from policies.scheduling.same_size import SizeQueues


class Nirvana(SchedulingPolicy):
    """Batches of one size, run to their end without joins; a size is drained before the next smaller one begins.

    A replica starts with the largest size that waits. When no request of its size waits any more it goes on to the
    next smaller one, and after the smallest to the largest again. Within a size the oldest go first.

    Args:
        max_batch: images in a batch.
    """

    def __init__(self, max_batch: Width = 12) -> None:
        self.max_batch = max_batch

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._queues = SizeQueues()
        self._draining: dict[int, tuple[int, BatchKey]] = {}  # by replica

    def arrived(self, job: Job, now: float) -> None:
        self._queues.add(job)

    def ended(self, job: Job, now: float) -> None:
        self._queues.left(job)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        if replica.resident:
            return next_quantum(replica.resident.values())
        sizes = sorted([(head.request.pixels, head.batch_key) for head in self._queues.heads()], reverse=True)
        if not sizes:
            return None
        draining = self._draining.get(replica.index)
        size = next((size for size in sizes if draining is None or size <= draining), sizes[0])
        self._draining[replica.index] = size
        return next_quantum(self._queues.take(size[1], 0, self.max_batch))
