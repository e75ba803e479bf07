"""Where requests wait, and the copies of the scheduling policy that run what waits there.

Under a routing policy that binds, every replica has a queue and a scheduling policy of its own; under one that does
not, every pool has. The router asks the routing policy which queue a request goes to, and tells both kinds of policy
what becomes of it. Where there is one queue alone, there is nothing to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from policies import answers
from policies.cluster import ClusterState, QueueState
from policies.contract import Replica, SchedulingPolicy
from policies.guard import ask, begun, fail, has_own
from policies.job import Job
from policies.pool import Pool
from policies.routing import RoutingPolicy


class Router:
    """Brings every request to the queue that it waits in.

    A request that finds no replica that serves it and works waits for the first that does. One that the routing policy
    leaves to all of them waits until a replica has nothing else to run; the oldest is taken first. Whenever a replica
    comes, or works again, what waits for others and may run there is routed again.

    Args:
        cluster: has several queues if there is a routing policy, or else one for all.
        scheduling: copied for every queue.
        routing: copied; None: there is one queue.
        on_event: see `policies.controller.Controller`.

    Attributes:
        queues: every queue once, in the order of the replicas.
        unbound: requests left to all replicas, the oldest first.
        changed: queues in which something has changed since their policies were last asked for recalls; the controller
            adds those of launches that start and end.
        binds: whether there is a routing policy.
        heeds_plans: whether that is to be told what a launch starts with, by `planned`.
    """

    def __init__(
        self,
        cluster: ClusterState,
        scheduling: SchedulingPolicy,
        routing: RoutingPolicy | None,
        on_event: Callable[[str, Any, float], None] | None = None,
    ) -> None:
        self.queues = list(dict.fromkeys(cluster.queues))
        self.binds = routing is not None
        self._shared = self.queues[0] if routing is None else None
        self.unbound: dict[Job, None] = {}
        self.changed: dict[QueueState, None] = {}
        self._nowhere: dict[Job, None] = {}  # waiting for a replica that works
        self._queue_of: dict[Job, QueueState] = {}  # of jobs that are bound, from when they are until they end
        self._cluster = cluster
        self._serving: dict[tuple[str, str], tuple[Replica, ...]] = {}  # those that work, by model and stage
        self._on_event = on_event
        self._scheduling = scheduling
        for queue in self.queues:
            queue.policy = begun(scheduling, queue.view)
        self._routing = None if routing is None else begun(routing, cluster.view)
        self._ends, wakes = (has_own(self.queues[0].policy, hook) for hook in ("ended", "wakeup"))
        self._all_recall = routing is None or wakes
        self.heeds_plans, self._heeds_ends = (
            self._routing is not None and has_own(self._routing, hook) for hook in ("planned", "ended")
        )

    def arrived(self, job: Job, now: float) -> None:
        """A request waits, and is bound to no replica."""
        queue = self._shared or self._route(job, now)
        if queue is not None:
            policy = queue.policy
            try:
                policy.arrived(job, now)
            except BaseException as error:
                fail(policy, "arrived", error)

    def _working(self, job: Job) -> tuple[Replica, ...]:
        """The replicas that a job may run on and that work."""
        key = (job.request.model, job.stage)
        found = self._serving.get(key)
        if found is None:
            every = self._cluster.view.replicas
            found = self._serving[key] = tuple([each for each in every if each.up and each.pool.takes(job)])
        return found

    def _route(self, job: Job, now: float) -> QueueState | None:
        """The queue to which a job is bound now; None: to none yet."""
        routing, working = self._routing, self._working(job)
        assert routing is not None
        if not working:
            self._nowhere[job] = None
            return None
        try:
            chosen = routing.route(job, working, now)
        except BaseException as error:
            fail(routing, "route", error)
        index = answers.replica(routing, chosen, working)
        if self._on_event:
            self._on_event("route", (job.request.request_id, index), now)
        if index is None:
            self.unbound[job] = None
            return None
        queue = self._cluster.queues[index]
        self._bind(job, queue)
        return queue

    def _bind(self, job: Job, queue: QueueState) -> None:
        name = job.request.request_id
        self._queue_of[job] = queue
        self.changed[queue] = None
        self._cluster.occupancy.queued |= queue.bits
        queue.jobs[name] = queue.waiting[name] = job

    def bind_oldest(self, queue: QueueState, now: float) -> bool:
        """Bind the oldest request that is left to all replicas, if there is one."""
        for job in self.unbound:
            if not queue.pool.takes(job):
                continue
            del self.unbound[job]
            self._bind(job, queue)
            ask(queue.policy, "arrived", job, now)
            return True
        return False

    def planned(self, replica: Replica, resident: dict[str, Job], jobs: tuple[Job, ...], now: float) -> None:
        """These jobs start beside those that live on a replica, or go on after they were thought through again."""
        routing = self._routing
        assert routing is not None
        held = tuple(dict.fromkeys((*resident.values(), *jobs))) if resident else jobs
        try:
            routing.planned(replica, held, now)
        except BaseException as error:
            fail(routing, "planned", error)

    def ended(self, job: Job, now: float) -> None:
        """A job has ended."""
        queue = self._shared
        if queue is None:
            if job in self._nowhere:
                del self._nowhere[job]
                return
            queue = self._release(job)
        if self._ends and queue is not None:
            policy = queue.policy
            try:
                policy.ended(job, now)
            except BaseException as error:
                fail(policy, "ended", error)
        if self._heeds_ends:
            routing = self._routing
            assert routing is not None
            try:
                routing.ended(job, now)
            except BaseException as error:
                fail(routing, "ended", error)

    def _release(self, job: Job) -> QueueState | None:
        """The queue to which a job was bound; None: it was left to all, or a new policy there does not know it."""
        queue = self._queue_of.pop(job, None)
        if queue is None:
            self.unbound.pop(job, None)
            return None
        name = job.request.request_id
        queue.waiting.pop(name, None)
        self.changed[queue] = None
        return None if queue.jobs.pop(name, None) is None else queue

    def jobs_of(self, pool: Pool) -> tuple[dict[str, Job], dict[str, Job]]:
        """Those that wait for replicas of a pool, or for any that serve them, by request id; and all not ended."""
        cluster = self._cluster
        if self._shared is not None or cluster.view.replicas[0].pool is cluster.view.replicas[-1].pool:
            return cluster.waiting, cluster.jobs
        waiting = {}
        for name, job in cluster.waiting.items():
            queue = self._queue_of.get(job)
            if pool.takes(job) if queue is None else queue.pool is pool:
                waiting[name] = job
        jobs = dict(waiting)
        for replica in cluster.view.replicas:
            if replica.pool is pool:
                jobs.update(replica.resident)
        return waiting, jobs

    def recalling(self) -> Iterable[QueueState]:
        """The queues whose policies are to be asked for recalls: where something has changed, or if nothing has, all.

        Of policies that look at the clock all are asked always.
        """
        if self._all_recall or not self.changed:
            return self.queues
        changed = list(self.changed)
        self.changed.clear()
        return changed

    def replica_down(self, replica: Replica, now: float) -> None:
        """A replica has failed: what waits where no other draws goes elsewhere, and the policy there begins anew."""
        queue = self._cluster.queues[replica.index]
        if self._routing is None:
            ask(queue.policy, "replica_down", replica, now)
            return
        self._serving.clear()
        self.changed[queue] = None
        ask(self._routing, "replica_down", replica, now)
        if any(other.up for other in queue.view.replicas):
            ask(queue.policy, "replica_down", replica, now)
            return
        waiting = list(queue.waiting.values())
        queue.waiting.clear()
        queue.jobs.clear()
        for job in (*waiting, *self._cluster.resident[replica.index].values()):
            del self._queue_of[job]
        queue.policy = begun(self._scheduling, queue.view)
        for job in waiting:
            self.arrived(job, now)

    def replica_up(self, replica: Replica, now: float) -> list[Job]:
        """A replica works again, or has come: those that wait for others and may run there, in order of submission.

        The controller ends them, and lets their requests arrive anew.
        """
        self._serving.clear()
        queue = self._cluster.queues[replica.index]
        self.changed[queue] = None
        ask(queue.policy, "replica_up", replica, now)
        nowhere, self._nowhere = self._nowhere, {}
        for job in nowhere:
            self.arrived(job, now)
        if self._shared is not None:
            return []
        elsewhere = [job for other in self.queues if other is not queue for job in other.waiting.values()]
        takes = replica.pool.takes
        return sorted([job for job in elsewhere if takes(job)], key=lambda job: job.order)
