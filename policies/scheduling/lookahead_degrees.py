"""Looking ahead where a step can be divided over the devices of a replica: degree, batch and order chosen together.

At every event all that is known is planned anew over the devices: the most urgent first, each as soon as it can begin
on the fewest devices with which it is in time, or beside others in their batch on one device. Where somebody would be
late the plan is made again with requests brought together into batches before devices are divided; and who costs most
device time of those planned so far gives way (Moore and Hodgson's rule, with device time for processing time).
What begins now in the plan runs now; devices that are left serve those who are late or have no deadline, and then speed
up who gains most. Nothing is kept for its own sake: a request changes its degree, rests, or joins others at a step
boundary, which costs next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from policies.contract import Cluster, Replica
from policies.job import Job
from policies.scheduling.elastic import ElasticPolicy, Unit, held
from policies.scheduling.forecast import ROUNDING_S
from policies.scheduling.lookahead_errors import Errors
from policies.scheduling.mixing import MixedBatch

_SAVES = 0.98
"""A request joins a batch where that takes less than this share of the device time that it takes alone."""
_FASTER = 0.03
"""More devices are used where they take this share off what is left, though nobody else wants them."""
_MOST_TRIES = 12


class _Item(NamedTuple):
    """Requests that are planned together: a unit that runs, or one request.

    Attributes:
        due_s: when the first of them is due.
        order: breaks ties.
        jobs: the requests.
        left: denoising steps of each.
        dues_s: when each is due.
        encode_s: seconds until all can take steps.
        decodes_s: seconds of each after its last step.
        unit: the unit, if it runs.
    """

    due_s: float
    order: int
    jobs: tuple[Job, ...]
    left: tuple[int, ...]
    dues_s: tuple[float, ...]
    encode_s: float
    decodes_s: tuple[float, ...]
    unit: Unit | None


class _Place:
    """What a plan has on some devices from some time on.

    Attributes:
        items: who runs there.
        degree: on how many devices.
        begins_s: from when on.
        step_s: seconds of a step of all of them.
        batch: of all of them, on one device.
        device_s: device seconds until the last of them takes its last step.
        devices: which of the plan's devices.
        free_s: when they are free again.
    """

    __slots__ = ("batch", "begins_s", "degree", "device_s", "devices", "free_s", "items", "step_s")

    def __init__(self, item: _Item, degree: int, begins_s: float, step_s: float, batch: MixedBatch) -> None:
        self.items = [item]
        self.degree = degree
        self.begins_s = begins_s
        self.step_s = step_s
        self.batch = batch
        self.device_s = 0.0
        self.devices: tuple[int, ...] = ()
        self.free_s = 0.0


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

    def arrived(self, job: Job, now: float) -> None:
        super().arrived(job, now)
        self._due_s[job] = self._due(job)

    def _due(self, job: Job) -> float:
        if job.request.deadline < math.inf:
            return job.request.deadline
        return job.request.arrival_s + self.soft_slo_scale * self.costs.least_s(job, job.denoise_left)

    def ended(self, job: Job, now: float) -> None:
        super().ended(job, now)
        self._due_s.pop(job, None)

    def assign(self, replica: Replica, units: Sequence[Unit], now: float) -> tuple[list[Unit], list[tuple[Job, str]]]:
        scale = self._errors.ratio * (1.0 + min(self.margin, self._errors.margin))
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
        waiting = sorted(self.waiting, key=lambda job: (self._due_s[job], job.order))[: self.horizon]
        items += [self._item((job,), (job.denoise_left,), None) for job in waiting]
        urgent: list[_Item] = []
        for item in sorted(items, key=_urgency):
            if len(item.jobs) == 1 and item.jobs[0].request.deadline < math.inf:
                (job,) = item.jobs
                least_s = self._least_s(item, item.left[0])
                if now + self._errors.ratio * least_s > item.due_s:
                    if self.drop_late and item.unit is None and job.state != "running":
                        over_s = now + least_s - item.due_s
                        drop.append((job, f"would miss its deadline by {over_s:.3g} s even alone"))
                    else:
                        late.append(item)
                    continue
            (urgent if item.due_s < math.inf else late).append(item)
        free = max(0, self.room(replica) - sum([unit.degree for unit in finishing]))
        planned, given_up = self._planned(urgent, free, now, scale)
        return finishing + self._begun(planned, given_up + late, free, now), drop

    def _item(self, jobs: tuple[Job, ...], left: tuple[int, ...], unit: Unit | None) -> _Item:
        one = self.costs.one
        alone = [one.alone(one.kind(job)) for job in jobs]
        if unit is None:
            encode_s = sum([of.encode_s for job, of in zip(jobs, alone, strict=True) if self.prepares(job)])
        else:
            encode_s = 0.0 if unit.begun_s is not None else unit.encode_s
        dues_s = tuple([self._due_s[job] for job in jobs])
        return _Item(
            due_s=min(dues_s),
            order=jobs[0].order,
            jobs=jobs,
            left=left,
            dues_s=dues_s,
            encode_s=encode_s,
            decodes_s=tuple([of.decode_s for of in alone]),
            unit=unit,
        )

    def _least_s(self, item: _Item, left: int) -> float:
        steps_s = [self.costs.step_s(item.jobs, degree) for degree in self.costs.offered(item.jobs[0])]
        return item.encode_s + left * min(steps_s) + item.decodes_s[0]

    def _planned(self, items: list[_Item], devices: int, now: float, scale: float) -> tuple[list[_Place], list[_Item]]:
        """The plan with which most are in time, and who is not in it."""
        best: tuple[int, list[_Place], list[_Item]] | None = None
        for dense in (False, True):
            kept, given_up = list(items), []
            for _ in range(_MOST_TRIES):
                places, late = self._placed(kept, devices, now, scale, dense)
                if late is None:
                    break
                upto = kept[: kept.index(late) + 1]
                most = max(upto, key=lambda item: self._device_s(item, places))
                given_up.append(most)
                kept.remove(most)
            else:
                places, late = self._placed(kept, devices, now, scale, dense)
                while late is not None:
                    given_up.append(late)
                    kept.remove(late)
                    places, late = self._placed(kept, devices, now, scale, dense)
            count = sum([len(item.jobs) for item in kept])
            if best is None or count > best[0]:
                best = count, places, given_up
            if not given_up:
                break
        assert best is not None
        return best[1], sorted(best[2], key=_urgency)

    def _device_s(self, item: _Item, places: Sequence[_Place]) -> float:
        """Device seconds that a request takes in a plan, or would take; a request each, of a batch."""
        for place in places:
            if item in place.items:
                return place.device_s / sum([len(other.jobs) for other in place.items])
        degree = self.costs.offered(item.jobs[0])[-1]
        return degree * (item.encode_s + max(item.left) * self.costs.step_s(item.jobs, degree)) / len(item.jobs)

    def _placed(
        self, items: Sequence[_Item], devices: int, now: float, scale: float, dense: bool
    ) -> tuple[list[_Place], _Item | None]:
        """A plan for all of these, the most urgent first; with the first who would be late, if any would."""
        free_s = [now] * devices
        places: list[_Place] = []
        for item in items:
            if dense and self._join(item, places, free_s, now, scale):
                continue
            place = self._alone(item, free_s, scale, None if dense else now)
            if place is None and not dense and self._join(item, places, free_s, now, scale):
                continue
            place = place or self._alone(item, free_s, scale, None)
            if place is None:
                return places, item
            places.append(place)
        return places, None

    def _alone(self, item: _Item, free_s: list[float], scale: float, by_s: float | None) -> _Place | None:
        """A place of its own in which an item is in time, on the fewest devices, if there is one; ``by_s``: by then."""
        order = sorted(range(len(free_s)), key=free_s.__getitem__)
        several = len(item.jobs) > 1
        for degree in (1,) if several else self.costs.offered(item.jobs[0]):
            if degree > len(free_s):
                break
            begins_s = free_s[order[degree - 1]]
            if by_s is not None and begins_s > by_s:
                break
            costs = self.costs.on(degree)
            batch = costs.batch(item.jobs)
            step_s = costs.step_s(batch)
            place = _Place(item, degree, begins_s, step_s, batch)
            if self._timely(place, scale):
                place.devices = tuple(order[:degree])
                for device in place.devices:
                    free_s[device] = place.free_s
                return place
        return None

    def _join(self, item: _Item, places: Sequence[_Place], free_s: list[float], now: float, scale: float) -> bool:
        """Let an item run in the batch of another, if all are in time and that saves device time."""
        if len(item.jobs) > 1 or not item.jobs[0].mixes:
            return False
        job, one = item.jobs[0], self.costs.one
        kind = one.kind(job)
        alone_s = item.left[0] * one.alone(kind).step_s
        best: tuple[float, _Place, MixedBatch] | None = None
        for place in places:
            first = place.items[0].jobs[0]
            if place.degree > 1 or not first.mixes or first.request.model != job.request.model:
                continue
            if first.kind.adapters != job.kind.adapters or first.request.checkpoint != job.request.checkpoint:
                continue
            if sum([each.images for other in place.items for each in other.jobs]) + job.images > self.max_batch:
                continue
            batch = one.plus(place.batch, kind)
            before = place.step_s, place.device_s, place.free_s
            place.items.append(item)
            place.step_s = one.step_s(batch)
            fits = self._timely(place, scale)
            more_s = place.device_s - before[1]
            place.items.pop()
            place.step_s, place.device_s, place.free_s = before
            if fits and more_s < _SAVES * alone_s and (best is None or more_s < best[0]):
                best = more_s, place, batch
        if best is None:
            return False
        _, place, batch = best
        place.items.append(item)
        place.batch, place.step_s = batch, one.step_s(batch)
        self._timely(place, scale)
        for device in place.devices:
            free_s[device] = place.free_s
        return True

    def _timely(self, place: _Place, scale: float) -> bool:
        """Whether all of a place are in time; it comes to know its device seconds and when it is free."""
        begins_s = place.begins_s + scale * sum([item.encode_s for item in place.items])
        ends = sorted(
            [
                (left, due_s, decode_s)
                for item in place.items
                for left, due_s, decode_s in zip(item.left, item.dues_s, item.decodes_s, strict=True)
            ]
        )
        step_s, decoded_s, timely = scale * place.step_s, 0.0, True
        job, finishes = place.items[0].jobs[0], True
        if place.degree > 1:
            finishes = self.costs.finishes_together(job, place.degree)
            ends = [(left, due_s, self.costs.decode_s(job, place.degree)) for left, due_s, _ in ends]
        for left, due_s, decode_s in ends:
            decoded_s += scale * decode_s
            if begins_s + left * step_s + decoded_s > due_s + ROUNDING_S:
                timely = False
        last_s = begins_s + ends[-1][0] * step_s
        place.device_s = place.degree * (last_s - place.begins_s)
        place.free_s = last_s + (decoded_s if finishes else 0.0)
        return timely

    def _begun(self, places: Sequence[_Place], others: Sequence[_Item], free: int, now: float) -> list[Unit]:
        """What begins now: of a plan, then of those whom it leaves out, on the devices that are left."""
        begun = [place for place in places if place.begins_s <= now]
        free -= sum([place.degree for place in begun])
        taken = {id(item) for place in begun for item in place.items}
        later = [item for place in places if place.begins_s > now for item in place.items]
        for item in [*sorted(later, key=_urgency), *others]:
            least = 1 if len(item.jobs) > 1 else self.costs.offered(item.jobs[0])[0]
            if id(item) not in taken and least <= free:
                costs = self.costs.on(least)
                batch = costs.batch(item.jobs)
                begun.append(_Place(item, least, now, costs.step_s(batch), batch))
                free -= least
        while free > 0 and (faster := self._faster(begun, free)) is not None:
            place, degree = faster
            free -= degree - place.degree
            place.degree = degree
            place.step_s = self.costs.step_s(place.items[0].jobs, degree)
        return [self._unit(place) for place in begun]

    def _faster(self, begun: Sequence[_Place], free: int) -> tuple[_Place, int] | None:
        """Who gains most by more devices, seconds for each; and how many in all."""
        best: tuple[float, _Place, int] | None = None
        for place in begun:
            if len(place.items) > 1 or len(place.items[0].jobs) > 1:
                continue
            (item,) = place.items
            for degree in self.costs.offered(item.jobs[0]):
                if not place.degree < degree <= place.degree + free:
                    continue
                step_s = self.costs.step_s(item.jobs, degree)
                if step_s > (1.0 - _FASTER) * place.step_s:
                    continue
                gain = item.left[0] * (place.step_s - step_s) / (degree - place.degree)
                if best is None or gain > best[0]:
                    best = gain, place, degree
        return None if best is None else best[1:]

    def _unit(self, place: _Place) -> Unit:
        jobs = tuple([job for item in place.items for job in item.jobs])
        first = place.items[0].unit
        if first is not None and first.jobs == jobs and first.degree == place.degree:
            return first
        left = [each for item in place.items for each in item.left]
        return Unit(jobs, place.degree, place.step_s, left, sum([item.encode_s for item in place.items]))

    def closed(self, unit: Unit, now: float) -> None:
        """Compare how long a unit took with what it was predicted to take."""
        if unit.begun_s is None or len(unit.jobs) > 1 or not unit.step_s:
            return
        (job,), steps = unit.jobs, unit.done()
        decode_s = self.costs.decode_s(job, unit.degree) if job.done else 0.0
        self._errors.learn(unit.encode_s + steps * unit.step_s + decode_s, now - unit.begun_s, steps)


def _urgency(item: _Item) -> tuple[float, int]:
    return item.due_s, item.order
