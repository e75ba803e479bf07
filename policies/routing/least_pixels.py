"""The replica with the fewest outstanding pixels, as PatchedServe publishes it (arXiv 2501.09253)."""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract import Cluster, Replica
from policies.job import Job
from policies.routing.contract import RoutingPolicy


class LeastPixels(RoutingPolicy):
    """The replica with the fewest pixels in requests that have not ended; the first of several.

    A pixel of a request that is nearly done counts as much as one of a request that has not begun, and a large image's
    pixels cost less each.
    """

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._pixels = dict.fromkeys([replica.index for replica in cluster.replicas], 0)
        self._routed: dict[Job, tuple[int, int]] = {}  # the replica, and the pixels it adds there

    def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        outstanding = self._pixels
        chosen = replicas[0]
        fewest = outstanding[chosen.index]
        for replica in replicas:
            if outstanding[replica.index] < fewest:
                chosen, fewest = replica, outstanding[replica.index]
        pixels = job.images * job.request.pixels
        outstanding[chosen.index] += pixels
        self._routed[job] = (chosen.index, pixels)
        return chosen

    def ended(self, job: Job, now: float) -> None:
        index, pixels = self._routed.pop(job)
        self._pixels[index] -= pixels

    def replica_down(self, replica: Replica, now: float) -> None:
        for job in replica.queue.values():
            self.ended(job, now)
