"""TetriServe (ASPLOS 2026): rounds in which every request gets the devices it needs to meet its deadline, and no more.

As published: time is cut into rounds of equal length; a round begins when the one before is over. For every request the
least device time is found with which it still meets its deadline, in at most two degrees. A dynamic program over the
devices chooses who runs in the round, and on which of these degrees, so that as many requests as possible can still
meet their deadlines when the next round begins. Devices that are left speed up those that run (elastic scale-up), or
run requests that are late. A request stays on its devices while its degree does (placement preservation). Every
request runs alone: that small ones of one size may share a launch, as published, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from policies.contract import Cluster, Replica
from policies.job import Job
from policies.parameters import StepCount
from policies.scheduling.elastic import ElasticPolicy, KindOnDegrees, Unit, held

_LATE = "cannot meet its deadline any more, even on the most devices"


class _Option(NamedTuple):
    """A degree for a request in a round: whether it is not lost after that, and the steps that it does."""

    degree: int
    survives: bool
    steps: int


class _Candidate:
    """A request that may run in a round.

    Attributes:
        job: which.
        of_kind: what it takes alone at every degree.
        left: denoising steps that it has left.
        encode_s: seconds until it can take such steps.
        due_s: its deadline.
        option: at which degree it runs; None: it does not.
    """

    __slots__ = ("due_s", "encode_s", "job", "left", "of_kind", "option")

    def __init__(self, job: Job, of_kind: KindOnDegrees, left: int, encode_s: float) -> None:
        self.job = job
        self.of_kind = of_kind
        self.left = left
        self.encode_s = encode_s
        self.due_s = job.request.deadline
        self.option: _Option | None = None

    def least_s(self, steps: int = 0) -> float:
        """Seconds that it needs at least after so many steps, with its encoding if it has not begun then."""
        left = self.left - steps
        return self.of_kind.least_s(left, left < self.job.denoise_steps)

    def at(self, place: int, now: float, end_s: float) -> _Option:
        """What a round does for it at one of the degrees that it is offered, by its place among them."""
        of_kind, left = self.of_kind, self.left
        degree, alone = of_kind.degrees[place], of_kind.alone[place]
        steps = int((end_s - now - self.encode_s) / alone.step_s + 1e-9)
        if steps >= left:
            encode_s = 0.0 if left < self.job.denoise_steps else alone.encode_s
            done_s = now + (encode_s + left * alone.step_s + alone.decode_s)
            return _Option(degree, done_s <= self.due_s, left)
        after_s = end_s + self.least_s(steps) - self.encode_s
        return _Option(degree, after_s <= self.due_s, steps)

    def cheapest(self, now: float) -> tuple[int, ...]:
        """The places of the degrees of the least device time with which it meets its deadline: one, or two in turn."""
        of_kind, left = self.of_kind, self.left
        steps_s, degrees = of_kind.steps_s, of_kind.degrees
        slack_s = self.due_s - now - (of_kind.one.decode_s + self.encode_s)
        best = math.inf
        found: tuple[int, ...] = (len(degrees) - 1,)
        for slow, slow_s in enumerate(steps_s):
            if left * slow_s <= slack_s:
                if left * degrees[slow] * slow_s < best:
                    best, found = left * degrees[slow] * slow_s, (slow,)
                continue
            for fast in range(slow + 1, len(degrees)):
                fast_s = steps_s[fast]
                if left * fast_s > slack_s or fast_s >= slow_s:
                    continue
                many = math.floor((slack_s - left * fast_s) / (slow_s - fast_s))
                device_s = many * degrees[slow] * slow_s + (left - many) * degrees[fast] * fast_s
                if device_s < best:
                    best, found = device_s, (slow, fast) if many else (fast,)
        return found


_Chosen = tuple[_Candidate, _Option, Any]
"""One who runs in a round, at which degree, and the others that were chosen before; of none None."""


class TetriServe(ElasticPolicy):
    """Packs rounds of a few steps with requests at the degrees that their deadlines ask for.

    A degree is a number of a replica's devices, and every request runs alone, never in a batch. So on replicas of one
    device, or with a model that cannot be divided, it has nothing to choose and serves one request at a time.

    Args:
        round_steps: a round takes as long as so many steps of the slowest kind of request that has come, at its fastest
            degree.
        drop_late: drop what cannot meet its deadline; otherwise it runs on devices that are left.
    """

    usual_routing = "earliest-completion"

    def __init__(self, round_steps: StepCount = 5, drop_late: bool = True) -> None:
        self.round_steps = round_steps
        self.drop_late = drop_late

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._round_s = 0.0
        self._ends_s: dict[int, float] = {}  # by replica, when its round is over

    def arrived(self, job: Job, now: float) -> None:
        self.costs.renew()
        self._round_s = max(self._round_s, self.round_steps * self.costs.of(job).least_step_s)
        super().arrived(job, now)

    def wakeup(self, now: float) -> float | None:
        return min([end_s for end_s in self._ends_s.values() if end_s > now], default=None)

    def due(self, replica: Replica, now: float) -> bool:
        return self._ends_s.get(replica.index, math.inf) <= now

    def replica_down(self, replica: Replica, now: float) -> None:
        self._ends_s.pop(replica.index, None)
        super().replica_down(replica, now)

    def assign(self, replica: Replica, units: Sequence[Unit], now: float) -> tuple[list[Unit], list[tuple[Job, str]]]:
        end_s = self._ends_s.get(replica.index, -math.inf)
        if now < end_s and units:  # the round goes on
            return list(units), []
        running = list(units)  # what has not ended in time keeps its devices
        free = max(0, self.room(replica) - sum([unit.degree for unit in running]))
        busy = held(running)
        jobs = [job for job in replica.resident.values() if job not in busy]
        jobs += list(self.waiting)
        jobs.sort(key=_urgency)
        end_s = now + self._round_s
        timely: list[_Candidate] = []
        late: list[_Candidate] = []
        for job in jobs:
            if job.finishing:
                if free:
                    running.append(Unit((job,), 1, 0.0, [0]))
                    free -= 1
                continue
            candidate = self._candidate(job)
            (late if now + candidate.least_s() > candidate.due_s else timely).append(candidate)
        drop = [(each.job, _LATE) for each in late if each.job.state != "running"] if self.drop_late else []
        chosen = _pack(timely, free, now, end_s) if free else []
        free -= sum([each.option.degree for each in chosen if each.option is not None])
        for each in [*timely, *([] if self.drop_late else late)]:  # keep devices busy
            if not free:
                break
            if each.option is None and free >= each.of_kind.degrees[0]:
                each.option = each.at(0, now, end_s)
                free -= each.option.degree
                chosen.append(each)
        if free:
            _scale_up(chosen, free, now, end_s)
        for each in chosen:
            assert each.option is not None
            step_s = each.of_kind.steps_s[each.of_kind.degrees.index(each.option.degree)]
            most = max(1, each.option.steps)
            running.append(Unit((each.job,), each.option.degree, step_s, [each.left], each.encode_s, most))
        if running:
            self._ends_s[replica.index] = end_s
        else:
            self._ends_s.pop(replica.index, None)
        return running, drop

    def _candidate(self, job: Job) -> _Candidate:
        of_kind = self.costs.of(job)
        return _Candidate(job, of_kind, self.left(job), of_kind.one.encode_s if self.prepares(job) else 0.0)


def _urgency(job: Job) -> tuple[float, int]:
    return job.request.deadline, job.order


def _pack(candidates: Sequence[_Candidate], free: int, now: float, end_s: float) -> list[_Candidate]:
    """Who runs in a round: a group knapsack over the devices, for the most that are not lost after it.

    Of packings that save as many, the one that does most of the work of those in it on the fewest devices.
    """
    saved, works = [0] * (free + 1), [0.0] * (free + 1)
    chains: list[_Chosen | None] = [None] * (free + 1)
    for each in candidates:
        idle = end_s + each.least_s() <= each.due_s  # whether it can rest for a round
        saved_before, works_before, chains_before = saved, works, chains
        saved = [count + 1 for count in saved] if idle else list(saved)
        works, chains = list(works), list(chains)
        for place in each.cheapest(now):
            option = each.at(place, now, end_s)
            if not option.steps:
                continue
            work, degree, survives = option.steps / max(1, each.left), option.degree, option.survives
            for devices in range(degree, free + 1):
                count = saved_before[devices - degree] + survives
                if count < saved[devices]:
                    continue
                done = works_before[devices - degree] + work
                if count > saved[devices] or done > works[devices]:
                    saved[devices], works[devices] = count, done
                    chains[devices] = each, option, chains_before[devices - degree]
    found: list[_Candidate] = []
    chain = chains[free]
    while chain is not None:
        each, each.option, chain = chain
        found.append(each)
    found.reverse()
    return found


def _scale_up(chosen: Sequence[_Candidate], free: int, now: float, end_s: float) -> None:
    """Give devices that are left to those that gain most by the next degree."""
    while free:
        best, most, first = None, 0.0, 0
        for each in chosen:
            option, of_kind = each.option, each.of_kind
            assert option is not None
            more = of_kind.degrees.index(option.degree) + 1
            if more == len(of_kind.degrees) or of_kind.degrees[more] - option.degree > free:
                continue
            faster = 1.0 - of_kind.steps_s[more] / of_kind.steps_s[more - 1]
            if faster > 0.0:
                gain = faster / (of_kind.degrees[more] - option.degree)
                if gain > most or (gain == most and each.job.order < first):
                    best, most, first, place = each, gain, each.job.order, more
        if best is None or best.option is None:
            return
        free -= best.of_kind.degrees[place] - best.option.degree
        best.option = best.at(place, now, end_s)
