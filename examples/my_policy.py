"""A scheduling policy of one's own: the newest request first, one at a time.

tilecast simulate SCENARIO.toml --scheduler examples/my_policy.py:NewestFirst -o RUN
"""

from policies.contract import Decision, Replica, SchedulingPolicy


class NewestFirst(SchedulingPolicy):
    """Finishes what it has started, then takes the request that came last."""

    def plan(self, replica: Replica, now: float) -> Decision | None:
        """What to run on this idle replica."""
        jobs = list(replica.resident.values()) or list(self.cluster.waiting.values())
        return Decision((jobs[-1],), jobs[-1].steps_left) if jobs else None
