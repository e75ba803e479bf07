"""How much every replica has to do, in predicted seconds, one request after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from policies.contract import Cluster, Replica
from policies.job import Job


@dataclass
class _Routed:
    """A request that was routed and has not ended."""

    index: int
    seconds: dict[str, float]  # of a step of each stage
    alone_s: float
    waits: bool = True


@dataclass
class _Backlog:
    """Of one replica: what waits, and what had started when that was last looked at."""

    waiting_s: float = 0.0
    started_s: float = 0.0
    seen_s: float = 0.0
    requests: int = 0


class Backlogs:
    """The backlog of every replica; a routing policy passes on what it is told.

    Args:
        cluster: cluster of the run.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._of = {replica.index: _Backlog() for replica in cluster.replicas}
        self._routed: dict[Job, _Routed] = {}
        self._wanted: Counter[tuple[int, str]] = Counter()  # requests by replica and checkpoint

    def seconds(self, replica: Replica, now: float) -> float:
        """Predicted seconds until a replica is done with all that it was given, the load under way included."""
        backlog, launch = self._of[replica.index], replica.launch
        load_s = launch.load.expected_s if launch is not None and launch.load is not None else 0.0
        return backlog.waiting_s + max(0.0, backlog.started_s + load_s - (now - backlog.seen_s))

    def has_requests_for(self, checkpoint: str, replica: Replica) -> bool:
        """Whether a request for a checkpoint was given to a replica and has not ended."""
        return self._wanted[replica.index, checkpoint] > 0

    def add(self, job: Job, replica: Replica) -> None:
        """A request goes to a replica."""
        step_s, batch = replica.costs.step_s, job.kind.batch
        seconds = {stage: step_s(stage, batch) for stage in job.launched_stages}
        routed = self._routed[job] = _Routed(replica.index, seconds, job.seconds_left(seconds))
        backlog = self._of[replica.index]
        backlog.waiting_s += routed.alone_s
        backlog.requests += 1
        self._wanted[replica.index, job.request.checkpoint] += 1

    def planned(self, replica: Replica, jobs: Iterable[Job], now: float) -> None:
        """See `policies.routing.contract.RoutingPolicy.planned`."""
        backlog = self._of[replica.index]
        left_s = max(0.0, backlog.started_s - (now - backlog.seen_s)) if replica.pool.devices > 1 else 0.0
        backlog.started_s, backlog.seen_s = left_s, now
        for job in jobs:
            routed = self._routed.get(job)
            if routed is None:  # it was left to whichever replica came first
                self.add(job, replica)
                routed = self._routed[job]
            if routed.waits:
                routed.waits = False
                backlog.waiting_s -= routed.alone_s
            elif replica.pool.devices > 1:  # others run beside, and have come further than their launches say
                continue
            backlog.started_s += job.seconds_left(routed.seconds)

    def ended(self, job: Job) -> None:
        """A request has ended."""
        routed = self._routed.pop(job, None)
        if routed is None:
            return
        backlog = self._of[routed.index]
        if routed.waits:
            backlog.waiting_s -= routed.alone_s
        backlog.requests -= 1
        self._wanted[routed.index, job.request.checkpoint] -= 1
        if not backlog.requests:
            self._of[routed.index] = _Backlog()

    def replica_down(self, replica: Replica) -> None:
        """A replica has failed: what waits for it goes elsewhere."""
        for job in replica.queue.values():
            self.ended(job)
        self._of[replica.index].started_s = 0.0
