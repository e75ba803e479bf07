"""Our own scheduler: looks ahead with the predictor and runs the set of requests that meets most deadlines.

At every decision it searches for the requests that are worth most and can all be in time
(`policies.scheduling.lookahead_search`), each with as many others in its steps as it has time for
(`policies.scheduling.lookahead_rides`); the first of them runs now, with its riders. So it mixes sizes as widely as the
deadlines allow where a batch shares work, runs sizes by themselves where it does not, lets a started request pause for
a more urgent one, and spends no step on a request that is not going to make it while others can. Requests without a
deadline ride where there is room, the shortest first, which keeps their mean latency small.

A plan is kept until something happens that can change it: one of its batch ends or has ridden as long as it was to, or
a request arrives that may join. Nothing that a decision depends on moves between such events, which is what makes a
long quantum a kept promise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job
from policies.parameters import Part, Weight, Width
from policies.scheduling.batch import next_quantum
from policies.scheduling.forecast import Due
from policies.scheduling.lookahead_degrees import LookaheadDegrees
from policies.scheduling.lookahead_errors import Errors
from policies.scheduling.lookahead_fair import Floors
from policies.scheduling.lookahead_rides import Schedule, Task, schedule
from policies.scheduling.lookahead_search import choose
from policies.scheduling.lookahead_waiting import WaitingByDue
from policies.scheduling.mixing import CostsNow

_new = tuple.__new__  # of a named tuple, it takes a third of the time that its class takes
_FREE, _TAKEN = (False, False, 0.0), (True, True, math.inf)
"""The least and the most that a replica can have to do: it has been told of arrivals, is full, a step takes so long."""


class _Batch(NamedTuple):
    """What a replica works on.

    Attributes:
        jobs: who.
        steps_left: how much each had to do when it was put together.
        until: how much those have left then that run in it for a part of their steps.
        step_s: predicted seconds of a step.
        alone_s: what one that mixes with no other size had to do then.
        formed_s: when it was put together.
        full: others wait for their turn behind it.
        last_due_s: when the last of it is due.
    """

    jobs: tuple[Job, ...]
    steps_left: tuple[int, ...]
    until: tuple[tuple[Job, int], ...]
    step_s: float
    alone_s: float
    formed_s: float
    full: bool
    last_due_s: float

    def quantum(self) -> Decision:
        """Its next launch: as long as it stays together."""
        decision = next_quantum(self.jobs)
        if not self.until:
            return decision
        most = min([job.steps_left - last for job, last in self.until if job in decision.jobs], default=decision.steps)
        return decision if most >= decision.steps else decision._replace(steps=most)

    @property
    def over(self) -> bool:
        """Whether somebody has run in it as long as it was to."""
        return any(job.steps_left <= last for job, last in self.until)


class _ReplicaState:
    """What is kept of one replica."""

    __slots__ = ("anew", "batch", "closed_s", "known", "planned")

    def __init__(self) -> None:
        self.batch: _Batch | None = None
        self.anew = False  # the batch must be planned anew
        self.closed_s: float | None = None  # when the first of the batch ended
        self.planned: set[int] = set()  # for whom its last search found time,
        self.known = 0  # and how many requests had come by then


class Lookahead(SchedulingPolicy):
    """Runs, step by step, the batch with which most deadlines are met, as far as the predictor can say.

    With several replicas a request is bound to none before it starts: at its every decision, each replica chooses from
    all that wait.

    Args:
        max_batch: images in a batch.
        margin: the largest share by which predictions are taken to be too small when a plan is judged; twice what they
            were usually off, where that is less.
        drop_late: drop a request once it could not meet its deadline even alone; otherwise it is served as one
            without a deadline.
        soft_slo_scale: a request without a deadline is due this many times its standalone seconds after it came. Until
            then it makes way for those with deadlines; the most overdue one is always in the batch, so none starves.
        horizon: requests that are looked at, most urgent first.
        fair: the share of its requests that every size, and every tenant, is to have in time; 0: none. Others pay for
            it: SD3 at 0.555/s on an H100 keeps 92.0 % in all and 78.2 % of the largest; with a floor of 0.9 it keeps
            88.7 % and 83.9 % (``python -m benchmarks.fairness``).
        elastic: choose on how many devices of a replica each request runs, where steps can be divided; otherwise every
            launch takes all of them.
    """

    def __init__(
        self,
        max_batch: Width = 12,
        margin: Weight = 0.12,
        drop_late: bool = True,
        soft_slo_scale: Weight = 10.0,
        horizon: Width = 48,
        fair: Part = 0.0,
        elastic: bool = True,
    ) -> None:
        self.max_batch = max_batch
        self.margin = margin
        self.drop_late = drop_late
        self.soft_slo_scale = soft_slo_scale
        self.horizon = horizon
        self.fair = fair
        self.elastic = elastic

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._costs = cluster.replicas[0].batch_costs
        self._replicas = {replica.index: replica for replica in cluster.replicas}
        self._states = {index: _ReplicaState() for index in self._replicas}
        self._by_due = WaitingByDue()
        self._known = 0  # requests that have come
        self._told: dict[int, float] = {}  # replica: the most urgent due time of what it is to consider
        self._wanted_s: dict[Job, float] = {}  # when jobs are due that must be run even if they are late
        self._errors = Errors()
        self._floors = Floors(self.fair) if self.fair else None
        self._degrees: LookaheadDegrees | None = None

    def _divides(self, job: Job) -> bool:
        """Whether the steps of requests can be divided over the devices of a replica; of the first that comes."""
        replica = self.cluster.replicas[0]
        if not self.elastic or self._known or replica.pool.devices == 1 or not job.mixes:
            return False
        return max(replica.costs.degrees(job.request.model), default=1) > 1

    def arrived(self, job: Job, now: float) -> None:
        if self._degrees is None and self._divides(job):
            self._degrees = LookaheadDegrees(
                self.max_batch, self.margin, self.drop_late, self.soft_slo_scale, self.horizon
            )
            self._degrees.reset(self.cluster)
        if self._degrees is not None:
            self._degrees.arrived(job, now)
            return
        if job.request.deadline == math.inf:
            self._wanted_s[job] = job.request.arrival_s + self.soft_slo_scale * self._costs.remaining_s(job)
        due_s = self._put(job)
        self._known += 1
        index = self._least_loaded()
        if job in self._wanted_s:
            due_s = -math.inf  # it may be shorter than what runs
        self._told[index] = min(due_s, self._told.get(index, math.inf))

    def _least_loaded(self) -> int:
        """The replica that is to consider what has come: one that has no news yet, is idle, has room or cheap steps."""
        for replica in self.cluster.idle:
            if replica.index not in self._told:
                return replica.index
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

    def returned(self, job: Job, now: float) -> None:
        if self._degrees is not None:
            self._degrees.returned(job, now)

    def ended(self, job: Job, now: float) -> None:
        if self._degrees is not None:
            self._degrees.ended(job, now)
            return
        if self._floors is not None and job.request.deadline < math.inf and job.state != "rerouted":
            self._floors.ended(job)
        self._wanted_s.pop(job, None)
        if job in self._by_due:
            self._by_due.take(job)
            return
        for state in self._states.values() if job.replica < 0 else (self._states[job.replica],):
            if state.batch is not None and job in state.batch.jobs:
                state.anew = True
                if state.closed_s is None:
                    state.closed_s = now

    def replica_up(self, replica: Replica, now: float) -> None:
        if self._degrees is not None:
            self._degrees.replica_up(replica, now)

    def replica_down(self, replica: Replica, now: float) -> None:
        if self._degrees is not None:
            self._degrees.replica_down(replica, now)
            return
        state = self._states[replica.index]
        left = [job for job in state.batch.jobs if job.state == "waiting"] if state.batch is not None else []
        self._states[replica.index] = _ReplicaState()
        due_s = min([self._put(job) for job in left] + [self._told.pop(replica.index, math.inf)])
        if due_s < math.inf:
            index = self._least_loaded()
            self._told[index] = min(due_s, self._told.get(index, math.inf))

    def recalls(self, now: float) -> list[int]:
        if self._degrees is not None:
            return self._degrees.recalls(now)
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
        if self._degrees is not None:
            return self._degrees.plan(replica, now)
        state = self._states[replica.index]
        batch = state.batch
        if batch is not None and not (state.anew or batch.over):
            return batch.quantum()
        costs = self._costs.now()
        if batch is not None:
            self._learn(costs, state, batch, now)
            for job in batch.jobs:
                if job.state == "waiting":
                    self._put(job)
        state.batch, state.anew, state.closed_s = None, False, None
        self._told.pop(replica.index, None)
        urgent, patient, finishing = self._candidates(costs, replica)
        ratio = self._errors.ratio
        late = [task for task in urgent if now + ratio * task.alone_s > task.due]
        if late and self.drop_late:
            return Decision(drop=tuple([(task.job, _reason(task, now, ratio)) for task in late]))
        if late:
            hopeless = {task.order for task in late}
            urgent = [task for task in urgent if task.order not in hopeless]
            patient = sorted([*patient, *[self._must(task) for task in late]])
        if not (urgent or patient or finishing):
            return None
        state.batch = self._form(costs, state, finishing, urgent, patient, now)
        for job in state.batch.jobs:
            if job in self._by_due:
                self._by_due.take(job)
        return state.batch.quantum()

    def _candidates(self, costs: CostsNow, replica: Replica) -> tuple[list[Task], list[Task], list[Job]]:
        """Whom it may choose from: those with deadlines, those without, both by due time; and who is all but done.

        That is the front of all that wait, or its share of it when others are idle as it is.
        """
        started = list(replica.resident.values())
        every = 1 if started else max(1, len(self.cluster.idle))
        urgent, patient = (
            self._by_due.urgent(self.horizon, every),
            self._by_due.patient(self.max_batch, every),
        )
        finishing = []
        for job in started:
            if job.finishing:
                finishing.append(job)
            else:
                entry = (self._due_s(job), job.order, job)
                (patient if job in self._wanted_s else urgent).append(entry)
        return (
            sorted([self._task(costs, entry) for entry in urgent]),
            sorted([self._task(costs, entry) for entry in patient]),
            finishing,
        )

    def _form(
        self,
        costs: CostsNow,
        state: _ReplicaState,
        finishing: list[Job],
        urgent: list[Task],
        patient: list[Task],
        now: float,
    ) -> _Batch:
        jobs, step_s, full, last_due_s = finishing, 0.0, False, math.inf
        until: list[tuple[Job, int]] = []
        if urgent or patient:
            start_s = now
            if finishing:
                start_s += self._errors.ratio * sum([costs.alone(costs.kind(job)).decode_s for job in finishing])
            queue, riders = self._queue(costs, state, urgent, patient, start_s, now)
            first = queue[0]
            jobs = [*finishing, first.job]
            images, last_due_s = first.kind.images, first.due
            mixing = costs.empty
            if first.kind.mixes:
                mixing = costs.plus(mixing, first.kind)
            for position, steps in riders:
                task = queue[position]
                job, kind = task.job, task.kind
                jobs.append(job)
                images += kind.images
                last_due_s = max(last_due_s, task.due)
                mixing = costs.plus(mixing, kind)
                if steps < task.steps:
                    until.append((job, job.denoise_left + job.kind.finish_steps - steps))
            full = 1 + len(riders) < len(queue) or images >= self.max_batch
            step_s = costs.step_s(mixing) if first.kind.mixes else 0.0
        steps_left = tuple([job.steps_left for job in jobs])
        alone_s = sum([costs.remaining_s(job) for job in jobs if not job.mixes])
        return _new(_Batch, (tuple(jobs), steps_left, tuple(until), step_s, alone_s, now, full, last_due_s))

    def _queue(
        self,
        costs: CostsNow,
        state: _ReplicaState,
        urgent: list[Task],
        patient: list[Task],
        start_s: float,
        now: float,
    ) -> tuple[list[Task], list[tuple[int, int]]]:
        """Whom there is time for, and who rides with the first as in `Schedule`."""
        most, errors = self.max_batch, self._errors
        scale = errors.ratio * (1.0 + min(self.margin, errors.margin))
        first = [task for task in patient[:1] if task.due < now]
        others = sorted(patient[len(first) :], key=_length)[:most]
        queue: list[Task] = []
        found: Schedule | None = None
        if urgent and state.known == self._known:
            queue = first + [task for task in urgent if task.order in state.planned]
            if len(queue) > len(first):
                found = schedule(costs, queue, most, start_s, scale)
            if found is None or found.late >= 0:
                queue = []
        if urgent and not queue:
            queue, found = choose(costs, first + urgent, most, start_s, scale)
            state.planned, state.known = {task.order for task in queue}, self._known
        queue = (queue or first) + others
        if found is None or others:
            found = schedule(costs, queue, most, start_s, scale, early=not urgent)
        return queue or urgent[:1], found.riders

    def _due_s(self, job: Job) -> float:
        return self._wanted_s.get(job, job.request.deadline)

    def _task(self, costs: CostsNow, entry: Due) -> Task:
        due_s, order, job = entry
        kind = costs.kind(job)
        alone = costs.alone(kind)
        encode_s = alone.encode_s if job.preparing else 0.0
        if kind.mixes:
            steps, step_s = job.denoise_left, alone.step_s
            alone_s = encode_s + steps * step_s + alone.decode_s
        else:
            alone_s = costs.remaining_s(job)
            steps, step_s = 1, max(0.0, alone_s - encode_s - alone.decode_s)
        must, worth = job in self._wanted_s, 1.0 if self._floors is None else self._floors.worth(job)
        return _new(Task, (due_s, order, steps, step_s, encode_s, alone.decode_s, alone_s, must, worth, kind, job))

    def _must(self, task: Task) -> Task:
        """The task of a job that lost its deadline, as one of a request without."""
        job = task.job
        self._wanted_s[job] = task.due + self.soft_slo_scale * task.alone_s
        if job in self._by_due:
            self._by_due.take(job)
            self._put(job)
        return task._replace(due=self._wanted_s[job], must=True)

    def _put(self, job: Job) -> float:
        """Let a job wait; when it is due."""
        due_s = self._due_s(job)
        self._by_due.put(job, due_s, self._costs.remaining_s(job) if job in self._wanted_s else None)
        return due_s

    def _learn(self, costs: CostsNow, state: _ReplicaState, batch: _Batch, now: float) -> None:
        """Compare how long a batch ran with what it was predicted to take."""
        predicted_s, steps, step_s = 0.0, 0, batch.step_s
        if batch.alone_s:
            predicted_s = batch.alone_s - sum([costs.remaining_s(job) for job in batch.jobs if not job.mixes])
            step_s = 0.0
        for job, before in zip(batch.jobs, batch.steps_left, strict=True):
            done = before - job.steps_left
            if not job.mixes:
                steps = max(steps, done)
                continue
            if not done:
                continue
            alone = costs.alone(costs.kind(job))
            if before > job.denoise_steps + job.kind.finish_steps:
                predicted_s += alone.encode_s
                done -= 1
            if done and not job.steps_left:
                predicted_s += alone.decode_s
                done -= job.kind.finish_steps
            if done > steps:
                steps = done
        measured_s = (now if state.closed_s is None else state.closed_s) - batch.formed_s
        self._errors.learn(predicted_s + steps * step_s, measured_s, steps)


def _length(task: Task) -> tuple[float, int]:
    return task.alone_s, task.order


def _reason(task: Task, now: float, ratio: float) -> str:
    return f"would miss its deadline by {now + ratio * task.alone_s - task.due:.3g} s even alone"
