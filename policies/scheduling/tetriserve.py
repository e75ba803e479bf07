"""TetriServe (ASPLOS 2026): rounds in which every request gets the devices it needs to meet its deadline, and no more.

As published: time is cut into rounds of equal length; a round begins when the one before is over. For every request the
least device time is found with which it still meets its deadline, in at most two degrees. A dynamic program over the
devices chooses who runs in the round, and on which of these degrees, so that as many requests as possible can still
meet their deadlines when the next round begins. Devices that are left speed up those that run (elastic scale-up), or
run requests that are late. A request stays on its devices while its degree does (placement preservation); small ones of
one size may share a launch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from policies.contract import Cluster, Replica
from policies.job import Job
from policies.parameters import StepCount
from policies.scheduling.elastic import ElasticPolicy, Unit, held

_LATE = "cannot meet its deadline any more, even on the most devices"


class _Option(NamedTuple):
    """A degree for a request in a round: whether it is not lost after that, and the steps that it does."""

    degree: int
    survives: bool
    steps: int


class TetriServe(ElasticPolicy):
    """Packs rounds of a few steps with requests at the degrees that their deadlines ask for.

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
        fastest_s = min([self.costs.step_s((job,), degree) for degree in self.costs.offered(job)])
        self._round_s = max(self._round_s, self.round_steps * fastest_s)
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
        jobs.sort(key=lambda job: (job.request.deadline, job.order))
        end_s = now + self._round_s
        finishing = [job for job in jobs if job.finishing]
        late = [job for job in jobs if not job.finishing and self._is_late(job, now)]
        drop = [(job, _LATE) for job in late if job.state != "running"] if self.drop_late else []
        timely = [job for job in jobs if not job.finishing and job not in set(late)]
        for job in finishing[:free]:
            running.append(Unit((job,), 1, 0.0, [0]))
            free -= 1
        chosen = self._pack(timely, free, now, end_s)
        free -= sum([option.degree for option in chosen.values()])
        for job in [*timely, *([] if self.drop_late else late)]:  # keep devices busy
            if job not in chosen and free >= (least := self.costs.offered(job)[0]):
                chosen[job] = self._option(job, least, now, end_s)
                free -= least
        self._scale_up(chosen, free, now, end_s)
        for job, option in chosen.items():
            step_s = self.costs.step_s((job,), option.degree)
            left, most = [self.left(job)], max(1, option.steps)
            running.append(Unit((job,), option.degree, step_s, left, self._encode_s(job), most))
        if chosen or running:
            self._ends_s[replica.index] = end_s
        else:
            self._ends_s.pop(replica.index, None)
        return running, drop

    def _is_late(self, job: Job, now: float) -> bool:
        return now + self.costs.least_s(job, self.left(job)) > job.request.deadline

    def _encode_s(self, job: Job) -> float:
        return self.costs.one.alone(self.costs.one.kind(job)).encode_s if self.prepares(job) else 0.0

    def _option(self, job: Job, degree: int, now: float, end_s: float) -> _Option:
        """What a round does for a job at a degree."""
        step_s, left = self.costs.step_s((job,), degree), self.left(job)
        steps = min(left, int((end_s - now - self._encode_s(job)) / step_s + 1e-9))
        done_s = end_s if steps < left else now + self.costs.seconds(job, left, degree)
        if steps == left:
            return _Option(degree, done_s <= job.request.deadline, steps)
        prepared = self._encode_s(job)
        after_s = end_s + self.costs.least_s(job, left - steps) - prepared
        return _Option(degree, after_s <= job.request.deadline, steps)

    def _degrees(self, job: Job, now: float) -> tuple[int, ...]:
        """The degrees of the least device time with which a job meets its deadline: one, or two in turn."""
        left, slack_s = self.left(job), job.request.deadline - now
        costs, offered = self.costs, self.costs.offered(job)
        alone = costs.one.alone(costs.one.kind(job))
        slack_s -= alone.decode_s + self._encode_s(job)
        step_s = {degree: costs.step_s((job,), degree) for degree in offered}
        best, found = math.inf, offered[-1:]
        for slow in offered:
            if left * step_s[slow] <= slack_s:
                if left * slow * step_s[slow] < best:
                    best, found = left * slow * step_s[slow], (slow,)
                continue
            for fast in offered:
                if fast <= slow or left * step_s[fast] > slack_s or step_s[fast] >= step_s[slow]:
                    continue
                many = math.floor((slack_s - left * step_s[fast]) / (step_s[slow] - step_s[fast]))
                device_s = many * slow * step_s[slow] + (left - many) * fast * step_s[fast]
                if device_s < best:
                    best, found = device_s, (slow, fast) if many else (fast,)
        return found

    def _pack(self, jobs: Sequence[Job], free: int, now: float, end_s: float) -> dict[Job, _Option]:
        """Who runs in a round: a group knapsack over the devices, for the most that are not lost after it.

        Of packings that save as many, the one that does most of the work of those in it on the fewest devices.
        """
        best: list[tuple[int, float, dict[Job, _Option]]] = [(0, 0.0, {}) for _ in range(free + 1)]
        for job in jobs:
            idle = _idle_survives(self, job, end_s)
            options = [self._option(job, degree, now, end_s) for degree in self._degrees(job, now)]
            options = [option for option in options if option.steps]
            before = best
            best = [(saved + idle, work, chosen) for saved, work, chosen in before]
            for option in options:
                work = option.steps / max(1, self.left(job))
                for devices in range(option.degree, free + 1):
                    saved, done, chosen = before[devices - option.degree]
                    candidate = saved + option.survives, done + work
                    if candidate > best[devices][:2]:
                        best[devices] = (*candidate, {**chosen, job: option})
        return dict(best[free][2])

    def _scale_up(self, chosen: dict[Job, _Option], free: int, now: float, end_s: float) -> None:
        """Give devices that are left to those that gain most by the next degree."""
        while free:
            gains = []
            for job, option in chosen.items():
                more = next((each for each in self.costs.offered(job) if each > option.degree), None)
                if more is None or more - option.degree > free:
                    continue
                faster = 1.0 - self.costs.step_s((job,), more) / self.costs.step_s((job,), option.degree)
                if faster > 0.0:
                    gains.append((faster / (more - option.degree), -job.order, job, more))
            if not gains:
                return
            *_, job, more = max(gains, key=lambda gain: gain[:2])
            free -= more - chosen[job].degree
            chosen[job] = self._option(job, more, now, end_s)


def _idle_survives(policy: TetriServe, job: Job, end_s: float) -> bool:
    """Whether a job that rests for a round can still meet its deadline."""
    return end_s + policy.costs.least_s(job, policy.left(job)) <= job.request.deadline
