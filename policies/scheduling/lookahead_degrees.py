"""Looking ahead where a step can be divided over the devices of a replica: degree, batch and order chosen together.

At every event all that is known is planned anew over the devices (`policies.scheduling.degree_plan`): the most urgent
first, each as soon as it can begin on the fewest devices with which it is in time, or beside others in their batch on
one device. Where somebody would be late the plan is made again with requests brought together into batches before
devices are divided; and who costs most device time of those planned so far gives way.
What begins now in the plan runs now; devices that are left serve those who are late or have no deadline, and then speed
up who gains most. Nothing is kept for its own sake: a request changes its degree, rests, or joins others at a step
boundary, which costs next to nothing.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence

from policies.contract import Cluster, Replica
from policies.job import Job
from policies.scheduling.degree_plan import Place, PlannedItem, planned
from policies.scheduling.elastic import ElasticPolicy, Unit, held
from policies.scheduling.lookahead_errors import Errors

_FASTER = 0.03
"""More devices are used where they take this share off what is left, though nobody else wants them."""


class LookaheadDegrees(ElasticPolicy):
    """See `policies.scheduling.lookahead.Lookahead`, whose parameters these are.

    Args:
        max_batch: images in a batch.
        margin: the largest share by which predictions are taken to be too small when a plan is judged.
        drop_late: drop a request once it could not meet its deadline even alone on the most devices.
        soft_slo_scale: a request without a deadline is due this many times its least seconds after it came.
        horizon: requests that are looked at, most urgent first.
    """

    def __init__(self, max_batch: int, margin: float, drop_late: bool, soft_slo_scale: float, horizon: int) -> None:
        self.max_batch = max_batch
        self.margin = margin
        self.drop_late = drop_late
        self.soft_slo_scale = soft_slo_scale
        self.horizon = horizon

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._errors = Errors()
        self._due_s: dict[Job, float] = {}
        self._by_due: list[tuple[float, int, Job]] = []  # who waits; some of them do no longer

    def arrived(self, job: Job, now: float) -> None:
        super().arrived(job, now)
        due_s = self._due_s[job] = self._due(job)
        insort(self._by_due, (due_s, job.order, job))

    def _due(self, job: Job) -> float:
        if job.request.deadline < math.inf:
            return job.request.deadline
        self.costs.renew()
        return job.request.arrival_s + self.soft_slo_scale * self.costs.of(job).least_s(job.denoise_left, False)

    def ended(self, job: Job, now: float) -> None:
        super().ended(job, now)
        self._due_s.pop(job, None)

    def assign(self, replica: Replica, units: Sequence[Unit], now: float) -> tuple[list[Unit], list[tuple[Job, str]]]:
        ratio = self._errors.ratio
        scale = ratio * (1.0 + min(self.margin, self._errors.margin))
        finishing: list[Unit] = []
        items, drop, late = [], [], []
        for unit in units:
            left = unit.left(now)
            if any(left):
                items.append(self._item(unit.jobs, left, unit))
            else:
                finishing.append(unit)
        busy = held(units)
        for job in replica.resident.values():
            if job in busy:
                continue
            if job.finishing and job.mixes:
                finishing.append(Unit((job,), 1, 0.0, (0,)))
            else:
                items.append(self._item((job,), (self.left(job),), None))
        items += [self._item((job,), (job.denoise_left,), None) for job in self._front()]
        items.sort(key=_urgency)
        urgent: list[PlannedItem] = []
        for item in items:
            if len(item.jobs) == 1 and item.jobs[0].request.deadline < math.inf:
                (job,) = item.jobs
                least_s = item.encode_s + item.left[0] * item.of_kind.least_step_s + item.decode_s
                if now + ratio * least_s > item.due_s:
                    if self.drop_late and item.unit is None and job.state != "running":
                        over_s = now + least_s - item.due_s
                        drop.append((job, f"would miss its deadline by {over_s:.3g} s even alone"))
                    else:
                        late.append(item)
                    continue
            (urgent if item.due_s < math.inf else late).append(item)
        free = max(0, self.room(replica) - sum([unit.degree for unit in finishing]))
        places, given_up = planned(self.costs, self.max_batch, urgent, free, now, scale)
        return finishing + self._begun(places, given_up + late, free, now), drop

    def _front(self) -> list[Job]:
        """Who waits, the most urgent first, as many as are looked at."""
        front: list[Job] = []
        gone = []
        for at, (_, _, job) in enumerate(self._by_due):
            if job.state != "waiting":
                gone.append(at)
            elif job in self.waiting:
                front.append(job)
                if len(front) == self.horizon:
                    break
        for at in reversed(gone):
            del self._by_due[at]
        return front

    def _item(self, jobs: tuple[Job, ...], left: tuple[int, ...], unit: Unit | None) -> PlannedItem:
        of_kinds = [self.costs.of(job) for job in jobs]
        if unit is None:
            encode_s = sum([of.one.encode_s for job, of in zip(jobs, of_kinds, strict=True) if self.prepares(job)])
        else:
            encode_s = 0.0 if unit.begun_s is not None else unit.encode_s
        ends = [(steps, self._due_s[job], of.one.decode_s) for job, steps, of in zip(jobs, left, of_kinds, strict=True)]
        if len(ends) > 1:
            ends.sort()
        return PlannedItem(jobs, left, ends, encode_s, unit, of_kinds[0])

    def _begun(self, places: Sequence[Place], others: Sequence[PlannedItem], free: int, now: float) -> list[Unit]:
        """What begins now: of a plan, then of those whom it leaves out, on the devices that are left."""
        begun = [place for place in places if place.begins_s <= now]
        free -= sum([place.degree for place in begun])
        if free > 0:
            later = [item for place in places if place.begins_s > now for item in place.items]
            later.sort(key=_urgency)
            for item in [*later, *others]:
                several = len(item.jobs) > 1
                least = 1 if several else item.of_kind.degrees[0]
                if least <= free:
                    step_s = self.costs.step_s(item.jobs, 1) if several else item.of_kind.steps_s[0]
                    begun.append(Place(item, least, now, step_s))
                    free -= least
        while free > 0 and (faster := _faster(begun, free)) is not None:
            place, degree, step_s = faster
            free -= degree - place.degree
            place.degree, place.step_s = degree, step_s
        return [_unit(place) for place in begun]

    def closed(self, unit: Unit, now: float) -> None:
        """Compare how long a unit took with what it was predicted to take."""
        if unit.begun_s is None or len(unit.jobs) > 1 or not unit.step_s:
            return
        (job,), steps = unit.jobs, unit.done()
        of_kind = self.costs.of(job)
        decode_s = of_kind.alone[of_kind.degrees.index(unit.degree)].decode_s if job.done else 0.0
        self._errors.learn(unit.encode_s + steps * unit.step_s + decode_s, now - unit.begun_s, steps)


def _faster(begun: Sequence[Place], free: int) -> tuple[Place, int, float] | None:
    """Who gains most by more devices, seconds for each; how many in all, and seconds of a step on them."""
    best, most_s = None, -math.inf
    for place in begun:
        if len(place.ends) > 1:
            continue
        item, own = place.items[0], place.degree
        of_kind = item.of_kind
        for degree, step_s in zip(of_kind.degrees, of_kind.steps_s, strict=True):
            if not own < degree <= own + free or step_s > (1.0 - _FASTER) * place.step_s:
                continue
            gain_s = item.left[0] * (place.step_s - step_s) / (degree - own)
            if gain_s > most_s:
                best, most_s = (place, degree, step_s), gain_s
    return best


def _unit(place: Place) -> Unit:
    jobs = tuple([job for item in place.items for job in item.jobs])
    first = place.items[0].unit
    if first is not None and first.jobs == jobs and first.degree == place.degree:
        return first
    left = [each for item in place.items for each in item.left]
    return Unit(jobs, place.degree, place.step_s, left, place.encode_s)


def _urgency(item: PlannedItem) -> tuple[float, int]:
    return item.due_s, item.order
