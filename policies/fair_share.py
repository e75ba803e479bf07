"""Tenants share the devices: a scheduling policy that says whose requests any other may choose from.

Start-time fair queueing with a depth, SFQ(D) (Jin, Chase and Kaur, "Interposed proportional sharing for a storage
service utility", SIGMETRICS 2004, after Goyal, Vin and Cheng, SIGCOMM 1996). Service is counted in predicted device
seconds, those that a request takes alone. Every tenant has a start tag: what it was served over its share, and no less
than the virtual time, the tag of what was let through last, when it has something to do again; who was idle has saved
nothing up. Requests are let through in the order of their tenants' tags, so many that ``depth`` for every device are
under way; the other policy sees these and no more. It batches them across tenants, orders and drops them as it likes.
Two tenants that always have something to do are thus served alike, over their shares, but for what is let through at
once: depth + 1 requests of each for every device, whatever the other policy does.

Of one tenant the requests of the highest priority are let through first, then the oldest.

What a request did not need, because it was dropped, was cancelled or failed, its tenant gets back. And no replica is
left idle for the sake of fairness: while the other policy finds nothing to run on one that does nothing, more is let
through. Devices that it leaves free beside launches may be kept for what they are to do next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import Annotated

from policies import answers
from policies.cluster import cluster_of, replica_of_queue
from policies.contract import Cluster, Decision, Policy, Replica, SchedulingPolicy
from policies.guard import ask, begun, broken, has_own, short
from policies.job import Job
from policies.parameters import Width
from traces.limits import Range

Share = Annotated[float, Range(1e-6, 1e6)]
"""What a tenant gets of the devices, beside others'."""


class FairShare(SchedulingPolicy):
    """Runs a scheduling policy on requests that are let through in turn; see the module.

    Args:
        policy: the scheduling policy; copied.
        shares: of tenants, by name, beside each other; of all others, or where it is None, 1.
        depth: requests under way for every device, let through and not ended: at least the largest batch wanted. More
            leave the other policy more to choose from, and tenants longer behind each other.
    """

    def __init__(self, policy: SchedulingPolicy, shares: Mapping[str, Share] | None = None, depth: Width = 8) -> None:
        self.policy = policy
        self.shares = shares
        self.depth = depth

    @property
    def blamed(self) -> Policy:
        """The policy that decides what runs."""
        return self.policy

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._shares = self.shares or {}
        self._tenants: dict[str, _Tenant] = {}
        self._held: dict[Job, _Tenant] = {}
        self._charged: dict[Job, tuple[_Tenant, Mapping[str, float]]] = {}
        self._virtual_s = 0.0
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, Job] = {}
        self._views = {replica.index: replica_of_queue(replica, self._waiting) for replica in cluster.replicas}
        self._inner = begun(self.policy, cluster_of(tuple(self._views.values()), self._waiting, self._jobs))
        self._wakes = has_own(self.policy, "wakeup")

    def arrived(self, job: Job, now: float) -> None:
        name = job.request.tenant
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant(self._shares.get(name, 1.0))
        if not tenant.held:
            tenant.start_s = max(tenant.start_s, self._virtual_s)
        self._held[job] = tenant
        tenant.held += 1
        heappush(tenant.queue, (-job.request.priority, job.order, job))

    def returned(self, job: Job, now: float) -> None:
        ask(self._inner, "returned", job, now)

    def ended(self, job: Job, now: float) -> None:
        tenant = self._held.pop(job, None)
        if tenant is not None:
            tenant.held -= 1
            return
        tenant, seconds = self._charged.pop(job)
        tenant.start_s -= job.seconds_left(seconds) / tenant.share
        name = job.request.request_id
        del self._jobs[name]
        self._waiting.pop(name, None)
        ask(self._inner, "ended", job, now)

    def replica_down(self, replica: Replica, now: float) -> None:
        ask(self._inner, "replica_down", self._views[replica.index], now)

    def replica_up(self, replica: Replica, now: float) -> None:
        ask(self._inner, "replica_up", self._views[replica.index], now)

    def recalls(self, now: float) -> Sequence[int]:
        self._let_through(now)
        return answers.launch_ids(self._inner, ask(self._inner, "recalls", now), math.inf)

    def wakeup(self, now: float) -> float | None:
        at_s = ask(self._inner, "wakeup", now) if self._wakes else None
        return None if at_s is None else answers.wakeup_s(self._inner, at_s)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        self._let_through(now)
        view = self._views[replica.index]
        while (answer := ask(self._inner, "plan", view, now)) is None:
            if not self._held or replica.launches:
                return None
            self._let_next_through(now)
        decision = answers.decision(self._inner, answer)
        jobs, steps = answers.batch(self._inner, decision.jobs, decision.steps)
        for job in jobs:
            if type(job) is not Job or job not in self._charged:
                raise broken(self._inner, f"names {short(job)}, which is no job that it was told of and has not ended")
            self._waiting.pop(job.request.request_id, None)
        return decision._replace(jobs=jobs, steps=steps)

    def _let_through(self, now: float) -> None:
        """Let requests through until as many are under way as are to be."""
        if self._held:
            room = self.depth * sum([replica.pool.devices for replica in self.cluster.replicas if replica.up])
            while self._held and len(self._charged) < room:
                self._let_next_through(now)

    def _let_next_through(self, now: float) -> None:
        """Let the next request through, of those that are held; there must be one."""
        tenant = min([each for each in self._tenants.values() if each.held], key=_by_tag)
        job = tenant.head
        heappop(tenant.queue)
        del self._held[job]
        tenant.held -= 1
        step_s, batch = self.cluster.replicas[0].costs.step_s, job.kind.batch
        seconds = {stage: step_s(stage, batch) for stage in job.launched_stages}
        self._virtual_s = max(self._virtual_s, tenant.start_s)
        tenant.start_s += job.seconds_left(seconds) / tenant.share
        self._charged[job] = tenant, seconds
        name = job.request.request_id
        self._jobs[name] = self._waiting[name] = job
        ask(self._inner, "arrived", job, now)


class _Tenant:
    """What is kept of a tenant.

    Attributes:
        share: of the devices, beside the others'.
        start_s: the start tag of the next request, virtual seconds.
        held: how many requests are held.
        queue: (priority, the highest first; order; job) of these, and of some that have ended meanwhile.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.start_s = 0.0
        self.held = 0
        self.queue: list[tuple[int, int, Job]] = []

    @property
    def head(self) -> Job:
        """The request whose turn it is; there must be one."""
        while self.queue[0][-1].ended:
            heappop(self.queue)
        return self.queue[0][-1]


def _by_tag(tenant: _Tenant) -> tuple[float, int]:
    return tenant.start_s, tenant.head.order
