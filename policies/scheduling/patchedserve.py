"""PatchedServe's scheduler as published (arXiv 2501.09253, section on scheduling; also MixFusion, PPoPP '26).

Requests of any size share a batch. Who is admitted is decided by slack:

    slack = (deadline - now - predicted remaining) / standalone

and by L, the predicted step of the batch with the request in it, at which everyone in it is taken to go on to the end.
The text divides by a request's own latency; the system that it was measured with leaves slack in seconds. The two order
requests of different sizes differently, so both readings are offered.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job
from policies.parameters import Weight, Width
from policies.scheduling.batch import next_quantum
from policies.scheduling.mixing import BatchKind, MixedBatch
from policies.scheduling.quantum import Quanta, to_decode
from policies.scheduling.queues import KindQueues

Slack = Literal["multiples", "seconds"]
"""In which unit slack is counted: a request's own latencies, as published, or seconds."""


class _Waiting(NamedTuple):
    """The waiting request of its kind that is wanted first."""

    slack: float
    order: int
    job: Job
    kind: BatchKind


class _Admitted(NamedTuple):
    """Who joins, who is given up, and after how many steps the question is worth asking again."""

    jobs: list[Job]
    dropped: list[tuple[Job, str]]
    ask_again: float


class PatchedServe(SchedulingPolicy):
    """Admits the waiting request of least slack, as long as the active one of least slack still makes its deadline.

    For w the waiting and a the active request of least slack: if w would miss its deadline in the batch it is dropped;
    if it is relaxed, the waiting request that raises throughput most is admitted in its place; if a would miss its
    deadline, admission stops; otherwise w is admitted. Throughput is requests in a step over its predicted seconds.
    A request without a deadline is always relaxed and never dropped. A tiled request runs by itself: as w it stops
    admission until nothing is active any more, unless it is relaxed.

    Args:
        max_batch: requests in a batch; what memory allows.
        relaxed_slack: a request with at least this slack, in its unit, is relaxed; the paper names no figure. In
            multiples a request has the SLO scale less 1 when it comes. 0 admits by throughput alone, which serves large
            requests last.
        joins: admit at step boundaries; otherwise only when nothing is denoising on the replica, as published.
        slack: ``multiples`` of a request's own latency, as published, or ``seconds``, by which large requests have more
            slack than small ones of the same SLO scale.

    Raises:
        ValueError: slack in another unit.
    """

    usual_routing = "least-pixels"

    def __init__(
        self,
        max_batch: Width = 12,
        relaxed_slack: Weight = 0.5,
        joins: bool = False,
        slack: Slack = "multiples",
    ) -> None:
        if slack not in get_args(Slack):
            raise ValueError(f"slack is {slack!r}, expected one of {', '.join(get_args(Slack))}")
        self.max_batch = max_batch
        self.relaxed_slack = relaxed_slack
        self.joins = joins
        self.slack = slack

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._costs = cluster.replicas[0].batch_costs
        self._queue = KindQueues(self._costs)
        self._quanta = Quanta(cluster)
        self._joinable = False  # a request has come that may join

    def arrived(self, job: Job, now: float) -> None:
        self._queue.add(job)
        self._joinable = self.joins

    def recalls(self, now: float) -> list[int]:
        if not self._joinable:
            return []
        self._joinable = False
        return self._quanta.broken(r.index for r in self.cluster.replicas if len(r.resident) < self.max_batch)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        decision = self._quanta.rest(replica)
        if decision is not None:
            return decision
        jobs = list(replica.resident.values())
        decision = to_decode(jobs)
        if decision is not None:
            return self._quanta.keep(replica, decision)
        admitted = _Admitted([], [], math.inf)
        if self.joins or not jobs:
            admitted = self._admit(self._queue, jobs, now)
            jobs += admitted.jobs
        drop = tuple(admitted.dropped)
        if not jobs:
            return Decision(drop=drop) if drop else None
        decision = next_quantum(jobs)
        steps = decision.steps
        if self.joins and admitted.ask_again < steps:
            steps = int(admitted.ask_again)
        return self._quanta.keep(replica, Decision(decision.jobs, steps, drop, anew=True))

    def _admit(self, queues: KindQueues, active: list[Job], now: float) -> _Admitted:
        costs = self._costs
        joining: list[Job] = []
        dropped: list[tuple[Job, str]] = []
        waiting: dict[BatchKind, _Waiting] = {}
        for kind in queues.kinds():
            self._head(waiting, queues, kind, now)
        if not waiting or (active and not active[0].mixes):
            return _Admitted(joining, dropped, math.inf)
        batch = costs.batch(active)
        least = min([(self._slack(job, costs.kind(job), now), job.order, job) for job in active], default=None)
        while waiting and len(active) + len(joining) < self.max_batch:
            w = min(waiting.values())
            if not costs.fits(batch, w.kind):
                others = [other for other in waiting.values() if costs.fits(batch, other.kind)]
                if w.slack < self.relaxed_slack or not others:
                    break
                w = min(others)
            step_s = costs.step_s(costs.plus(batch, w.kind))
            late_s = self._late_s(w.job, step_s, now)
            if late_s > 0:
                beside = len(active) + len(joining)
                dropped.append((w.job, f"would miss its deadline by {late_s:.3g} s in a batch with {beside} others"))
                queues.pop(w.kind)
                self._head(waiting, queues, w.kind, now)
                continue
            if w.slack >= self.relaxed_slack:
                w, step_s = self._raising_throughput(waiting, batch, w, step_s, now)
            if least is not None:
                tight = least[2]
                late_s = self._late_s(tight, step_s, now)
                if late_s > 0:
                    gain_s = step_s - costs.step_s(batch)
                    return _Admitted(joining, dropped, math.ceil(late_s / gain_s) if gain_s > 0 else math.inf)
            joining.append(w.job)
            batch = costs.plus(batch, w.kind)
            if not w.kind.mixes:
                queues.pop(w.kind)
                break
            if least is None or (w.slack, w.order) < least[:2]:
                least = (w.slack, w.order, w.job)
            queues.pop(w.kind)
            self._head(waiting, queues, w.kind, now)
        return _Admitted(joining, dropped, math.inf)

    def _raising_throughput(
        self, waiting: dict[BatchKind, _Waiting], batch: MixedBatch, w: _Waiting, step_s: float, now: float
    ) -> tuple[_Waiting, float]:
        """The waiting request with which a step is shortest, ``w`` or one that makes its deadline; and that step."""
        costs, best = self._costs, (step_s, w)
        for other in waiting.values():
            if not costs.fits(batch, other.kind):
                continue
            step_s = costs.step_s(costs.plus(batch, other.kind))
            if (step_s, other) < best and self._late_s(other.job, step_s, now) <= 0:
                best = (step_s, other)
        return best[1], best[0]

    def _head(self, waiting: dict[BatchKind, _Waiting], queues: KindQueues, kind: BatchKind, now: float) -> None:
        """Let the first request of a kind stand for it."""
        job = queues.head(kind)
        if job is None:
            waiting.pop(kind, None)
        else:
            waiting[kind] = _Waiting(self._slack(job, kind, now), job.order, job, kind)

    def _slack(self, job: Job, kind: BatchKind, now: float) -> float:
        deadline = job.request.deadline
        if deadline == math.inf:
            return math.inf
        slack_s = deadline - now - self._costs.remaining_s(job)
        return slack_s if self.slack == "seconds" else slack_s / self._costs.whole_s(kind)

    def _late_s(self, job: Job, step_s: float, now: float) -> float:
        """Seconds after its deadline at which a job would end if every step took ``step_s``."""
        return now + self._costs.remaining_s(job, step_s) - job.request.deadline


class PatchedServeJoins(PatchedServe):
    """PatchedServe that also admits at step boundaries, into the batch that is denoising."""

    def __init__(
        self,
        max_batch: Width = 12,
        relaxed_slack: Weight = 0.5,
        joins: bool = True,
        slack: Slack = "multiples",
    ) -> None:
        super().__init__(max_batch, relaxed_slack, joins, slack)
