"""Who runs when, on which of a replica's devices, and together with whom, so that most are in time.

The most urgent are placed first, each as soon as it can begin on the fewest devices with which it is in time, or beside
others in their batch on one device. Who would be late has somebody give way: of all placed so far, who costs most
device time (Moore and Hodgson's rule, with device time for processing time). What was placed before that one stays, so
a plan is taken back to there and goes on; it is not begun again.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

from policies.job import Job
from policies.scheduling.elastic import DegreeCosts, KindOnDegrees, Unit
from policies.scheduling.forecast import ROUNDING_S
from policies.scheduling.mixing import MixedBatch

_SAVES = 0.98
"""A request joins a batch where that takes less than this share of the device time that it takes alone."""
_MOST_TRIES = 12
"""How often the one gives way that costs most; then whoever is late."""

_End = tuple[int, float, float]
"""Of a request in a place: denoising steps left, when it is due, seconds after its last step."""


class PlannedItem:
    """Requests that are planned together: a unit that runs, or one request.

    Attributes:
        due_s: when the first of them is due.
        order: breaks ties.
        jobs: the requests.
        left: denoising steps of each.
        ends: of each, see above, in order.
        encode_s: seconds until all can take steps.
        decode_s: seconds of the first of them after its last step.
        unit: the unit, if it runs.
        of_kind: what the first of them takes alone.
        place: where it was placed last.
    """

    __slots__ = (
        "decode_s",
        "due_s",
        "encode_s",
        "ends",
        "jobs",
        "left",
        "of_kind",
        "order",
        "place",
        "unit",
    )

    def __init__(
        self,
        jobs: tuple[Job, ...],
        left: tuple[int, ...],
        ends: list[_End],
        encode_s: float,
        unit: Unit | None,
        of_kind: KindOnDegrees,
    ) -> None:
        self.due_s = ends[0][1] if len(ends) == 1 else min([due_s for _, due_s, _ in ends])
        self.order = jobs[0].order
        self.jobs = jobs
        self.left = left
        self.ends = ends
        self.encode_s = encode_s
        self.decode_s = of_kind.one.decode_s
        self.unit = unit
        self.of_kind = of_kind
        self.place: Place | None = None


class Place:
    """What a plan has on some devices from some time on.

    Attributes:
        items: who runs there.
        ends: of all of them, in order.
        images: of all of them.
        degree: on how many devices.
        begins_s: from when on.
        encode_s: seconds until all can take steps.
        step_s: seconds of a step of all of them.
        batch: of all of them, on one device; None: nobody has asked.
        device_s: device seconds until the last of them takes its last step.
        devices: which of the plan's devices.
        free_s: when they are free again.
    """

    __slots__ = (
        "batch",
        "begins_s",
        "degree",
        "device_s",
        "devices",
        "encode_s",
        "ends",
        "free_s",
        "images",
        "items",
        "step_s",
    )

    def __init__(self, item: PlannedItem, degree: int, begins_s: float, step_s: float) -> None:
        self.items = [item]
        self.ends = item.ends
        self.images = sum([job.images for job in item.jobs])
        self.degree = degree
        self.begins_s = begins_s
        self.encode_s = item.encode_s
        self.step_s = step_s
        self.batch: MixedBatch | None = None
        self.device_s = 0.0
        self.devices: tuple[int, ...] = ()
        self.free_s = 0.0


class _Joined:
    """A place as it was before somebody joined it."""

    __slots__ = ("batch", "device_s", "encode_s", "ends", "free_s", "images", "place", "step_s")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ends, self.images, self.encode_s = place.ends, place.images, place.encode_s
        self.step_s, self.batch = place.step_s, place.batch
        self.device_s, self.free_s = place.device_s, place.free_s

    def restore(self) -> None:
        place = self.place
        place.items.pop()
        place.ends, place.images, place.encode_s = self.ends, self.images, self.encode_s
        place.step_s, place.batch = self.step_s, self.batch
        place.device_s, place.free_s = self.device_s, self.free_s


class DegreePlan:
    """A plan for some devices from now on.

    Args:
        costs: what batches cost on them.
        max_batch: images in a batch.
        devices: how many.
        now: seconds.
        scale: what predictions are multiplied by when a plan is judged.
        dense: requests are brought together into batches before devices are divided.

    Attributes:
        places: of all that were placed, in the order in which they were.
    """

    def __init__(self, costs: DegreeCosts, max_batch: int, devices: int, now: float, scale: float, dense: bool) -> None:
        self.places: list[Place] = []
        self._costs, self._one = costs, costs.one
        self._max_batch = max_batch
        self._free_s = [now] * devices
        self._scale = scale
        self._by_s = None if dense else now
        self._dense = dense
        self._placed: list[tuple[list[float], _Joined | None]] = []
        """Of each item that was placed: when devices were free before, and whom it joined."""

    def add(self, item: PlannedItem) -> bool:
        """Place an item, if it can be in time."""
        before = self._free_s
        self._free_s = list(before)
        if self._dense:
            joined = self._join(item)
            if joined is None and not self._alone(item, None):
                joined = None
                self._free_s = before
                return False
        else:
            joined = None
            if not self._alone(item, self._by_s):
                joined = self._join(item)
                if joined is None and not self._alone(item, None):
                    self._free_s = before
                    return False
        self._placed.append((before, joined))
        return True

    def take_back(self, count: int) -> None:
        """Let only the first ``count`` items that were placed be placed."""
        while len(self._placed) > count:
            self._free_s, joined = self._placed.pop()
            if joined is None:
                self.places.pop()
            else:
                joined.restore()

    def _alone(self, item: PlannedItem, by_s: float | None) -> bool:
        """Give an item a place of its own in which it is in time, on the fewest devices, if there is one.

        Args:
            item: which.
            by_s: when it is to begin at the latest; None: whenever.
        """
        free_s = self._free_s
        if len(item.jobs) > 1:
            degrees: tuple[int, ...] = (1,)
            steps_s: tuple[float, ...] = (self._costs.step_s(item.jobs, 1),)
        else:
            degrees, steps_s = item.of_kind.degrees, item.of_kind.steps_s
        order = sorted(range(len(free_s)), key=free_s.__getitem__)
        for at, degree in enumerate(degrees):
            if degree > len(order):
                break
            begins_s = free_s[order[degree - 1]]
            if by_s is not None and begins_s > by_s:
                break
            ends, finishes = item.ends, True
            if degree > 1:
                decode_s, finishes = item.of_kind.alone[at].decode_s, item.of_kind.finishes[at]
                ends = [(left, due_s, decode_s) for left, due_s, _ in ends]
            device_s, until_s = self._timely(begins_s, item.encode_s, steps_s[at], ends, degree, finishes)
            if device_s >= 0.0:
                place = Place(item, degree, begins_s, steps_s[at])
                place.device_s, place.free_s = device_s, until_s
                place.devices = tuple(order[:degree])
                for device in place.devices:
                    free_s[device] = until_s
                self.places.append(place)
                item.place = place
                return True
        return False

    def _join(self, item: PlannedItem) -> _Joined | None:
        """Let an item run in the batch of another, if all are in time and that saves device time."""
        if len(item.jobs) > 1 or not item.jobs[0].mixes:
            return None
        job, one, kind = item.jobs[0], self._one, item.of_kind.kind
        most_s = _SAVES * (item.left[0] * item.of_kind.one.step_s)
        room = self._max_batch - job.images
        best: Place | None = None
        best_s, best_device_s, best_step_s, best_until_s = most_s, 0.0, 0.0, 0.0
        best_batch, best_ends = None, item.ends
        for place in self.places:
            if place.degree > 1 or place.images > room:
                continue
            if self._free_s[place.devices[0]] > place.free_s:  # somebody follows there
                continue
            first = place.items[0].jobs[0]
            if not first.mixes or first.request.model != job.request.model:
                continue
            if first.kind.adapters != job.kind.adapters or first.request.checkpoint != job.request.checkpoint:
                continue
            if place.batch is None:
                place.batch = one.batch([each for other in place.items for each in other.jobs])
            batch = one.plus(place.batch, kind)
            step_s, ends = one.step_s(batch), list(place.ends)
            insort(ends, item.ends[0])
            device_s, until_s = self._timely(place.begins_s, place.encode_s + item.encode_s, step_s, ends, 1, True)
            more_s = device_s - place.device_s
            if device_s >= 0.0 and more_s < best_s:
                best, best_s, best_device_s, best_step_s, best_until_s = place, more_s, device_s, step_s, until_s
                best_batch, best_ends = batch, ends
        if best is None:
            return None
        before = _Joined(best)
        best.items.append(item)
        best.images += job.images
        best.encode_s += item.encode_s
        best.step_s, best.batch, best.ends = best_step_s, best_batch, best_ends
        best.device_s, best.free_s = best_device_s, best_until_s
        for device in best.devices:
            self._free_s[device] = best_until_s
        item.place = best
        return before

    def _timely(
        self, begins_s: float, encode_s: float, step_s: float, ends: Sequence[_End], degree: int, finishes: bool
    ) -> tuple[float, float]:
        """Device seconds until all have taken their last step, and when the devices are free; below 0: not in time."""
        scale = self._scale
        steps_from_s = begins_s + scale * encode_s
        step_s *= scale
        decoded_s = 0.0
        for left, due_s, decode_s in ends:
            decoded_s += scale * decode_s
            if steps_from_s + left * step_s + decoded_s > due_s + ROUNDING_S:
                return -1.0, 0.0
        last_s = steps_from_s + ends[-1][0] * step_s
        return degree * (last_s - begins_s), last_s + decoded_s if finishes else last_s

    def device_s(self, item: PlannedItem, placed: bool) -> float:
        """Device seconds that a request takes in the plan, or would take; a request each, of a batch."""
        if placed and (place := item.place) is not None:
            return place.device_s / len(place.ends)
        if len(item.jobs) > 1:
            degree = item.of_kind.degrees[-1]
            step_s = self._costs.step_s(item.jobs, degree)
        else:
            degree, step_s = item.of_kind.degrees[-1], item.of_kind.steps_s[-1]
        return degree * (item.encode_s + max(item.left) * step_s) / len(item.jobs)


def planned(
    costs: DegreeCosts, max_batch: int, items: Sequence[PlannedItem], devices: int, now: float, scale: float
) -> tuple[list[Place], list[PlannedItem]]:
    """The plan with which most are in time, and who is not in it, the most urgent first.

    Args:
        costs, max_batch, devices, now, scale: as of a `DegreePlan`.
        items: the most urgent first.
    """
    best: tuple[int, list[Place], list[PlannedItem]] | None = None
    for dense in (False, True):
        plan = DegreePlan(costs, max_batch, devices, now, scale, dense)
        kept, at = list(items), 0
        given_up: list[PlannedItem] = []
        while at < len(kept):
            if plan.add(kept[at]):
                at += 1
                continue
            if len(given_up) < _MOST_TRIES:
                late, most_s = at, plan.device_s(kept[at], placed=False)
                for place in range(at - 1, -1, -1):  # of equals the first
                    if (device_s := plan.device_s(kept[place], placed=True)) >= most_s:
                        late, most_s = place, device_s
                at = late
                plan.take_back(at)
            given_up.append(kept.pop(at))
        count = sum([len(item.jobs) for item in kept])
        if best is None or count > best[0]:
            best = count, plan.places, given_up
        if not given_up:
            break
    assert best is not None
    return best[1], sorted(best[2], key=_urgency)


def _urgency(item: PlannedItem) -> tuple[float, int]:
    return item.due_s, item.order
