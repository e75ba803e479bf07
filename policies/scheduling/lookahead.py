"""Our own scheduler: looks ahead with the predictor and runs the set of requests that meets most deadlines.

At every decision it rolls its queue forward at several widths (`policies.scheduling.lookahead_roll`) and takes the
plan in which most requests are finished in time; among those the one that is done with everything soonest, because
that leaves room for who comes next. So it mixes sizes as widely as the deadlines allow where a batch shares work, runs
one request after another where it does not, lets a started request pause for a more urgent group, and spends no step
on a request that is not going to make it while others can.

A plan is kept until something happens that can change it: one of its batch ends, or a request arrives that may join.
Nothing that a decision depends on moves between such events, which is what makes a long quantum a kept promise.

A request that mixes with no other size, as a tiled one, shares no step with others. In the queue it is one long step by
itself, wherever its due time puts it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job
from policies.parameters import Weight, Width
from policies.scheduling.batch import next_quantum
from policies.scheduling.lookahead_costs import MarginalCosts
from policies.scheduling.lookahead_roll import RollPlan, Task, best_plan, filled, roll

_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_FREE, _TAKEN = (False, False, 0.0), (True, True, math.inf)
"""The least and the most that a replica can have to do: it has been told of arrivals, is full, a step takes so long."""
_ALONE = 10**9
"""Images that a request is taken to have that mixes with no other size: more than any width, so it runs by itself."""


class _Batch(NamedTuple):
    """What a replica works on: who, since when, and how much each had to do then."""

    jobs: tuple[Job, ...]
    steps_left: tuple[int, ...]
    step_s: float
    formed_s: float
    full: bool  # others wait for their turn behind it
    last_due_s: float
    alone_s: float = 0.0  # what one that mixes with no other size had to do then


class _ReplicaState:
    """What is kept of one replica."""

    __slots__ = ("anew", "batch", "closed_s", "known", "planned", "width")

    def __init__(self) -> None:
        self.batch: _Batch | None = None
        self.anew = False  # the batch must be planned anew
        self.closed_s: float | None = None  # when the first of the batch ended
        self.planned: set[int] = set()  # for whom its last search found time,
        self.width = 0  # at which width,
        self.known = 0  # and how many requests had come by then


class Lookahead(SchedulingPolicy):
    """Runs, step by step, the batch that a roll-forward of the predictor says meets most deadlines.

    With several replicas a request is bound to none before it starts: at its every decision, each replica chooses from
    all that wait.

    Args:
        max_batch: images in a batch.
        margin: share by which predictions are taken to be too small when a plan is judged.
        drop_late: drop a request once it could not meet its deadline even alone; otherwise it is served as one
            without a deadline.
        patience: a request without a deadline is due this many times its standalone seconds after it came. Until then
            it makes way for those with deadlines; the one that is most overdue is always in the batch, so none starves.
        horizon: requests that are rolled forward, most urgent first.
    """

    def __init__(
        self,
        max_batch: Width = 12,
        margin: Weight = 0.07,
        drop_late: bool = True,
        patience: Weight = 10.0,
        horizon: Width = 32,
    ) -> None:
        self.max_batch = max_batch
        self.margin = margin
        self.drop_late = drop_late
        self.patience = patience
        self.horizon = horizon

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._costs = MarginalCosts(cluster.replicas[0].costs)
        self._replicas = {replica.index: replica for replica in cluster.replicas}
        self._states = {index: _ReplicaState() for index in self._replicas}
        self._pool: list[Task] = []  # waiting jobs that are in no batch yet, by due time
        self._in_pool: dict[Job, Task] = {}
        self._known = 0  # requests that have come
        self._orders: dict[tuple[int, int], list[int]] = {}  # of widths, by images and the last width
        self._told: dict[int, float] = {}  # replica: the most urgent due time of what it is to consider
        self._wanted_s: dict[Job, float] = {}  # when jobs are due that must be run even if they are late

    def arrived(self, job: Job, now: float) -> None:
        if job.request.deadline == math.inf:
            self._wanted_s[job] = now + self.patience * self._costs.remaining_s(job)
        task = self._task(job)
        self._put(task)
        self._known += 1
        index = self._least_loaded()
        self._told[index] = min(task.due, self._told.get(index, math.inf))

    def _least_loaded(self) -> int:
        """The replica that is to consider what has come: one that has no news yet, is idle, has room or cheap steps."""
        index, least = next(iter(self._replicas)), _TAKEN
        for replica in self.cluster.replicas:
            if not replica.up:
                continue
            state = self._states[replica.index]
            told = replica.index in self._told
            if not replica.resident or state.batch is None:
                load = (told, False, 0.0)
            else:
                load = (told, state.batch.full, state.batch.step_s)
            if load < least:
                index, least = replica.index, load
                if load == _FREE:
                    break
        return index

    def ended(self, job: Job, now: float) -> None:
        self._wanted_s.pop(job, None)
        if job in self._in_pool:
            self._take(job)
            return
        for state in self._states.values() if job.replica < 0 else (self._states[job.replica],):
            if state.batch is not None and job in state.batch.jobs:
                state.anew = True
                if state.closed_s is None:
                    state.closed_s = now

    def replica_down(self, replica: Replica, now: float) -> None:
        state = self._states[replica.index]
        left = (
            [self._task(job) for job in state.batch.jobs if job.state == "waiting"] if state.batch is not None else []
        )
        for task in left:
            self._put(task)
        self._states[replica.index] = _ReplicaState()
        due_s = min([task.due for task in left] + [self._told.pop(replica.index, math.inf)])
        if due_s < math.inf:
            index = self._least_loaded()
            self._told[index] = min(due_s, self._told.get(index, math.inf))

    def recalls(self, now: float) -> list[int]:
        told, self._told = self._told, {}
        named = []
        for index, due_s in told.items():
            state, launch = self._states[index], self._replicas[index].launch
            if state.batch is not None and not (state.batch.full and due_s >= state.batch.last_due_s):
                state.anew = True
                if launch is not None and launch.steps > 1:
                    named.append(launch.launch_id)
        return named

    def plan(self, replica: Replica, now: float) -> Decision | None:
        state = self._states[replica.index]
        batch = state.batch
        if batch is not None:
            if not state.anew:
                return next_quantum(batch.jobs)
            self._learn(state, batch, now)
            for job in batch.jobs:
                if job.state == "waiting":
                    self._put(self._task(job))
        state.batch, state.anew, state.closed_s = None, False, None
        self._told.pop(replica.index, None)
        started = list(replica.resident.values())
        finishing = [job for job in started if job.finishing]
        tasks = sorted([*[self._task(job) for job in started if not job.finishing], *self._open_to(started)])
        ratio = self._costs.ratio
        late = [task for task in tasks if now + ratio * task.alone_s > task.due and not task.must]
        if late and self.drop_late:
            return Decision(drop=tuple([(_job(task), _reason(task, now, ratio)) for task in late]))
        if late:
            tasks = sorted([*[task for task in tasks if task not in late], *[self._must(task) for task in late]])
        if not (tasks or finishing):
            return None
        state.batch = self._form(state, finishing, tasks, now)
        for job in state.batch.jobs:
            if job in self._in_pool:
                self._take(job)
        return next_quantum(state.batch.jobs)

    def _open_to(self, started: list[Job]) -> list[Task]:
        """What a replica may choose from: all that wait, or its share when others are idle as it is."""
        if started:
            return self._pool
        idle = sum([replica.up and not replica.resident for replica in self.cluster.replicas])
        return self._pool[:: max(1, idle)]

    def _form(self, state: _ReplicaState, finishing: list[Job], tasks: list[Task], now: float) -> _Batch:
        costs = self._costs
        jobs, step_s, full, last_due_s = finishing, 0.0, False, math.inf
        if tasks:
            shared_s = self._shared_s(tasks)
            scale = costs.ratio * (1.0 + self.margin)
            start_s = now + costs.ratio * sum([costs.of(job).decode_s for job in finishing])
            plan = self._same_plan(state, tasks, shared_s, start_s, scale)
            if plan is None:
                urgent, patient = _apart(tasks, now)
                widths = self._widths(tasks, state)
                plan = best_plan(urgent, widths, shared_s, start_s, scale, self.horizon)
                if patient:
                    plan = filled(plan, patient[: self.max_batch], widths, shared_s, start_s, scale)
                state.planned, state.width = {task.order for task in plan.queue}, plan.width
                state.known = self._known
            batch = plan.batch or tasks[:1]
            full = len(batch) < len(plan.queue) or sum([task.images for task in batch]) >= self.max_batch
            kinds_s = {task.kind: task.kind_s for task in batch}
            step_s = shared_s + sum([task.images_s for task in batch]) + sum(kinds_s.values())
            jobs = [*finishing, *[_job(task) for task in batch]]
            last_due_s = batch[-1].due
        alone_s = sum([costs.remaining_s(job) for job in jobs if not job.mixes])
        return _Batch(
            jobs=tuple(jobs),
            steps_left=tuple([job.steps_left for job in jobs]),
            step_s=step_s,
            formed_s=now,
            full=full,
            last_due_s=last_due_s,
            alone_s=alone_s,
        )

    def _same_plan(
        self, state: _ReplicaState, tasks: list[Task], shared_s: float, now: float, scale: float
    ) -> RollPlan | None:
        """What is left of the last plan, when no request has come since and it still meets its deadlines."""
        queue = [task for task in tasks if task.order in state.planned] if state.known == self._known else []
        if queue:
            rolled = roll(queue, state.width, shared_s, now, scale)
            if rolled.late < 0 and not rolled.overdue:
                return RollPlan(queue, state.width, state.width, len(queue), rolled.end_s)
        return None

    def _shared_s(self, tasks: Sequence[Task]) -> float:
        """What a step costs for being a step, whatever is in it."""
        for task in tasks:
            if task.images < _ALONE:
                return self._costs.of(_job(task)).shared_s
        return 0.0

    def _widths(self, tasks: Sequence[Task], state: _ReplicaState) -> list[int]:
        """Candidate widths; the one that was best last time is tried first, then the wide ones."""
        images = min(self.max_batch, sum([task.images for task in tasks]))
        widths = self._orders.get((images, state.width))
        if widths is None:
            candidates = sorted({width for width in (*_WIDTHS, self.max_batch) if width <= self.max_batch})
            enough = next((width for width in candidates if width >= images), self.max_batch)
            widths = sorted(
                [width for width in candidates if width <= enough], key=lambda width: (width != state.width, -width)
            )
            self._orders[images, state.width] = widths
        return widths

    def _task(self, job: Job) -> Task:
        cost = self._costs.of(job)
        encodes = job.preparing
        must = job in self._wanted_s
        if not job.mixes:
            alone_s, encode_s = self._costs.remaining_s(job), cost.encode_s if encodes else 0.0
            return Task(
                due=self._wanted_s[job] if must else job.request.deadline,
                order=job.order,
                steps=1,
                images_s=max(0.0, alone_s - encode_s - cost.decode_s),
                kind=cost.kind,
                kind_s=cost.kind_s,
                join_s=encode_s,
                leave_s=cost.decode_s,
                alone_s=alone_s,
                images=_ALONE,
                must=must,
                job=job,
            )
        return Task(
            due=self._wanted_s[job] if must else job.request.deadline,
            order=job.order,
            steps=job.denoise_left,
            images_s=cost.images_s,
            kind=cost.kind,
            kind_s=cost.kind_s,
            join_s=cost.encode_s if encodes else 0.0,
            leave_s=cost.decode_s,
            alone_s=self._costs.remaining_s(job),
            images=job.images,
            must=must,
            job=job,
        )

    def _must(self, task: Task) -> Task:
        """The task of a job that lost its deadline, as one of a request without."""
        job = _job(task)
        self._wanted_s[job] = task.due + self.patience * task.alone_s
        changed = task._replace(due=self._wanted_s[job], must=True)
        if job in self._in_pool:
            self._take(job)
            self._put(changed)
        return changed

    def _put(self, task: Task) -> None:
        insort(self._pool, task)
        self._in_pool[_job(task)] = task

    def _take(self, job: Job) -> None:
        del self._pool[bisect_left(self._pool, self._in_pool.pop(job))]

    def _learn(self, state: _ReplicaState, batch: _Batch, now: float) -> None:
        """Compare how long a batch ran with what it was predicted to take."""
        predicted_s, steps, step_s = 0.0, 0, batch.step_s
        if batch.alone_s:
            predicted_s = batch.alone_s - sum([self._costs.remaining_s(job) for job in batch.jobs if not job.mixes])
            step_s = 0.0
        for job, before in zip(batch.jobs, batch.steps_left, strict=True):
            done = before - job.steps_left
            if not job.mixes:
                steps = max(steps, done)
                continue
            cost = self._costs.of(job)
            if done and before > job.request.steps + 1:
                predicted_s += cost.encode_s
                done -= 1
            if done and not job.steps_left:
                predicted_s += cost.decode_s
                done -= 1
            steps = max(steps, done)
        measured_s = (now if state.closed_s is None else state.closed_s) - batch.formed_s
        if steps:
            self._costs.learn(predicted_s + steps * step_s, measured_s, steps)


def _job(task: Task) -> Job:
    assert task.job is not None
    return task.job


def _reason(task: Task, now: float, ratio: float) -> str:
    return f"would miss its deadline by {now + ratio * task.alone_s - task.due:.3g} s even alone"


def _apart(tasks: list[Task], now: float) -> tuple[list[Task], list[Task]]:
    """Those with deadlines to meet, before them the one that is most overdue, and those that can wait.

    When nobody has a deadline, nobody is asked to wait.
    """
    patient = [task for task in tasks if task.must]
    if not patient or len(patient) == len(tasks):
        return tasks, []
    urgent = [task for task in tasks if not task.must]
    if patient[0].due < now:
        urgent.insert(0, patient.pop(0))
    return urgent, patient
