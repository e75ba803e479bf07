"""Whole requests on a degree that is chosen once: by what just meets the deadline, or by how many there are."""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract import Replica
from policies.job import Job
from policies.scheduling.elastic import ElasticPolicy, Unit, held


class _ChosenOnce(ElasticPolicy):
    """Requests begin in the order in which they came, each as soon as its degree is free, and keep it to their end."""

    def assign(self, replica: Replica, units: Sequence[Unit], now: float) -> tuple[list[Unit], list[tuple[Job, str]]]:
        running, free = list(units), max(0, self.room(replica) - sum([unit.degree for unit in units]))
        for job in replica.resident.values():
            if job not in held(running) and free:  # what is decoded, or was taken from a unit
                running.append(self._unit(job, 1 if job.finishing else self.degree(job, free, now)))
                free -= running[-1].degree
        for job in list(self.waiting):
            degree = self.degree(job, free, now) if free else 0
            if not degree:
                break
            running.append(self._unit(job, degree))
            free -= degree
        return running, []

    def _unit(self, job: Job, degree: int) -> Unit:
        return Unit((job,), degree, self.costs.step_s((job,), degree), [self.left(job)])

    def degree(self, job: Job, free: int, now: float) -> int:
        """On how many of the free devices a job begins; 0: it waits for more."""
        raise NotImplementedError


class BestFit(_ChosenOnce):
    """Every request begins on the fewest devices with which it meets its deadline; else on the most that are free.

    The greedy baseline of simulators of serving with degrees. No batches, no pauses, and a degree is kept. On replicas
    of one device there is nothing to choose.
    """

    def degree(self, job: Job, free: int, now: float) -> int:
        offered = [degree for degree in self.costs.offered(job) if degree <= free]
        for degree in offered:
            if now + self.costs.seconds(job, self.left(job), degree) <= job.request.deadline:
                return degree
        return offered[-1] if offered else 0


class LoadAdaptive(_ChosenOnce):
    """Every request begins on its share of the devices, by how many requests there are; few get many, many get one.

    The load-adaptive baseline of simulators of serving with degrees. No batches, no pauses, and a degree is kept. On
    replicas of one device there is nothing to choose.
    """

    def degree(self, job: Job, free: int, now: float) -> int:
        requests = max(1, len(self.cluster.jobs))
        share = max(1, self.costs.devices * len(self.cluster.replicas) // requests)
        offered = self.costs.offered(job)
        wanted = max([degree for degree in offered if degree <= share], default=offered[0])
        return wanted if wanted <= free else 0
