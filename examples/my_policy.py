"""A scheduling policy of one's own: the newest request first, one at a time.

tilecast simulate SCENARIO.toml --scheduler examples/my_policy.py:NewestFirst -o RUN
"""

import tilecast as tc


class NewestFirst(tc.SchedulingPolicy):
    """Finishes what it has started, then takes the request that came last."""

    def plan(self, replica: tc.Replica, now: float) -> tc.Decision | None:
        """What to run on this idle replica."""
        jobs = list(replica.resident.values()) or list(replica.queue.values())
        return tc.Decision((jobs[-1],), jobs[-1].steps_left) if jobs else None
