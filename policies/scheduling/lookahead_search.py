"""Whom there is time for: the search for the requests that are worth most together and can all be in time.

Best first over what is left out. Whether somebody is late depends on those before it alone (`schedule`), so a queue in
which one is late has no solution unless that one or one before it is left out: these are its branches. The branch that
has lost least comes first, of equal ones that which has saved most work. So the first queue without lateness is the
best there is, as far as `schedule` can say; when the search has tried enough it goes straight down. Of a long queue
those are left out beforehand for whom there would be no time even if all steps were shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from policies.scheduling.lookahead_rides import Schedule, Task, schedule
from policies.scheduling.mixing import BatchKind, CostsNow

_SMALL, _LONGEST = 8, 24
"""Requests of a queue that is searched as it is, and of the longest that is searched."""
_SHARED_BY = 6
"""Requests that share a step where it is asked for whom there could be time."""


class Chosen(NamedTuple):
    """For whom there is time, in order, and how they run."""

    queue: list[Task]
    schedule: Schedule


def choose(
    costs: CostsNow,
    tasks: Sequence[Task],
    most_images: int,
    now: float = 0.0,
    scale: float = 1.0,
    tries: int = 40,
) -> Chosen:
    """The best queue of some tasks in which nobody is late; what must be run is never left out.

    Args:
        costs: as of `schedule`, like the next three.
        tasks: in order of due times.
        most_images: in a batch.
        now: when it starts, seconds.
        scale: everything takes so many times as long as the costs say.
        tries: queues that are tried before it goes straight down.
    """
    if len(tasks) > _SMALL:
        tasks = seemingly(costs, tasks, now, scale)[:_LONGEST]
    found = schedule(costs, tasks, most_images, now, scale)
    if found.late < 0:
        return Chosen(list(tasks), found)
    work_s = [task.join_s + task.steps * task.step_s + task.leave_s for task in tasks]
    ahead: list[tuple[float, float, int]] = []
    lost, saved_s, out = 0.0, 0.0, 0  # bit i: task i is left out
    seen = {0}
    kept = list(range(len(tasks)))
    while True:
        able = [position for position in kept[: found.late + 1] if not tasks[position].must]
        tries -= 1
        if tries <= 0:
            out |= 1 << max(able, key=lambda position: work_s[position] / tasks[position].worth)
        else:
            for position in able:
                without = out | 1 << position
                if without not in seen:
                    seen.add(without)
                    heappush(ahead, (lost + tasks[position].worth, saved_s - work_s[position], without))
            lost, saved_s, out = heappop(ahead)
        kept = [position for position in range(len(tasks)) if not out >> position & 1]
        queue = [tasks[position] for position in kept]
        found = schedule(costs, queue, most_images, now, scale)
        if found.late < 0:
            return Chosen(queue, found)


def seemingly(costs: CostsNow, tasks: Sequence[Task], now: float = 0.0, scale: float = 1.0) -> list[Task]:
    """Those that could be finished in time one after another if each took its share of steps that several make.

    In the order given, that of due times; when one would be late, that is left out which takes longest for what it is
    worth (Moore and Hodgson's rule). What must be run stays.
    """
    shares_s: dict[BatchKind, float] = {}
    chosen: list[tuple[float, int, float]] = []
    out: set[int] = set()
    for position, task in enumerate(tasks):
        share_s = _share_s(costs, task, shares_s) if task.kind.mixes else task.step_s
        took_s = scale * (task.join_s + task.steps * share_s + task.leave_s)
        now += took_s
        if task.must:
            continue
        heappush(chosen, (-took_s / task.worth, position, took_s))
        if now > task.due:
            _, left_out, took_s = heappop(chosen)
            now -= took_s
            out.add(left_out)
    return [task for position, task in enumerate(tasks) if position not in out] if out else list(tasks)


def _share_s(costs: CostsNow, task: Task, known: dict[BatchKind, float]) -> float:
    """Seconds of a step for one of several of its kind."""
    share_s = known.get(task.kind)
    if share_s is None:
        batch = costs.empty
        for _ in range(_SHARED_BY):
            batch = costs.plus(batch, task.kind)
        share_s = known[task.kind] = costs.step_s(batch) / _SHARED_BY
    return share_s
