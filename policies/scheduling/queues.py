"""Waiting requests by kind, in order of deadline.

Requests of one kind cost the same, so whatever a policy ranks by (deadline, slack, latest start), those of one kind
stay in the order of their deadlines as time goes by, and only kinds have to be compared.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from policies.job import Job
from policies.scheduling.mixing import BatchCosts, BatchKind

_Entry = tuple[float, int, Job]


class KindQueues:
    """What waits for one replica. Jobs that have ended or started are passed over."""

    def __init__(self, costs: BatchCosts) -> None:
        self._costs = costs
        self._queues: dict[BatchKind, list[_Entry]] = {}

    def add(self, job: Job) -> None:
        """A job waits."""
        insort(self._queues.setdefault(self._costs.kind(job), []), (job.request.deadline, job.order, job))

    def kinds(self) -> list[BatchKind]:
        """The kinds of which a job waits."""
        return [kind for kind in list(self._queues) if self.head(kind) is not None]

    def head(self, kind: BatchKind) -> Job | None:
        """The job of one kind whose deadline is first."""
        queue = self._queues.get(kind)
        while queue:
            if queue[0][2].state == "waiting":
                return queue[0][2]
            del queue[0]
        self._queues.pop(kind, None)
        return None

    def first(self, kind: BatchKind, count: int) -> list[Job]:
        """The jobs of one kind whose deadlines are first, at most ``count``."""
        found: list[Job] = []
        for _, _, job in self._queues.get(kind, ()):
            if job.state == "waiting":
                found.append(job)
                if len(found) == count:
                    break
        return found

    def pop(self, kind: BatchKind) -> None:
        """Take the head of a kind out of the queue."""
        del self._queues[kind][0]

    def take_before(self, kind: BatchKind, deadline: float) -> list[Job]:
        """Take out the jobs of one kind whose deadlines are before a time, seconds."""
        queue = self._queues[kind]
        count = bisect_left(queue, (deadline,))
        taken = [job for _, _, job in queue[:count] if job.state == "waiting"]
        del queue[:count]
        return taken
