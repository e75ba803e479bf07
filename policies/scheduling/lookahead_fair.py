"""A floor under the attainment of every size and tenant: how much more those count whose like have missed too often.

Whoever maximises how many are in time pays with those that cost most, the large ones. Of each group, a size or a
tenant, a debt is kept: misses beyond those that its floor permits. A request of a group in debt is worth the more the
larger the debt is, so the search for whom there is time leaves out others in its place, until the debt is paid. A floor
that nobody could keep for all drives all groups into debt, and their attainments towards each other.
"""

from __future__ import annotations

import math

from policies.job import Job

_GAIN = 0.15
"""Of the logarithm of what a request is worth, for each miss too many."""
_MOST = 4.0
"""The largest logarithm of it: groups that are all that deep in debt are alike again."""
_KEPT = 0.99
"""Of a group's debt, when one of it ends: what was long ago counts less."""


class Floors:
    """Debts of sizes and tenants.

    Args:
        floor: the share of its requests that each is to have in time.
    """

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._debts: dict[object, float] = {}

    def ended(self, job: Job) -> None:
        """A request with a deadline has ended, in time or not."""
        met = job.done and job.finish_s is not None and job.finish_s <= job.request.deadline
        for group in _groups(job):
            debt = _KEPT * self._debts.get(group, 0.0) + (not met) - (1.0 - self._floor)
            self._debts[group] = max(0.0, debt)

    def worth(self, job: Job) -> float:
        """What a request counts beside others: 1 of a group that has missed no more than it may."""
        debt = max([self._debts.get(group, 0.0) for group in _groups(job)])
        return math.exp(min(_MOST, _GAIN * debt))


def _groups(job: Job) -> tuple[object, ...]:
    request = job.request
    return (request.size, request.tenant) if request.tenant else (request.size,)
