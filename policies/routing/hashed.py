"""Every checkpoint has its replica: the usual way to shard models, blind to load."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from policies.contract import Replica
from policies.job import Job
from policies.routing.contract import RoutingPolicy


class Hashed(RoutingPolicy):
    """Rendezvous hashing of checkpoints to replicas: when one fails, its checkpoints alone move.

    A request that names no checkpoint is hashed by its own id.
    """

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        key = job.request.checkpoint or job.request.request_id
        return max(replicas, key=lambda replica: blake2b(f"{replica.index}/{key}".encode(), digest_size=8).digest())
