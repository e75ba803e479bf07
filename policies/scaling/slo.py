"""As many replicas as would keep the deadlines of what waits, by the predicted seconds of the work before it."""

from __future__ import annotations

import math
from typing import Annotated

from policies.parameters import Part, Spare, Wait, Weight, Width
from policies.scaling.busy import BusyMean
from policies.scaling.contract import PoolView
from policies.scaling.steady import Steady
from traces.limits import POSITIVE_SPAN, Range


class Slo(Steady):
    """The fewest replicas with which enough of what waits is predicted to be done in time, were they all there now.

    Replicas that share the work before a request evenly are done with it after its predicted seconds divided by their
    number; that, and the request itself, must fit into what is left until its deadline. So many that the share
    ``attainment`` of the requests that still can be in time are: more than there are means that predicted completions
    miss deadlines, fewer that fewer would still keep them. But not fewer than what came of late keeps busy for the
    share ``target`` of their time, or those that come next would be late. A request that cannot be in time any more
    counts as work before others, and asks for nothing. One without a deadline is due after ``soft_slo_scale`` times its
    own seconds.

    Args:
        attainment: the share of what waits.
        target: the share of its time that each is to be busy at most, over the last ``window_s`` seconds.
        window_s: seconds of which the share is taken.
        batch: requests that share a step, where they mix.
        soft_slo_scale: how long one without a deadline may take, in its own seconds.
        every_s: how often it looks at what waits, at most.
        keep_alive_s, delay_s, cooldown_s, buffer: see `policies.scaling.steady.Steady`.
    """

    def __init__(
        self,
        attainment: Part = 0.95,
        target: Annotated[float, Range(0.01, 1)] = 0.7,
        window_s: Annotated[float, POSITIVE_SPAN] = 300.0,
        batch: Width = 1,
        soft_slo_scale: Weight = 10.0,
        every_s: Wait = 1.0,
        keep_alive_s: Wait = 300.0,
        delay_s: Wait = 0.0,
        cooldown_s: Wait = 0.0,
        buffer: Spare = 0,
    ) -> None:
        super().__init__(keep_alive_s, delay_s, cooldown_s, buffer)
        self.attainment = attainment
        self.target = target
        self.window_s = window_s
        self.batch = batch
        self.soft_slo_scale = soft_slo_scale
        self.every_s = every_s

    def reset(self) -> None:
        super().reset()
        self._busy = BusyMean(self.window_s)
        self._looked_s = -math.inf
        self._found = 0.0
        self._stale = False

    def demand(self, pool: PoolView, now: float) -> float:
        self._stale = now < self._looked_s + self.every_s
        if not self._stale:
            self._looked_s, self._found = now, self._needed(pool, now) if pool.jobs else 0.0
        return max(self._found, self._busy.tell(pool.busy, now) / self.target)

    def look_again(self, now: float) -> float:
        return min(self._looked_s + self.every_s if self._stale else math.inf, self._busy.look_again(now))

    def _needed(self, pool: PoolView, now: float) -> float:
        """How many replicas, as the class says; one at least where there is a request."""
        waiting, batch = pool.waiting, self.batch
        before_s = 0.0
        for name, job in pool.jobs.items():
            if name not in waiting:
                before_s += pool.seconds_left(job, now) * pool.seconds(job, batch) / pool.seconds(job)
        asking = []
        for job in waiting.values():
            alone_s, due_s = pool.seconds(job), job.request.deadline
            if due_s == math.inf:
                due_s = job.request.arrival_s + self.soft_slo_scale * alone_s
            slack_s = due_s - now - alone_s
            if slack_s >= 0:
                asking.append(before_s / slack_s if slack_s > 0 else math.inf if before_s else 1.0)
            before_s += pool.seconds(job, batch)
        asking.sort()
        in_time = math.ceil(self.attainment * len(asking))
        return max(1.0, min(asking[in_time - 1], float(pool.most))) if in_time else 1.0
