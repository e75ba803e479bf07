"""How long launches take, as the simulator asks for it."""

from __future__ import annotations

from policies.contract import Launch
from sim.timeline import Timeline


class Durations:
    """Base of what says how long launches take.

    Attributes:
        replicas: of the cluster.
    """

    replicas: int

    def timeline(self, launch: Launch, start: int, slowdown: int = 1000, steps: int | None = None) -> Timeline:
        """When the steps of a launch end that starts now. Where it ends earlier, `put_back` must be told.

        Args:
            launch: which.
            start: now, picoseconds.
            slowdown: thousandths of its time that every step takes.
            steps: steps of the launch, the first alone; None: all.
        """
        raise NotImplementedError

    def put_back(self, timeline: Timeline, time: int) -> None:
        """A launch ends at a time before the end of its timeline: noise of what it does not run is still to come."""
        raise NotImplementedError

    def came(self, replica: int) -> None:
        """A replica is ready, with what all have loaded from the beginning."""

    def lost(self, replica: int) -> None:
        """A replica failed: weights that its host kept in memory are gone, too."""
