"""What a scaling policy is asked and may answer: how many replicas a pool should have.

It is asked when something has happened that can change the answer, a request came, started or ended, a replica came or
went, and at the times that it names itself. It sees counts and what waits, never which replica is which: the controller
chooses whom to start and whom to stop (`policies.scaler`).

The trap: at what instants a launch ends depends on how steps are grouped into launches, and so does how many steps a
running request is known to have done. What an answer depends on may therefore change only at the events named above and
with the time; `PoolView.seconds_left` keeps to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from policies.contract import Policy
from policies.job import Job
from predictors.costs import CostModel

if TYPE_CHECKING:
    from policies.scheduling.mixing import BatchCosts


class PoolView(NamedTuple):
    """A pool as it is at one instant.

    Attributes:
        name: of the pool; empty where it is the only one.
        least, most: how many replicas it may have.
        ready: replicas that take requests.
        starting: replicas that will take them: ordered, and not there yet, or finishing first what they have.
        draining: replicas that finish what they have and are stopped then.
        failed: replicas that would take requests, had they not failed.
        busy: of the ready ones, those on which requests live or for which requests wait.
        waiting: requests never started, by id, in order of arrival.
        jobs: all requests not ended, by id.
        start_s: predicted seconds from the order to start a replica until it takes requests.
        costs, batch_costs: of each of its replicas, as of `policies.contract.Replica`.
    """

    name: str
    least: int
    most: int
    ready: int
    starting: int
    draining: int
    failed: int
    busy: int
    waiting: Mapping[str, Job]
    jobs: Mapping[str, Job]
    start_s: float
    costs: CostModel
    batch_costs: BatchCosts

    @property
    def there(self) -> int:
        """Replicas that take requests, or will."""
        return self.ready + self.starting + self.failed

    @property
    def running(self) -> int:
        """How many requests have started and not ended."""
        return len(self.jobs) - len(self.waiting)

    def seconds(self, job: Job, shared_by: int = 1) -> float:
        """Predicted seconds of a replica's time that a whole request takes, in steps shared by so many of its kind."""
        costs = self.batch_costs
        kind = costs.kind(job)
        if shared_by == 1 or not kind.mixes:
            return costs.whole_s(kind)
        batch = costs.empty
        for _ in range(shared_by):
            batch = costs.plus(batch, kind)
        alone = costs.alone(kind)
        return alone.encode_s + kind.steps * costs.step_s(batch) / shared_by + alone.decode_s

    def seconds_left(self, job: Job, now: float) -> float:
        """Predicted seconds that a request still needs, alone: one that has started has run ever since."""
        if job.first_start_s is None:
            return self.seconds(job)
        return max(0.0, self.seconds(job) - (now - job.first_start_s))

    def backlog_s(self, now: float) -> float:
        """Predicted seconds in which one replica would be done with all requests, one after another."""
        return sum([self.seconds_left(job, now) for job in self.jobs.values()])


class ScalingPolicy(Policy):
    """Base of every scaling policy. Only `wanted` must be written; every pool has a copy of its own."""

    required = ("wanted",)

    def reset(self) -> None:
        """Begin a run: forget everything of an earlier one."""

    def wanted(self, pool: PoolView, now: float) -> int:
        """How many replicas the pool should have that take requests, those on their way included.

        An answer below its least or above its most is taken for that.
        """
        raise NotImplementedError

    def wakeup(self, now: float) -> float | None:
        """When to ask again although nothing happened, in seconds; None for never. Asked after every `wanted`."""
        return None
