"""Who rides along: a set of requests in the order of their due times, made into a schedule of shared steps.

The requests lead one after another, each until it is finished. A step costs more than its requests add to it, so the
others ride along in the steps of those that lead before them, for as many steps as those have time for; what has
ridden needs so many steps less of its own. A ride delays everybody from the one that leads to the one before the rider
and makes the rider, and all behind it, earlier. So rides are given out in the order of due times, each rider in the
steps of those just before it first: there it delays the fewest. None makes anybody late that was in time.

What a rider adds to a step is what the predictor answers for the batch with it, less its answer without. Where sizes
share nothing, as whole images of different sizes that take turns, that is all that the rider costs alone: it gains
nothing, and does not ride. A request that mixes with no other size, as a tiled one, is one long step by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from policies.job import Job
from policies.scheduling.mixing import BatchKind, CostsNow, MixedBatch

_LEAST_GAIN = 0.02
"""Share of its step alone that a rider gains at least: less does not pay for what it ties together."""


class Task(NamedTuple):
    """What is left of one request. Tasks sort by due time.

    Attributes:
        due: when it should be finished, seconds on the controller's clock.
        order: breaks ties.
        steps: denoising steps left; 1 of one that mixes with no other size.
        step_s: predicted seconds of each, alone.
        join_s: encoding, before its first step.
        leave_s: decoding, after its last.
        alone_s: all that is left, alone.
        must: it is run even if it will be late.
        worth: what it counts beside others.
        kind: what the predictor is asked for.
        job: whose it is.
    """

    due: float
    order: int
    steps: int
    step_s: float
    join_s: float
    leave_s: float
    alone_s: float
    must: bool
    worth: float
    kind: BatchKind
    job: Job


class Schedule(NamedTuple):
    """What comes of a queue.

    Attributes:
        late: position of the first that would be late; -1 when all that need not be run are in time. A schedule ends
            with the first that is late.
        riders: who rides with the first, and for how many steps: (position, steps).
        end_s: when the last is finished.
    """

    late: int
    riders: list[tuple[int, int]]
    end_s: float


def schedule(
    costs: CostsNow,
    tasks: Sequence[Task],
    most_images: int,
    now: float = 0.0,
    scale: float = 1.0,
    early: bool = False,
) -> Schedule:
    """Run tasks in the order given, each with as many as can ride along.

    Args:
        costs: what a step of a batch takes now.
        tasks: the queue; those that must be run are never late.
        most_images: in a batch; one request alone may have more.
        now: when it starts, seconds.
        scale: everything takes so many times as long as the costs say.
        early: riders ride with the first that lead, which makes them ready soonest where nobody is to be in time;
            otherwise with those just before them.
    """
    if len(tasks) == 1:
        (task,) = tasks
        spent_s = task.join_s + task.steps * task.step_s + task.leave_s
        late = not task.must and (task.due - now) / scale - spent_s < 0.0
        return Schedule(0 if late else -1, [], now + scale * spent_s)
    left: list[int] = []  # steps that each leads
    slack: list[float] = []  # predicted seconds that each has to spare
    room: list[int] = []  # images that fit in beside each and its riders
    batches: list[MixedBatch] = []
    rates: list[float] = []  # seconds of a step of each of them
    riders: list[tuple[int, int]] = []
    plus, seconds, empty = costs.plus, costs.step_s, costs.empty
    spent_s = 0.0
    for j, (due, _, steps, step_s, join_s, leave_s, _, must, _, kind, _) in enumerate(tasks):
        spent_s += join_s + steps * step_s + leave_s
        own_s = math.inf if must else (due - now) / scale - spent_s
        images, mixes = kind.images, kind.mixes
        least_s, rest, joined, ended = math.inf, steps, j, -1
        least_gain_s = _LEAST_GAIN * step_s
        leaders = range(j) if early else range(j - 1, -1, -1)
        for k in leaders if mixes else ():
            if early:
                least_s = min(slack[k:j])
            elif slack[k] < least_s:
                least_s = slack[k]
                if least_s <= 0.0:
                    break
            if not left[k] or images > room[k]:
                continue
            led = batches[k]
            batch = led.more.get(kind) or plus(led, kind)
            rate_s = seconds(batch)
            cost_s = rate_s - rates[k]
            if cost_s < 0.0:
                cost_s = 0.0
            gain_s = step_s - cost_s
            if gain_s <= least_gain_s:
                continue
            able = rest if rest < left[k] else left[k]
            spare_s = least_s - join_s
            if able == rest and (early or ended < 0) and able * cost_s + leave_s > spare_s:
                able -= 1  # then it is decoded in its own turn
            if able * cost_s > spare_s:
                able = int(spare_s / cost_s) if cost_s > 0.0 else 0
            if able <= 0:
                continue
            rest -= able
            room[k] -= images
            batches[k], rates[k] = batch, rate_s
            ridden_s, gained_s = able * cost_s, able * gain_s
            for p in range(k, j):
                slack[p] -= ridden_s + join_s if p < joined else ridden_s
            least_s = min(slack[k:j])
            own_s += gained_s
            spent_s -= gained_s
            if k < joined:
                joined = k
            if k > ended:
                ended = k
            if not k:
                riders.append((j, able))
            if not rest:
                break
        if not rest:
            for p in range(ended, j):
                slack[p] -= leave_s
        if own_s < 0.0:
            return Schedule(j, riders, now + scale * spent_s)
        left.append(rest)
        slack.append(own_s)
        room.append(most_images - images if mixes else 0)
        batches.append(empty.more.get(kind) or plus(empty, kind))
        rates.append(step_s)
    return Schedule(-1, riders, now + scale * spent_s)
