"""Our own scheduler: looks ahead with the predictor and runs the set of requests that meets most deadlines.

At every decision it rolls a few orders and widths of its queue forward (`policies.scheduling.lookahead_roll`) and takes
the one in which most requests are finished in time; among those the one that is done with everything soonest, because
that leaves room for who comes next. So it mixes sizes as widely as the deadlines allow where a batch shares work, runs
one request after another where it does not, lets a started request pause for a more urgent group, and spends no step
on a request that is not going to make it while others can.

A plan is kept until something happens that can change it: one of its batch ends, or a request arrives that may join.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job
from policies.scheduling.batch import next_quantum
from policies.scheduling.lookahead_costs import MarginalCosts
from policies.scheduling.lookahead_roll import Rolled, Task, feasible, roll

_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)


class _Plan(NamedTuple):
    """What a replica works on: who, since when, and what each had to do then."""

    jobs: tuple[Job, ...]
    formed_s: float
    step_s: float
    steps_left: tuple[int, ...]
    full: bool
    last_due_s: float


class _Lane:
    """What is kept of one replica."""

    __slots__ = ("closed_s", "free_s", "news", "plan", "queue", "stale")

    def __init__(self) -> None:
        self.plan: _Plan | None = None
        self.stale = False
        self.closed_s: float | None = None  # when the first of the plan's batch ended
        self.free_s = 0.0  # when everything it has is predicted to be finished
        self.queue: dict[Job, None] = {}  # waiting jobs meant for it
        self.news: list[Job] = []


class Lookahead(SchedulingPolicy):
    """Runs, step by step, the batch that a roll-forward of the predictor says meets most deadlines.

    Args:
        max_batch: images in a batch.
        margin: share by which predictions are taken to be too small when a plan is judged.
        drop_late: drop a request once it could not meet its deadline even alone; otherwise it is served as one
            without a deadline.
        patience: a request without a deadline is wanted after this many times its standalone seconds; from then on the
            oldest such request is always in the batch, so that none starves.
        horizon: requests that are rolled forward, most urgent first.
    """

    def __init__(
        self,
        max_batch: int = 12,
        margin: float = 0.05,
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
        self._rest: dict[Job, None] = {}  # waiting jobs that no replica has time for
        self._home: dict[Job, _Lane | None] = {}  # of waiting jobs; None: among the rest
        self._wanted_s: dict[Job, float] = {}  # soft due times of jobs that must be run

    def arrived(self, job: Job, now: float) -> None:
        cost = self._costs.of(job)
        work_s = job.request.steps * (cost.images_s + 0.25 * cost.shared_s) + cost.encode_s + cost.decode_s
        lane = min(self._lanes, key=lambda lane: max(lane.free_s, now))
        lane.free_s = max(lane.free_s, now) + work_s
        lane.queue[job] = None
        lane.news.append(job)
        self._home[job] = lane
        if job.request.deadline == math.inf:
            self._wanted_s[job] = now + self.patience * self._costs.remaining_s(job)

    def ended(self, job: Job, now: float) -> None:
        self._wanted_s.pop(job, None)
        if job in self._home:
            self._leave(job)
        else:
            self._close(self._lanes[job.replica], job, now)

    def recalls(self, now: float) -> list[int]:
        named = []
        for lane, replica in zip(self._lanes, self.cluster.replicas, strict=True):
            if not lane.news:
                continue
            plan, launch = lane.plan, replica.launch
            if plan is not None and not (plan.full and all(j.request.deadline >= plan.last_due_s for j in lane.news)):
                lane.stale = True
                if launch is not None and launch.steps > 1:
                    named.append(launch.launch_id)
            lane.news.clear()
        return named

    def plan(self, replica: Replica, now: float) -> Decision | None:
        lane = self._lanes[replica.index]
        plan = lane.plan
        if plan is not None and not lane.stale:
            return self._go_on(plan.jobs)
        if plan is not None:
            self._learn(lane, plan, now)
            lane.plan = None
        return self._search(replica, lane, now)

    def _leave(self, job: Job) -> None:
        lane = self._home.pop(job)
        del (self._rest if lane is None else lane.queue)[job]

    def _close(self, lane: _Lane, job: Job, now: float) -> None:
        if lane.plan is not None and job in lane.plan.jobs:
            lane.stale = True
            if lane.closed_s is None:
                lane.closed_s = now

    def _go_on(self, jobs: Sequence[Job]) -> Decision:
        decision = next_quantum(jobs)
        for job in decision.jobs:
            if job in self._home:
                self._leave(job)
        return decision

    def _learn(self, lane: _Lane, plan: _Plan, now: float) -> None:
        """Compare how long a plan took with what it was predicted to take."""
        until, lane.closed_s = now if lane.closed_s is None else lane.closed_s, None
        lane.stale = False
        predicted_s, steps = 0.0, 0
        for job, before in zip(plan.jobs, plan.steps_left, strict=True):
            done = before - job.steps_left
            cost = self._costs.of(job)
            if done and before == job.request.steps + 2:
                predicted_s += cost.encode_s
                done -= 1
            if done and not job.steps_left:
                predicted_s += cost.decode_s
                done -= 1
            steps = max(steps, done)
        self._costs.learn(predicted_s + steps * plan.step_s, until - plan.formed_s, steps)

    def _search(self, replica: Replica, lane: _Lane, now: float) -> Decision | None:
        jobs = [*replica.resident.values(), *lane.queue, *self._rest]
        if not jobs:
            jobs = [job for other in self._lanes for job in other.queue]
            if not jobs:
                return None
        lane.news.clear()
        costs, scale = self._costs, self._costs.ratio * (1.0 + self.margin)
        finishing = [job for job in jobs if job.stage == "decode"]
        offset = sum([costs.of(job).decode_s for job in finishing])
        tasks: list[tuple[float, int, Task, Job]] = []
        hopeless: list[tuple[Job, str]] = []
        overdue: list[tuple[float, int, Task, Job]] = []
        wanted = self._wanted_s
        for job in jobs:
            if job.stage == "decode":
                continue
            must = job in wanted
            deadline = wanted[job] if must else job.request.deadline
            cost = costs.of(job)
            encodes = job.stage == "encode"
            steps = job.request.steps if encodes else job.stage_left
            join_s = cost.encode_s if encodes else 0.0
            alone_s = join_s + steps * cost.step_s + cost.decode_s
            left_s = deadline - now
            if not must and alone_s * costs.ratio > left_s:
                if self.drop_late:
                    late_s = alone_s * costs.ratio - left_s
                    hopeless.append((job, f"would miss its deadline by {late_s:.3g} s even alone"))
                    continue
                must = True
                deadline = wanted[job] = deadline + self.patience * alone_s
                left_s = deadline - now
            task = Task(
                left_s / scale - offset,
                job.order,
                steps,
                cost.images_s,
                cost.kind,
                cost.kind_s,
                join_s,
                cost.decode_s,
                alone_s,
                job.images,
                must,
            )
            (overdue if must and left_s < 0 else tasks).append((task.due, job.order, task, job))
        if hopeless:
            return Decision(drop=tuple(hopeless))
        tasks.sort()
        overdue.sort()
        entries = [*overdue[:1], *tasks, *overdue[1:]][: 4 * self.horizon]
        chosen, step_s, end_s, full, unchosen = self._best([t for _, _, t, _ in entries], [j for *_, j in entries])
        for job in chosen[1]:
            self._move(job, lane)
        for job in unchosen:
            self._move(job, None)
        lane.free_s = now + (end_s + offset) * costs.ratio
        members = tuple([*finishing, *chosen[0]])
        if not members:
            return None
        for job in members:
            if self._home.get(job, lane) is not lane:
                self._move(job, lane)
        last_due = max([self._wanted_s.get(j, j.request.deadline) for j in members])
        lane.plan = _Plan(members, now, step_s, tuple([j.steps_left for j in members]), full, last_due)
        return self._go_on(members)

    def _move(self, job: Job, lane: _Lane | None) -> None:
        if job in self._home and self._home[job] is not lane:
            self._leave(job)
            self._home[job] = lane
            (self._rest if lane is None else lane.queue)[job] = None

    def _best(self, tasks, jobs):
        if not tasks:
            return ([], []), 0.0, 0.0, False, []
        shared_s = self._costs.of(jobs[0]).shared_s
        total = sum([t.images for t in tasks])
        by = {t.order: j for t, j in zip(tasks, jobs)}
        best = None
        for width in _WIDTHS:
            if width > self.max_batch:
                break
            queue = feasible(tasks, width, shared_s)[: self.horizon] or tasks[:1]
            rolled = roll(queue, width, shared_s)
            score = (rolled.met, -rolled.end_s)
            if best is None or score > best[0]:
                best = (score, queue, width, rolled)
            if width >= total:
                break
        _, queue, width, rolled = best
        late = set(rolled.late)
        images = 0
        members = []
        for t in queue:
            if t.alone_s > t.due and not t.must:
                continue
            if members and images + t.images > width:
                break
            members.append(t)
            images += t.images
        if not members:
            members = queue[:1]
        kinds = {t.kind: t.kind_s for t in members}
        step_s = shared_s + sum(t.images_s for t in members) + sum(kinds.values())
        sel = {t.order for t in queue}
        return (
            ([by[t.order] for t in members], [by[t.order] for t in queue]),
            step_s,
            rolled.end_s,
            len(members) < len(queue),
            [j for t, j in zip(tasks, jobs) if t.order not in sel],
        )
