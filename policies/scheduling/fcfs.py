"""First come, first served, one request at a time."""

from __future__ import annotations

from collections import deque

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job


class FCFS(SchedulingPolicy):
    """Each replica takes the oldest waiting request and runs it to its end."""

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._queue: deque[Job] = deque()

    def arrived(self, job: Job, now: float) -> None:
        self._queue.append(job)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        for job in replica.resident.values():
            return Decision((job,), job.steps_left)
        queue = self._queue
        while queue:
            job = queue.popleft()
            if job.state == "waiting":
                return Decision((job,), job.steps_left)
        return None
