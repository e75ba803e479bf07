"""Schedulers that serve the most urgent request first and may preempt at step boundaries.

The most urgent job leads; jobs of its size ride along, most urgent first, up to ``max_batch`` images. A batch stays
together until one of its jobs changes stage or a more urgent request (or one that fits in) arrives. Between such
events planning again gives the same batch, which is what lets a quantum be long: without that rule, least slack
would swap two equally urgent requests at every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import chain
from typing import NamedTuple

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import BatchKey, Job, JobKind
from policies.parameters import Width
from policies.scheduling.batch import next_quantum

_Entry = tuple[float, int, Job]


class _Batch(NamedTuple):
    """What a replica works on, with the urgencies as they were when it was put together."""

    jobs: tuple[Job, ...]
    last: int  # steps its first job has left when the batch has run as far as was planned
    formed_s: float
    most_urgent: float
    least_urgent: float
    images: int


class UrgencyPolicy(SchedulingPolicy):
    """Base of `EDF`, `SRPT` and `LeastSlack`; they differ in `urgency` and ``drift`` only.

    Args:
        max_batch: images in a batch.
        drop_late: drop a waiting request once it could not meet its deadline even alone from now on.
    """

    drift: float = 0.0
    """How the urgency of a running job changes with time, per second."""

    def __init__(self, max_batch: Width = 4, drop_late: bool = False) -> None:
        self.max_batch = max_batch
        self.drop_late = drop_late

    def urgency(self, job: Job) -> float:
        """A number that is smaller for more urgent jobs, and constant while a job does not run."""
        raise NotImplementedError

    def remaining_s(self, job: Job) -> float:
        """Predicted seconds a job still needs, alone on a replica."""
        key = (job.kind, job.steps_left)
        remaining_s = self._remaining.get(key)
        if remaining_s is None:
            remaining_s = self._remaining[key] = job.seconds_left(self._stage_costs(job))
        return remaining_s

    def _stage_costs(self, job: Job) -> dict[str, float]:
        """Seconds of a step of each stage, as they were when it was first asked."""
        kind = (job.batch_key, job.images, job.stages)
        costs = self._costs.get(kind)
        if costs is None:
            step_s, batch = self.cluster.replicas[0].costs.step_s, job.kind.batch
            costs = self._costs[kind] = {stage: step_s(stage, batch) for stage in job.stages}
        return costs

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._costs: dict[object, dict[str, float]] = {}
        self._remaining: dict[tuple[JobKind, int], float] = {}
        self._waiting: dict[BatchKey, list[_Entry]] = {}
        self._replicas = {replica.index: replica for replica in cluster.replicas}
        self._batches: dict[int, _Batch | None] = dict.fromkeys(self._replicas)
        self._resident: dict[int, dict[Job, _Entry]] = {index: {} for index in self._replicas}
        self._finishing: dict[int, list[Job]] = {index: [] for index in self._replicas}
        self._arrived: list[tuple[float, Job]] = []
        self._latest_starts: list[_Entry] = []

    def arrived(self, job: Job, now: float) -> None:
        urgency = self.urgency(job)
        heappush(self._waiting.setdefault(job.batch_key, []), (urgency, job.order, job))
        if self.drop_late and job.request.deadline < math.inf:
            heappush(self._latest_starts, (job.request.deadline - self.remaining_s(job), job.order, job))
        self._arrived.append((urgency, job))

    def returned(self, job: Job, now: float) -> None:
        self._resident[job.replica][job] = (self.urgency(job), job.order, job)
        if job.finishing:
            self._finishing[job.replica].append(job)

    def ended(self, job: Job, now: float) -> None:
        if job.replica >= 0:
            self._resident[job.replica].pop(job, None)

    def _disturbs(self, job: Job, urgency: float, batch: _Batch, now: float) -> bool:
        drift = self.drift * (now - batch.formed_s)
        if urgency < batch.most_urgent + drift:
            return True
        if job.batch_key != batch.jobs[0].batch_key:
            return False
        return batch.images + job.images <= self.max_batch or urgency < batch.least_urgent + drift

    def recalls(self, now: float) -> list[int]:
        if not self._arrived:
            return []
        arrived, self._arrived = self._arrived, []
        named = []
        for urgency, job in arrived:
            if job.state != "waiting":  # an idle replica has taken it
                continue
            for index, batch in self._batches.items():
                if batch is not None and self._disturbs(job, urgency, batch, now):
                    self._batches[index] = None
                    launch = self._replicas[index].launch
                    if launch is not None and launch.steps > 1:
                        named.append(launch.launch_id)
        return named

    def plan(self, replica: Replica, now: float) -> Decision | None:
        batch = self._batches[replica.index]
        if batch is not None:
            left = batch.jobs[0].steps_left - batch.last
            if left > 0 and all(job.state == "resident" for job in batch.jobs):
                return Decision(batch.jobs, left)
            self._batches[replica.index] = None
        if self.drop_late:
            late = self._late(now)
            if late:
                return Decision(drop=late)
        return self._new_batch(replica, now)

    def _new_batch(self, replica: Replica, now: float) -> Decision | None:
        finishing = self._finishing[replica.index]
        if finishing and (finishing := [job for job in finishing if job.state == "resident"]):
            key = min(finishing, key=_order).batch_key
            self._finishing[replica.index] = [job for job in finishing if job.batch_key != key]
            return Decision(tuple([job for job in finishing if job.batch_key == key]), 1)
        resident = self._resident[replica.index].values()
        heads = [head for key in list(self._waiting) if (head := self._head(key)) is not None]
        if not (resident or heads):
            return None
        lead = min(chain(resident, heads))
        chosen = self._ride_along(lead[2], resident)
        decision = next_quantum([job for _, _, job in chosen])
        first, images = decision.jobs[0], sum([job.images for _, _, job in chosen])
        running = chosen if len(chosen) == 1 else [entry for entry in chosen if entry[2].stage == first.stage]
        self._batches[replica.index] = _Batch(
            decision.jobs, first.steps_left - decision.steps, now, running[0][0], running[-1][0], images
        )
        return decision

    def _ride_along(self, lead: Job, resident: Iterable[_Entry]) -> list[_Entry]:
        """The most urgent jobs of one size, resident or waiting, that fit in a batch; the first always does.

        Where sizes do not mix, none waits for another: those ride along that are in the stage of the first.
        """
        key, stage = lead.batch_key, None if lead.mixes else lead.stage
        local = [entry for entry in resident if entry[2].batch_key == key and stage in (None, entry[2].stage)]
        local.sort(reverse=True)
        chosen: list[_Entry] = []
        images = 0
        while True:
            head = self._head(key)
            if head is not None and stage not in (None, head[2].stage):
                head = None
            from_waiting = head is not None and (not local or head < local[-1])
            entry = head if from_waiting else (local[-1] if local else None)
            if entry is None or (chosen and images + entry[2].images > self.max_batch):
                return chosen
            if from_waiting:
                heappop(self._waiting[key])
            else:
                local.pop()
            chosen.append(entry)
            images += entry[2].images

    def _head(self, key: BatchKey) -> _Entry | None:
        heap = self._waiting.get(key)
        while heap:
            if heap[0][2].state == "waiting":
                return heap[0]
            heappop(heap)
        self._waiting.pop(key, None)
        return None

    def _late(self, now: float) -> tuple[tuple[Job, str], ...]:
        late = []
        heap = self._latest_starts
        while heap and (heap[0][0] < now or heap[0][2].state != "waiting"):
            latest_start, _, job = heappop(heap)
            if job.state == "waiting":
                late.append((job, f"would miss its deadline by {now - latest_start:.3g} s even alone"))
        return tuple(late)


class EDF(UrgencyPolicy):
    """Earliest deadline first."""

    def urgency(self, job: Job) -> float:
        return job.request.deadline


class SRPT(UrgencyPolicy):
    """Shortest remaining processing time first, by predicted seconds alone."""

    drift = -1.0

    def urgency(self, job: Job) -> float:
        return self.remaining_s(job)


class LeastSlack(UrgencyPolicy):
    """Least slack first: slack is the deadline less now less the predicted remaining seconds.

    The order of waiting jobs by slack is their order by latest start, deadline less remaining seconds, which does
    not move with the clock; a running job's slack stays as it is, so its latest start drifts with time.
    """

    drift = 1.0

    def urgency(self, job: Job) -> float:
        deadline = job.request.deadline
        return deadline if math.isinf(deadline) else deadline - self.remaining_s(job)


def _order(job: Job) -> int:
    return job.order
