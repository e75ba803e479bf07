"""Rolling a queue forward: when would everything finish, if run in this order and this wide?

Pure functions of plain floats; time starts at 0 and due times count from there, so a plan does not know the clock.
A batch runs in lock step. The next in line joins as soon as it fits, and who has done its steps leaves and is decoded,
which the others wait for: what the controller does with the decisions of `policies.scheduling.lookahead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple


class Task(NamedTuple):
    """What is left of one request, seconds.

    Attributes:
        due: when it should be finished.
        order: breaks ties.
        steps: denoising steps left.
        images_s: what its images add to a step.
        kind: requests of a kind share `kind_s`.
        kind_s: what a kind adds to a step.
        join_s: encoding, before its first step.
        leave_s: decoding, after its last.
        alone_s: all of it, alone.
        images: how much of the width it takes.
        must: it is run even if it is late.
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


class Rolled(NamedTuple):
    """What would come of a queue.

    Attributes:
        met: tasks finished by their due times.
        end_s: when the last has finished.
        sum_s: all finishing times, summed.
        late: positions of tasks that were run and finished late, or came too late to be run.
    """

    met: int
    end_s: float
    sum_s: float
    late: list[int]


def roll(tasks: Sequence[Task], width: int, shared_s: float) -> Rolled:
    """Run tasks in the order given, up to ``width`` images at a time; a task of more images runs alone.

    A task that could not be finished by its due time even alone when it would join is passed over, unless it must be
    run. ``shared_s`` is what a step costs whatever is in it.
    """
    now, rate, images, steps, met, total = 0.0, shared_s, 0, 0, 0, 0.0
    batch: list[tuple[int, int]] = []
    kinds: dict[int, int] = {}
    late: list[int] = []
    position, count = 0, len(tasks)
    while True:
        while position < count:
            task = tasks[position]
            if batch and images + task.images > width:
                break
            if now + task.alone_s > task.due and not task.must:
                late.append(position)
            else:
                heappush(batch, (steps + task.steps, position))
                images += task.images
                rate += task.images_s
                now += task.join_s
                if not kinds.get(task.kind):
                    kinds[task.kind] = 1
                    rate += task.kind_s
                else:
                    kinds[task.kind] += 1
            position += 1
        if not batch:
            return Rolled(met, now, total, late)
        until = batch[0][0]
        now += (until - steps) * rate
        steps = until
        leaving = []
        while batch and batch[0][0] == until:
            leaving.append(heappop(batch)[1])
            task = tasks[leaving[-1]]
            now += task.leave_s
            images -= task.images
            rate -= task.images_s
            kinds[task.kind] -= 1
            if not kinds[task.kind]:
                rate -= task.kind_s
        for index in leaving:
            total += now
            if now <= tasks[index].due:
                met += 1
            else:
                late.append(index)


def feasible(tasks: Sequence[Task], width: float, shared_s: float) -> list[Task]:
    """As many tasks as can be finished in time, in order of due time (Moore and Hodgson's rule).

    Each is taken to cost its own share of steps that ``width`` tasks share. When one would be late, the one that costs
    most is left out. What must be run is never left out.
    """
    share_s = shared_s / width
    chosen: list[tuple[float, int]] = []
    out: set[int] = set()
    now = 0.0
    for position, task in enumerate(tasks):
        cost = task.steps * (task.images_s + task.kind_s / width + share_s) + task.join_s + task.leave_s
        now += cost
        if task.must:
            continue
        heappush(chosen, (-cost, position))
        if now > task.due:
            cost, position = heappop(chosen)
            now += cost
            out.add(position)
    if not out:
        return list(tasks)
    return [task for position, task in enumerate(tasks) if position not in out]
