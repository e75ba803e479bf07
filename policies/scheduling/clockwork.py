"""Clockwork-like admission: promise only what can be kept, and keep it (Gujarati et al., OSDI 2020).

Clockwork serves one-shot networks whose times are known well: a request is admitted only if a schedule exists in which
it and everything admitted before it is in time; everything else is turned away at once, so that no time is spent on
what comes too late. Here a request has many steps, so a schedule is an order (by deadline) and a batch width, and the
predictor rolled forward says whether it holds.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job
from policies.parameters import Width
from policies.scheduling.batch import next_quantum
from policies.scheduling.forecast import ROUNDING_S, Due, forecast
from policies.scheduling.quantum import Quanta, to_decode

_WIDTHS = (12, 8, 6, 4, 3, 2, 1)


class _Admission:
    """What one replica has admitted, most urgent first, how wide it runs, and who asks to be admitted."""

    def __init__(self, width: int) -> None:
        self.admitted: list[Due] = []
        self.asking: dict[Job, None] = {}
        self.width = width

    def urgent(self) -> list[Due]:
        """Those of the admitted that have a deadline to keep."""
        return self.admitted[: bisect_left(self.admitted, (math.inf,))]


class Clockwork(SchedulingPolicy):
    """Admits a request when every admitted deadline is still kept with it; runs the admitted in order of deadline.

    An arrival is admitted or dropped at the next step boundary; where several replicas draw from one queue, each is
    asked at its own: the first that admits it takes it, the last that does not drops it. Batches of mixed sizes are as
    wide as keeps every admitted deadline. No time is spent on an admitted request that is lost because predictions were
    wrong: it is dropped when it would be late even alone, and before it has started also when it would be late in its
    turn. Those without a deadline are always admitted, come last, and share a batch with others only where that makes
    nobody late. A tiled request has the replica to itself when it is the most urgent.

    Args:
        max_batch: requests in a batch.
    """

    usual_routing = "earliest-completion"

    def __init__(self, max_batch: Width = 12) -> None:
        self.max_batch = max_batch

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._costs = cluster.replicas[0].batch_costs
        self._quanta = Quanta(cluster)
        self._admissions = {replica.index: _Admission(self.max_batch) for replica in cluster.replicas}
        self._due: dict[Job, tuple[int, Due]] = {}
        self._widths = [self.max_batch, *[width for width in _WIDTHS if width < self.max_batch]]

    def arrived(self, job: Job, now: float) -> None:
        for admission in self._admissions.values():
            admission.asking[job] = None

    def ended(self, job: Job, now: float) -> None:
        self._leave(job)
        self._asks_no_more(job)

    def replica_down(self, replica: Replica, now: float) -> None:
        index = replica.index
        lost, self._admissions[index] = self._admissions[index], _Admission(self.max_batch)
        waiting = [job for _, _, job in lost.admitted if job.state == "waiting"]
        self._due = {job: due for job, due in self._due.items() if due[0] != index}
        for job in dict.fromkeys([*lost.asking, *waiting]):
            self.arrived(job, now)

    def recalls(self, now: float) -> list[int]:
        return self._quanta.broken(index for index, admission in self._admissions.items() if admission.asking)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        decision = self._quanta.rest(replica)
        if decision is not None:
            return decision
        decision = to_decode(replica.resident.values())
        if decision is not None:
            return self._quanta.keep(replica, decision)
        admission = self._admissions[replica.index]
        drop = tuple(self._lost(admission, now) + self._admit(replica.index, admission, now))
        if not admission.admitted:
            return Decision(drop=drop) if drop else None
        jobs = self._window(admission, now)
        decision = next_quantum(jobs)
        return self._quanta.keep(replica, Decision(decision.jobs, decision.steps, drop, anew=True))

    def _window(self, admission: _Admission, now: float) -> list[Job]:
        """Who runs next: the most urgent, and beside them those without a deadline, if they make nobody late."""
        window = _runs_together(admission.admitted[: admission.width])
        urgent = admission.urgent()
        if 0 < len(urgent) < len(window):
            relaxed = window[len(urgent) :]
            late = forecast(self._costs, urgent, admission.width, now).late
            if len(forecast(self._costs, urgent + relaxed, admission.width, now, len(late)).late) > len(late):
                window = urgent
        return [job for _, _, job in window]

    def _admit(self, index: int, admission: _Admission, now: float) -> list[tuple[Job, str]]:
        dropped = []
        asking, admission.asking = admission.asking, {}
        for job in asking:
            deadline = job.request.deadline
            if deadline == math.inf:
                self._join(job, index, deadline)
                self._asks_no_more(job)
                continue
            late_s = now + self._costs.remaining_s(job) - deadline
            if late_s > ROUNDING_S:
                dropped.append((job, f"would miss its deadline by {late_s:.3g} s even alone"))
                continue
            before = admission.urgent()
            late = len(forecast(self._costs, before, admission.width, now).late)
            self._join(job, index, deadline)
            with_it = admission.urgent()
            for width in self._widths:
                late_with_it = forecast(self._costs, with_it, width, now, late).late
                if len(late_with_it) <= late and job not in late_with_it:
                    admission.width = width
                    self._asks_no_more(job)
                    break
            else:
                self._leave(job)
                if not self._may_ask_elsewhere(job):
                    reason = f"not admitted: no batch width keeps its deadline and those of {len(before)} others"
                    dropped.append((job, reason))
        return dropped

    def _lost(self, admission: _Admission, now: float) -> list[tuple[Job, str]]:
        """Give up those of the admitted that are late even alone, and those waiting that are late in their turn."""
        dropped = []
        for due_s, _, job in admission.urgent():
            late_s = now + self._costs.remaining_s(job) - due_s
            if late_s > ROUNDING_S:
                self._leave(job)
                dropped.append((job, f"was admitted, but would now miss its deadline by {late_s:.3g} s even alone"))
        while waiting := [job for job in self._late(admission, now) if job.state == "waiting"]:
            self._leave(waiting[-1])
            dropped.append((waiting[-1], "was admitted, but would now miss its deadline in its turn"))
        return dropped

    def _late(self, admission: _Admission, now: float) -> list[Job]:
        """Those of the admitted that would miss their deadlines, as wide as they run."""
        return forecast(self._costs, admission.urgent(), admission.width, now).late

    def _asks_no_more(self, job: Job) -> None:
        for admission in self._admissions.values():
            admission.asking.pop(job, None)

    def _may_ask_elsewhere(self, job: Job) -> bool:
        """Whether a replica that works is still to say whether it admits a job."""
        return any(replica.up and job in self._admissions[replica.index].asking for replica in self.cluster.replicas)

    def _join(self, job: Job, index: int, due_s: float) -> None:
        due = (due_s, job.order, job)
        self._due[job] = (index, due)
        insort(self._admissions[index].admitted, due)

    def _leave(self, job: Job) -> None:
        if job in self._due:
            index, due = self._due.pop(job)
            admitted = self._admissions[index].admitted
            del admitted[bisect_left(admitted, due)]


def _runs_together(queue: list[Due]) -> list[Due]:
    """The first of a queue that can share a batch: those before one that mixes with no other size, or that alone."""
    for position, (_, _, job) in enumerate(queue):
        if not job.mixes:
            return queue[: max(1, position)]
    return queue
