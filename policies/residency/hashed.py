"""Every checkpoint has its replica: the usual way to shard models, blind to load."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from policies.job import Job
from policies.residency.contract import DispatchPolicy, Lane


class Hashed(DispatchPolicy):
    """Rendezvous hashing of checkpoints to replicas: when one fails, its checkpoints alone move."""

    def choose(self, job: Job, lanes: Sequence[Lane], now: float) -> Lane:
        checkpoint = job.request.checkpoint
        return max(lanes, key=lambda lane: blake2b(f"{lane.index}/{checkpoint}".encode(), digest_size=8).digest())
