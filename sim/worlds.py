"""The durations of several models on several pools: a world of each model on each pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.contract import Launch
from sim.durations import Durations
from sim.timeline import Timeline
from sim.world import World


class Worlds(Durations):
    """Asks of every launch the world of its model on the pool of its replica.

    Args:
        of: worlds by the number of the pool and the model; each knows all replicas of the cluster.
        pool_of: the number of every replica's pool.
    """

    def __init__(self, of: Mapping[tuple[int, str], World], pool_of: Sequence[int]) -> None:
        self.replicas = len(pool_of)
        self._pool_of = tuple(pool_of)
        self._of = dict(of)
        for (pool, _), world in of.items():  # a load of weights is of no model
            self._of.setdefault((pool, ""), world)

    def timeline(self, launch: Launch, start: int, slowdown: int = 1000, steps: int | None = None) -> Timeline:
        return self._world(launch).timeline(launch, start, slowdown, steps)

    def put_back(self, timeline: Timeline, time: int) -> None:
        self._world(timeline.launch).put_back(timeline, time)

    def came(self, replica: int) -> None:
        self._of[self._pool_of[replica], ""].came(replica)  # all of a run share what is loaded

    def lost(self, replica: int) -> None:
        self._of[self._pool_of[replica], ""].lost(replica)

    def _world(self, launch: Launch) -> World:
        return self._of[self._pool_of[launch.replica], launch.batch.model]
