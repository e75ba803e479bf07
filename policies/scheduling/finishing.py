"""What a replica runs that is to be given up: it finishes what it has, and begins nothing.

The scheduling policy is not asked any more, as it would start requests there; to it, the replica is gone.
"""

from __future__ import annotations

from policies.contract import Decision, Load, Replica, SchedulingPolicy
from policies.job import Job
from policies.scheduling.batch import beside_first, next_quantum


class Finishing(SchedulingPolicy):
    """Runs what lives on a replica to its end, the oldest first and beside it all that can share its steps."""

    def plan(self, replica: Replica, now: float) -> Decision | None:
        jobs = list(replica.resident.values())
        if not jobs:
            return None
        first, weights = jobs[0], replica.weights
        if weights is not None and first.request.checkpoint not in replica.loaded:
            return Decision(load=_load(replica, first.request.checkpoint))
        alike = [job for job in jobs if _weights(job) == _weights(first)]
        return next_quantum(beside_first(alike))


def _weights(job: Job) -> tuple[str, str, str]:
    return job.request.model, job.request.checkpoint, job.kind.adapters


def _load(replica: Replica, checkpoint: str) -> Load:
    """The load of a checkpoint, in the place of those that have lain there longest."""
    weights, stays = replica.weights, list(replica.loaded)
    assert weights is not None
    while not weights.fit([*stays, checkpoint]):
        stays.pop(0)
    evict = tuple([held for held in replica.loaded if held not in stays])
    return Load(checkpoint, evict, replica.load_s(checkpoint))
