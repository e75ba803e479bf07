"""Late binding: no request belongs to a replica before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract import Replica
from policies.job import Job
from policies.routing.contract import RoutingPolicy


class Shared(RoutingPolicy):
    """All replicas draw from one queue, so that none is idle while a request waits that it could run."""

    binds = False

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica | None:
        return None
