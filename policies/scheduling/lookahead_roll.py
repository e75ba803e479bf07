"""Rolling a queue forward: when is everything finished, if run in this order and this wide?

Pure functions of plain floats. A batch runs in lock step. The next in line joins as soon as it fits; who has done its
steps leaves and is decoded, which the others wait for: what the controller makes of the decisions of
`policies.scheduling.lookahead`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from policies.job import Job


class Task(NamedTuple):
    """What is left of one request. Tasks sort by due time.

    Attributes:
        due: when it should be finished, seconds on the controller's clock.
        order: breaks ties.
        steps: denoising steps left.
        images_s: what its images add to a step, seconds; so are all that follow.
        kind: requests of a kind share ``kind_s``.
        kind_s: what a kind adds to a step, however many there are of it.
        join_s: encoding, before its first step.
        leave_s: decoding, after its last.
        alone_s: all that is left, alone.
        images: how much of the width it takes.
        must: it is run even if it will be late.
        job: whose it is.
    """

    due: float
    order: int
    steps: int
    images_s: float
    kind: int
    kind_s: float
    join_s: float
    leave_s: float
    alone_s: float
    images: int
    must: bool
    job: Job | None = None


class Rolled(NamedTuple):
    """What comes of a queue.

    Attributes:
        late: position of the first task that would be late; -1 when all that need not be run are in time. A roll ends
            with the first that is late.
        overdue: how many of those that must be run are late.
        end_s: when the last is finished.
        sum_s: all finishing times, summed.
    """

    late: int
    overdue: int
    end_s: float
    sum_s: float


def roll(
    tasks: Sequence[Task],
    width: int,
    shared_s: float,
    now: float = 0.0,
    scale: float = 1.0,
    first: int = 0,
    most_steps: float = math.inf,
) -> Rolled:
    """Run tasks in the order given, up to ``width`` images at a time; a task of more images runs alone.

    Args:
        tasks: the queue.
        width: images in a batch.
        shared_s: what a step costs whatever is in it.
        now: when it starts.
        scale: everything takes so many times as long as the tasks say.
        first: another width until the first of the batch leaves; 0 for the same.
        most_steps: give up after so many steps of the batch; the end is infinity then.
    """
    rate, images, steps, overdue, total = shared_s * scale, 0, 0, 0, 0.0
    batch: list[tuple[int, int]] = []
    kinds: dict[int, int] = {}
    position, count = 0, len(tasks)
    limit = first or width
    while position < count or batch:
        while position < count:
            _, _, more, images_s, kind, kind_s, join_s, _, _, of_task, _, _ = tasks[position]
            if batch and images + of_task > limit:
                break
            heappush(batch, (steps + more, position))
            images += of_task
            held = kinds.get(kind, 0)
            kinds[kind] = held + 1
            rate += scale * (images_s if held else images_s + kind_s)
            now += scale * join_s
            position += 1
        limit = width
        until = batch[0][0]
        if until > most_steps:
            return Rolled(-1, overdue, math.inf, math.inf)
        now += (until - steps) * rate
        steps = until
        leaving = []
        while batch and batch[0][0] == until:
            index = heappop(batch)[1]
            leaving.append(index)
            _, _, _, images_s, kind, kind_s, _, leave_s, _, of_task, _, _ = tasks[index]
            images -= of_task
            kinds[kind] -= 1
            rate -= scale * (images_s if kinds[kind] else images_s + kind_s)
            now += scale * leave_s
        for index in leaving:
            total += now
            if now > tasks[index].due:
                if not tasks[index].must:
                    return Rolled(index, overdue, now, total)
                overdue += 1
    return Rolled(-1, overdue, now, total)


def feasible(tasks: Sequence[Task], width: int, shared_s: float, now: float = 0.0, scale: float = 1.0) -> list[Task]:
    """As many tasks as can be finished in time, in the order given, that of their due times (Moore and Hodgson's rule).

    Each is taken to cost its own share of steps that ``width`` images share. When one would be late, the one that
    costs most is left out. What must be run is never left out. Arguments as of `roll`.
    """
    share_s = shared_s / width
    chosen: list[tuple[float, int]] = []
    out: set[int] = set()
    for position, task in enumerate(tasks):
        cost = scale * (task.steps * (task.images_s + share_s) + task.join_s + task.leave_s)
        now += cost
        if task.must:
            continue
        heappush(chosen, (-cost, position))
        if now > task.due:
            cost, position = heappop(chosen)
            now += cost
            out.add(position)
    return [task for position, task in enumerate(tasks) if position not in out] if out else list(tasks)


class RollPlan(NamedTuple):
    """The best way found to run a queue.

    Attributes:
        queue: whom there is time for, in order.
        first: images in the batch to begin with.
        width: and later.
        met: how many are in time.
        end_s: when all are finished.
    """

    queue: list[Task]
    first: int
    width: int
    met: int
    end_s: float

    @property
    def batch(self) -> list[Task]:
        """Who runs now."""
        batch: list[Task] = []
        images = 0
        for task in self.queue:
            if batch and images + task.images > self.first:
                break
            batch.append(task)
            images += task.images
        return batch


def best_plan(
    tasks: Sequence[Task],
    widths: Sequence[int],
    shared_s: float,
    now: float = 0.0,
    scale: float = 1.0,
    horizon: int = 32,
) -> RollPlan:
    """The plan in which most tasks are in time; of those, the one that ends soonest.

    For every width it starts from the tasks that seem feasible, and leaves out the one that costs most among those
    before the first that is late, until none is. Then it looks whether another width to begin with is better.

    Args:
        tasks: at least one, in order of preference (due times).
        widths: the candidates, most promising first.
        shared_s: as of `roll`, like the next two.
        now: as of `roll`.
        scale: as of `roll`.
        horizon: longest queue that is rolled forward.
    """
    if len(tasks) == 1:
        images = tasks[0].images
        return RollPlan(list(tasks), images, images, 1, now + scale * tasks[0].alone_s)
    best, least_s = RollPlan([], 0, 0, 0, now), math.inf

    def consider(queue: list[Task], width: int, first: int) -> int:
        """Keep it if it is better; the position of the first that is late, or -1."""
        nonlocal best, least_s
        bound = _most_steps(queue, width, shared_s, scale, least_s) if len(queue) == best.met else math.inf
        if bound < 0:
            return -1
        rolled = roll(tasks=queue, width=width, shared_s=shared_s, now=now, scale=scale, first=first, most_steps=bound)
        if rolled.late < 0:
            met = len(queue) - rolled.overdue
            mean_s = rolled.sum_s / len(queue) - now
            cost_s = rolled.end_s - now + _MEAN_WEIGHT * mean_s
            if (met, -cost_s) > (best.met, -least_s):
                best, least_s = RollPlan(queue, first, width, met, rolled.end_s), cost_s
        return rolled.late

    seeming = feasible(tasks, max(widths), shared_s, now, scale)[:horizon]
    for width in widths:
        queue = feasible(seeming, width, shared_s, now, scale)
        while queue and len(queue) >= best.met and (late := consider(queue, width, width)) >= 0:
            queue = _without_costliest(queue, late)
    for first in widths if best.queue else ():
        if first != best.width:
            consider(best.queue, best.width, first)
    return best


def filled(
    plan: RollPlan, patient: list[Task], widths: Sequence[int], shared_s: float, now: float = 0.0, scale: float = 1.0
) -> RollPlan:
    """The plan with tasks behind its queue that can wait, in batches as wide as makes nobody late; else as it is.

    Arguments as of `best_plan`.
    """
    queue = plan.queue + patient
    for width in sorted(widths, reverse=True):
        if width >= plan.first:
            rolled = roll(queue, width, shared_s, now, scale)
            if rolled.late < 0:
                return RollPlan(queue, width, width, len(queue) - rolled.overdue, rolled.end_s)
    return plan


_MEAN_WEIGHT = 0.02
"""Of the mean finishing time beside the last: enough to decide where batching gains nothing."""


def _most_steps(queue: list[Task], width: int, shared_s: float, scale: float, within_s: float) -> float:
    """How many steps the batch may take to be done within some seconds; -1 when it cannot be."""
    work_s, image_steps = 0.0, 0
    for _, _, steps, images_s, _, _, join_s, leave_s, _, images, _, _ in queue:
        work_s += steps * images_s + join_s + leave_s
        image_steps += steps * min(images, width)
    if not shared_s:
        return math.inf if scale * work_s <= within_s else -1
    most_steps = (within_s / scale - work_s) / shared_s
    return most_steps if most_steps * width >= image_steps else -1


def _without_costliest(queue: list[Task], last: int) -> list[Task]:
    costliest, position = -1.0, last
    for index in range(last + 1):
        _, _, steps, images_s, _, _, _, _, _, _, must, _ = queue[index]
        if steps * images_s > costliest and not must:
            costliest, position = steps * images_s, index
    return queue[:position] + queue[position + 1 :]
