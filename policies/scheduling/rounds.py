"""Rounds of a few steps, each with the set of requests that keeps most deadlines reachable (TetriServe-like).

TetriServe (ASPLOS 2026) cuts time into rounds of about five steps. At the start of a round it gives every request a
number of GPUs, the smallest with which it still meets its deadline, by a knapsack over the GPUs that maximises how many
requests are not lost when the next round starts; spare GPUs speed others up. Two things differ here, because a replica
runs one launch at a time and cannot lend a device to a request of another replica:

- What a round shares out is the time of one replica. A *degree* is a batch width: of w requests in lock step each gets
  one w-th of the device, so a narrow round is what many GPUs are there. The round's time budget is what the w least lax
  requests, or the w cheapest, would take for its steps; all budgets are tried, and the best round is run.
- Every request is worth one and has one way to be saved, to be in the round, so the knapsack is solved exactly by
  taking those first that cost least; its cost is the predictor's answer for the whole batch, not a sum.

A tiled request has rounds to itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job
from policies.parameters import StepCount, Width
from policies.scheduling.batch import next_quantum
from policies.scheduling.mixing import BatchKind
from policies.scheduling.quantum import Quanta, to_decode
from policies.scheduling.queues import KindQueues


class _Candidate(NamedTuple):
    """A request that could be in the next round.

    Attributes:
        latest_s: when it has to start at the latest to meet its deadline alone; infinity without a deadline.
        order: breaks ties.
        step_s: a step alone, of the stage that it is in if it mixes with no other size.
        job: the request.
        kind: its kind.
    """

    latest_s: float
    order: int
    step_s: float
    job: Job
    kind: BatchKind


class Rounds(SchedulingPolicy):
    """Decides every ``round_steps`` steps which requests run next; the others wait, those started keep their place.

    A request that cannot meet its deadline any more is lost: it is dropped, or runs in rounds that have room for it.

    Args:
        round_steps: denoising steps in a round.
        degrees: batch widths a round may have.
        drop_late: drop what is lost.

    Raises:
        ValueError: no widths.
    """

    usual_routing = "earliest-completion"

    def __init__(
        self,
        round_steps: StepCount = 5,
        degrees: tuple[Width, ...] = (1, 2, 4, 8, 12),
        drop_late: bool = True,
    ) -> None:
        self.round_steps = round_steps
        if not degrees:
            raise ValueError("degrees is empty, expected at least one width")
        self.degrees = degrees
        self.drop_late = drop_late

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._costs = cluster.replicas[0].batch_costs
        self._quanta = Quanta(cluster)
        self._queue = KindQueues(self._costs)
        self._lost: dict[Job, None] = {}
        self._begun: dict[int, tuple[Job, ...]] = {}  # by replica, what its round is of
        self._widest = max(self.degrees)

    def arrived(self, job: Job, now: float) -> None:
        self._queue.add(job)

    def ended(self, job: Job, now: float) -> None:
        self._lost.pop(job, None)

    def replica_down(self, replica: Replica, now: float) -> None:
        self._begun.pop(replica.index, None)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        decision = self._quanta.rest(replica) or to_decode(replica.resident.values())
        if decision is not None:
            return self._quanta.keep(replica, decision)
        index = replica.index
        begun = self._begun.pop(index, ())
        if begun and all(job.state == "resident" for job in begun):
            return self._quanta.keep(replica, self._one_round(begun))
        candidates = self._candidates(replica, now)
        drop: tuple[tuple[Job, str], ...] = ()
        lost = [job for job in self._lost if job.state == "waiting" or job.replica == index]
        if self.drop_late:
            drop = tuple([(job, "cannot meet its deadline any more, even alone") for job in lost])
        elif len(candidates) < self._widest:
            candidates += [self._candidate(job, math.inf) for job in lost[: self._widest]]
        if not candidates:
            return Decision(drop=drop) if drop else None
        jobs = self._best_round(candidates, now)
        decision = self._one_round(jobs, drop, anew=True)
        if len(decision.jobs) < len(jobs):
            self._begun[index] = jobs  # some are encoded first; then the round begins
        return self._quanta.keep(replica, decision)

    def _one_round(self, jobs: tuple[Job, ...], drop: tuple[tuple[Job, str], ...] = (), anew: bool = False) -> Decision:
        decision = next_quantum(jobs)
        steps, first = decision.steps, decision.jobs[0]
        if first.denoise_left > self.round_steps:
            steps = min(steps, self.round_steps + first.preparing)
        return Decision(decision.jobs, steps, drop, anew=anew)

    def _candidates(self, replica: Replica, now: float) -> list[_Candidate]:
        """Who could be in the next round, least lax first; of a kind that waits, no more than fit in a batch."""
        lost, queues = self._lost, self._queue
        jobs = [job for job in replica.resident.values() if job not in lost]
        candidates = [self._candidate(job, job.request.deadline) for job in jobs]
        for kind in queues.kinds():
            alone_s = self._costs.whole_s(kind)
            for job in queues.take_before(kind, now + alone_s):
                lost[job] = None
            waiting = queues.first(kind, self._widest)
            candidates += [self._candidate(job, job.request.deadline) for job in waiting]
        timely = []
        for candidate in sorted(candidates):
            if candidate.latest_s < now:
                lost[candidate.job] = None
            else:
                timely.append(candidate)
        return timely

    def _candidate(self, job: Job, deadline: float) -> _Candidate:
        kind = self._costs.kind(job)
        step_s = self._costs.alone(kind).step_s if kind.mixes else self._costs.of_stages(kind)[job.stage]
        return _Candidate(deadline - self._costs.remaining_s(job), job.order, step_s, job, kind)

    def _best_round(self, candidates: list[_Candidate], now: float) -> tuple[Job, ...]:
        """The round after which most deadlines can still be met; of equal ones the one that gets most done a second."""
        best: tuple[float, float] = (-1.0, 0.0)
        jobs: tuple[Job, ...] = ()
        mixing = [candidate for candidate in candidates if candidate.kind.mixes]
        for budget_s in self._budgets(mixing):
            chosen, score = self._round(candidates, budget_s, now)
            if score > best:
                best, jobs = score, tuple([candidate.job for candidate in chosen])
        for candidate in candidates if len(mixing) < len(candidates) else ():
            if not candidate.kind.mixes and (score := self._score_alone(candidates, candidate, now)) > best:
                best, jobs = score, (candidate.job,)
        return jobs

    def _score_alone(self, candidates: list[_Candidate], alone: _Candidate, now: float) -> tuple[float, float]:
        """The score, as of `_round`, of a round of one request alone."""
        end_s = now + self.round_steps * alone.step_s
        others = sum([candidate.latest_s >= end_s for candidate in candidates if candidate is not alone])
        return others + (alone.latest_s + self.round_steps * alone.step_s >= end_s), 1.0

    def _budgets(self, candidates: list[_Candidate]) -> list[float]:
        """Seconds a step may take: of every degree, what its least lax and what its cheapest candidates would take."""
        costs = self._costs
        budgets: dict[float, None] = {}
        for ordered in (candidates, sorted(candidates, key=_cost)):
            batch = costs.empty
            for width, candidate in enumerate(ordered[: self._widest], 1):
                batch = costs.plus(batch, candidate.kind)
                if width in self.degrees or width == len(ordered):
                    budgets[costs.step_s(batch)] = None
        return list(budgets)

    def _round(
        self, candidates: list[_Candidate], budget_s: float, now: float
    ) -> tuple[list[_Candidate], tuple[float, float]]:
        """The best round in which a step takes no longer than ``budget_s``, and its score."""
        costs = self._costs
        end_s = now + self.round_steps * budget_s
        at_risk: list[_Candidate] = []  # saved by the round if they are in it
        kept: list[_Candidate] = []
        lost: list[_Candidate] = []
        for candidate in candidates:
            latest_s, _, step_s, job, _ = candidate
            if latest_s >= end_s:
                kept.append(candidate)
            elif latest_s + min(self.round_steps, job.denoise_left) * step_s >= end_s:
                at_risk.append(candidate)
            else:
                lost.append(candidate)
        at_risk.sort(key=_cost)
        chosen: list[_Candidate] = []
        batch, saved = costs.empty, 0
        for place, candidate in enumerate([*at_risk, *kept, *lost]):
            kind = candidate.kind
            if not kind.mixes:
                continue
            with_it = costs.plus(batch, kind)
            if costs.step_s(with_it) <= budget_s:
                chosen.append(candidate)
                batch = with_it
                saved += place < len(at_risk)
                if len(chosen) == self._widest:
                    break
        if not chosen:  # a predictor may say that a batch is quicker than one of it
            return candidates[:1], (-1.0, 1.0)
        return chosen, (len(kept) + saved, sum([candidate.step_s for candidate in chosen]) / costs.step_s(batch))


def _cost(candidate: _Candidate) -> float:
    return candidate.step_s
