"""Waiting requests by kind, in order of deadline.

Requests of one kind cost the same, so whatever a policy ranks by (deadline, slack, latest start), those of one kind
stay in the order of their deadlines as time goes by, and only kinds have to be compared.
"""

from __future__ import annotations

from heapq import heappop, heappush

from policies.job import Job
from policies.scheduling.mixing import BatchCosts, Kind

_Entry = tuple[float, int, Job]


class KindQueues:
    """What waits for one replica. Jobs that have ended, or started elsewhere, are passed over."""

    def __init__(self, costs: BatchCosts) -> None:
        self._costs = costs
        self._heaps: dict[Kind, list[_Entry]] = {}

    def add(self, job: Job) -> None:
        """A job waits."""
        heappush(self._heaps.setdefault(self._costs.kind(job), []), (job.request.deadline, job.order, job))

    def heads(self) -> list[tuple[Kind, Job]]:
        """The job of every kind whose deadline is first."""
        heads = [(kind, self.head(kind)) for kind in list(self._heaps)]
        return [(kind, job) for kind, job in heads if job is not None]

    def head(self, kind: Kind) -> Job | None:
        """The job of one kind whose deadline is first."""
        heap = self._heaps[kind]
        while heap:
            if heap[0][2].state == "waiting":
                return heap[0][2]
            heappop(heap)
        del self._heaps[kind]
        return None

    def pop(self, kind: Kind) -> None:
        """Take the head of a kind out of the queue."""
        heappop(self._heaps[kind])
