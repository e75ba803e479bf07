"""Quanta that are kept: how a policy that thinks at events alone keeps the promise of `policies.contract`.

A policy that would think anew at every step boundary could never plan further than one step. Here it thinks when a
quantum has been used up or an event has broken it; at the boundaries in between, the quantum simply goes on. Events
break a quantum in `SchedulingPolicy.recalls` and nowhere else. Then planning step by step and planning by quanta think
at the same instants and know the same, whatever the policy's rule is.
"""

from __future__ import annotations

from collections.abc import Iterable

from policies.contract import Cluster, Decision, Replica
from policies.job import Job
from policies.scheduling.batch import beside_first


class Quanta:
    """The quantum that every replica works on."""

    def __init__(self, cluster: Cluster) -> None:
        self._replicas = {replica.index: replica for replica in cluster.replicas}
        self._kept: dict[int, tuple[tuple[Job, ...], int] | None] = dict.fromkeys(self._replicas)

    def keep(self, replica: Replica, decision: Decision) -> Decision:
        """Remember a new decision with jobs; it is returned as it is."""
        jobs = decision.jobs
        self._kept[replica.index] = (jobs, jobs[0].steps_left - decision.steps)
        return decision

    def rest(self, replica: Replica) -> Decision | None:
        """What is left of the quantum kept for an idle replica; None when it is time to think anew."""
        kept = self._kept[replica.index]
        if kept is None:
            return None
        jobs, last = kept
        left = jobs[0].steps_left - last
        if left > 0:
            for job in jobs:
                if job.state != "resident":
                    break
            else:
                return Decision(jobs, left)
        self._kept[replica.index] = None
        return None

    def broken(self, indexes: Iterable[int]) -> list[int]:
        """Break the quanta of these replicas; the ids of the launches to recall. For `SchedulingPolicy.recalls`."""
        named = []
        for index in indexes:
            if self._kept[index] is not None:
                self._kept[index] = None
                launch = self._replicas[index].launch
                if launch is not None and launch.steps > 1:
                    named.append(launch.launch_id)
        return named


def to_decode(jobs: Iterable[Job]) -> Decision | None:
    """Finish what only needs that, such as its decode: it is done but for it, and it frees its place."""
    finishing = [job for job in jobs if job.finishing]
    return Decision(tuple(beside_first(finishing)), 1) if finishing else None
