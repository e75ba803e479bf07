"""Our own scheduler: looks ahead with the predictor and runs the set of requests that meets most deadlines.

At every decision it rolls its queue forward at several widths (`policies.scheduling.lookahead_roll`) and takes the
plan in which most requests are finished in time; among those the one that is done with everything soonest, because
that leaves room for who comes next. So it mixes sizes as widely as the deadlines allow where a batch shares work, runs
one request after another where it does not, lets a started request pause for a more urgent group, and spends no step
on a request that is not going to make it while others can.

A plan is kept until something happens that can change it: one of its batch ends, or a request arrives that may join.
Nothing that a decision depends on moves between such events, which is what makes a long quantum a kept promise.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job
from policies.scheduling.batch import next_quantum
from policies.scheduling.lookahead_costs import MarginalCosts
from policies.scheduling.lookahead_roll import Task, best_plan

_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_TYPICAL_WIDTH = 4


class _Batch(NamedTuple):
    """What a replica works on: who, since when, and how much each had to do then."""

    jobs: tuple[Job, ...]
    steps_left: tuple[int, ...]
    step_s: float
    formed_s: float
    full: bool  # others wait for their turn behind it
    last_due_s: float


class _Lane:
    """What is kept of one replica."""

    __slots__ = ("anew", "batch", "closed_s", "free_s", "news", "queue", "width")

    def __init__(self) -> None:
        self.batch: _Batch | None = None
        self.anew = False  # the batch must be planned anew
        self.closed_s: float | None = None  # when the first of the batch ended
        self.free_s = 0.0  # when all that it has is predicted to be finished
        self.queue: list[Task] = []  # waiting jobs meant for it
        self.news: list[Task] = []
        self.width = 0


class Lookahead(SchedulingPolicy):
    """Runs, step by step, the batch that a roll-forward of the predictor says meets most deadlines.

    With several replicas a request is meant for the one that is predicted to be free first, but it is not bound to it
    before it starts: whom a replica has no time for may be taken by any, and an idle one takes from all.

    Args:
        max_batch: images in a batch.
        margin: share by which predictions are taken to be too small when a plan is judged.
        drop_late: drop a request once it could not meet its deadline even alone; otherwise it is served as one
            without a deadline.
        patience: a request without a deadline is due this many times its standalone seconds after it came. The one
            that is most overdue is always in the batch, so that none starves.
        horizon: requests that are rolled forward, most urgent first.
    """

    def __init__(
        self,
        max_batch: int = 12,
        margin: float = 0.1,
        drop_late: bool = True,
        patience: float = 10.0,
        horizon: int = 32,
    ) -> None:
        self.max_batch = max_batch
        self.margin = margin
        self.drop_late = drop_late
        self.patience = patience
        self.horizon = horizon

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._costs = MarginalCosts(cluster.predictor)
        self._lanes = [_Lane() for _ in cluster.replicas]
        self._rest: list[Task] = []  # waiting jobs that no replica has time for
        self._home: dict[Job, tuple[list[Task], Task]] = {}  # of waiting jobs: the list they are in
        self._wanted_s: dict[Job, float] = {}  # when jobs are due that must be run even if they are late

    def arrived(self, job: Job, now: float) -> None:
        if job.request.deadline == math.inf:
            self._wanted_s[job] = now + self.patience * self._costs.remaining_s(job)
        task = self._task(job)
        cost = self._costs.of(job)
        best, free_s = None, math.inf
        for lane, replica in zip(self._lanes, self.cluster.replicas, strict=True):
            if not (lane.queue or replica.resident):
                lane.free_s = now
            if lane.free_s < free_s:
                best, free_s = lane, max(lane.free_s, now)
        assert best is not None
        share_s = cost.images_s + cost.shared_s / _TYPICAL_WIDTH
        best.free_s = free_s + self._costs.ratio * (task.steps * share_s + task.join_s + task.leave_s)
        self._put(task, best.queue)
        best.news.append(task)

    def ended(self, job: Job, now: float) -> None:
        self._wanted_s.pop(job, None)
        if job in self._home:
            self._take(job)
            return
        lane = self._lanes[job.replica]
        if lane.batch is not None and job in lane.batch.jobs:
            lane.anew = True
            if lane.closed_s is None:
                lane.closed_s = now

    def recalls(self, now: float) -> list[int]:
        named = []
        for lane, replica in zip(self._lanes, self.cluster.replicas, strict=True):
            news = lane.news
            if not news:
                continue
            batch, launch = lane.batch, replica.launch
            if batch is not None and not (batch.full and min(news).due >= batch.last_due_s):
                lane.anew = True
                if launch is not None and launch.steps > 1:
                    named.append(launch.launch_id)
            news.clear()
        return named

    def plan(self, replica: Replica, now: float) -> Decision | None:
        lane = self._lanes[replica.index]
        if lane.batch is not None:
            if not lane.anew:
                return self._go_on(lane.batch.jobs)
            self._learn(lane, lane.batch, now)
        lane.batch, lane.anew, lane.closed_s = None, False, None
        lane.news.clear()
        finishing = [job for job in replica.resident.values() if job.stage == "decode"]
        started = [self._task(job) for job in replica.resident.values() if job.stage != "decode"]
        tasks = sorted([*started, *lane.queue, *self._rest])
        if not (tasks or finishing):
            tasks = sorted([task for other in self._lanes for task in other.queue])
        ratio = self._costs.ratio
        late = [task for task in tasks if now + ratio * task.alone_s > task.due and not task.must]
        if late and self.drop_late:
            return Decision(drop=tuple([(_job(task), _reason(task, now, ratio)) for task in late]))
        if late:
            tasks = sorted([task for task in tasks if task not in late] + [self._must(task) for task in late])
        return self._new_batch(replica, lane, finishing, _overdue_apart(tasks, now), now)

    def _new_batch(
        self, replica: Replica, lane: _Lane, finishing: list[Job], tasks: list[Task], now: float
    ) -> Decision | None:
        if not (tasks or finishing):
            return None
        costs = self._costs
        jobs, step_s, full = finishing, 0.0, False
        lane.free_s = now + costs.ratio * sum([costs.of(job).decode_s for job in finishing])
        if tasks:
            shared_s = costs.of(_job(tasks[0])).shared_s
            scale = costs.ratio * (1.0 + self.margin)
            plan = best_plan(tasks, self._widths(tasks, lane), shared_s, lane.free_s, scale, self.horizon)
            batch = plan.batch or tasks[:1]
            lane.free_s += (plan.end_s - lane.free_s) / (1.0 + self.margin)
            lane.width = plan.width
            full = len(batch) < len(plan.queue) or sum([task.images for task in batch]) >= self.max_batch
            step_s = shared_s + sum([t.images_s for t in batch]) + sum({t.kind: t.kind_s for t in batch}.values())
            jobs = [*finishing, *[_job(task) for task in batch]]
            self._settle(lane, plan.queue, tasks)
            last_due_s = batch[-1].due
        else:
            last_due_s = math.inf
        lane.batch = _Batch(tuple(jobs), tuple([job.steps_left for job in jobs]), step_s, now, full, last_due_s)
        return self._go_on(jobs)

    def _settle(self, lane: _Lane, planned: list[Task], tasks: list[Task]) -> None:
        """Waiting jobs that there is time for are meant for this replica, its others for any."""
        home, mine = self._home, {task.order for task in planned}
        for task in tasks:
            job = _job(task)
            if job in home:
                at = home[job][0]
                to = lane.queue if task.order in mine else self._rest if at is lane.queue else at
                if to is not at:
                    self._take(job)
                    self._put(task, to)

    def _widths(self, tasks: Sequence[Task], lane: _Lane) -> list[int]:
        """Candidate widths; the one that was best last time is tried first, then the wide ones."""
        images = sum([task.images for task in tasks])
        widths = []
        for width in (*_WIDTHS, self.max_batch):
            if width <= self.max_batch:
                widths.append(width)
                if width >= images:
                    break
        return sorted(set(widths), key=lambda width: (width != lane.width, -width))

    def _go_on(self, jobs: Sequence[Job]) -> Decision:
        decision = next_quantum(jobs)
        for job in decision.jobs:
            if job in self._home:
                self._take(job)
        return decision

    def _task(self, job: Job) -> Task:
        cost = self._costs.of(job)
        encodes = job.stage == "encode"
        must = job in self._wanted_s
        return Task(
            self._wanted_s[job] if must else job.request.deadline,
            job.order,
            job.denoise_left,
            cost.images_s,
            cost.kind,
            cost.kind_s,
            cost.encode_s if encodes else 0.0,
            cost.decode_s,
            self._costs.remaining_s(job),
            job.images,
            must,
            job,
        )

    def _must(self, task: Task) -> Task:
        """The task of a job that lost its deadline, as one of a request without."""
        job = _job(task)
        self._wanted_s[job] = task.due + self.patience * task.alone_s
        changed = task._replace(due=self._wanted_s[job], must=True)
        if job in self._home:
            at = self._home[job][0]
            self._take(job)
            self._put(changed, at)
        return changed

    def _put(self, task: Task, queue: list[Task]) -> None:
        insort(queue, task)
        self._home[_job(task)] = (queue, task)

    def _take(self, job: Job) -> None:
        queue, task = self._home.pop(job)
        del queue[bisect_left(queue, task)]

    def _learn(self, lane: _Lane, batch: _Batch, now: float) -> None:
        """Compare how long a batch ran with what it was predicted to take."""
        predicted_s, steps = 0.0, 0
        for job, before in zip(batch.jobs, batch.steps_left, strict=True):
            done = before - job.steps_left
            cost = self._costs.of(job)
            if done and before > job.request.steps + 1:
                predicted_s += cost.encode_s
                done -= 1
            if done and not job.steps_left:
                predicted_s += cost.decode_s
                done -= 1
            steps = max(steps, done)
        measured_s = (now if lane.closed_s is None else lane.closed_s) - batch.formed_s
        if steps:
            self._costs.learn(predicted_s + steps * batch.step_s, measured_s, steps)


def _job(task: Task) -> Job:
    assert task.job is not None
    return task.job


def _reason(task: Task, now: float, ratio: float) -> str:
    return f"would miss its deadline by {now + ratio * task.alone_s - task.due:.3g} s even alone"


def _overdue_apart(tasks: list[Task], now: float) -> list[Task]:
    """The most overdue first, the other overdue ones after those that have deadlines to meet."""
    overdue = sum([task.due < now for task in tasks])
    if overdue < 2 or all(task.must for task in tasks):
        return tasks
    return [tasks[0], *tasks[overdue:], *tasks[1:overdue]]
