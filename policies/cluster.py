"""The world that a scheduling policy sees, in the hands of whoever keeps it.

Policies read a `Cluster`; nothing in it can be written to, so that no policy can make a request look done. Its owner,
the controller, holds a `ClusterState` and writes there. A scheduling policy sees a `QueueState` of it: one queue, and
the replicas that draw from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from policies.contract import Cluster, IdleReplicas, Launch, Replica, SchedulingPolicy
from policies.job import Job
from policies.pool import Pool
from policies.scheduling.mixing import BatchCosts
from predictors.loading import LoadTimes


class Occupancy:
    """What replicas are doing; bit i is replica i's. So one of a thousand is found without asking all.

    Attributes:
        up: those that work.
        free: of them, those that have devices on which nothing runs.
        holding: those on which jobs live.
        queued: those that requests may wait for; one may still be here when its queue is empty again.
        leaving: those that finish what they have and begin nothing.
    """

    __slots__ = ("free", "holding", "leaving", "queued", "up")

    def __init__(self, replicas: int) -> None:
        self.up = self.free = (1 << replicas) - 1
        self.holding = self.queued = self.leaving = 0


class _Idle(IdleReplicas):
    """Idle replicas found by their bits."""

    __slots__ = ("_by_bit", "_occupancy", "_own")

    _by_bit: dict[int, Replica]
    _occupancy: Occupancy
    _own: int

    def __init__(self, replicas: tuple[Replica, ...], occupancy: Occupancy) -> None:
        super().__init__(replicas)
        object.__setattr__(self, "_by_bit", {1 << replica.index: replica for replica in replicas})
        object.__setattr__(self, "_occupancy", occupancy)
        object.__setattr__(self, "_own", sum(self._by_bit))

    def __iter__(self) -> Iterator[Replica]:
        left = self._bits
        while left:
            lowest = left & -left
            yield self._by_bit[lowest]
            left ^= lowest

    def __len__(self) -> int:
        return self._bits.bit_count()

    @property
    def _bits(self) -> int:
        return self._own & self._occupancy.up & ~self._occupancy.holding


class QueueState:
    """An empty queue.

    Attributes:
        waiting, jobs: see `policies.contract.Cluster`.
        view: what the scheduling policy of the queue sees.
        bits: of the replicas that draw from it, as in `Occupancy`.
        pool: theirs.
        policy: that one; set when it begins.
        instead_of: of a replica that only finishes what it has, the queue from which it drew before.
    """

    instead_of: QueueState
    bits: int
    pool: Pool
    policy: SchedulingPolicy

    def __init__(self) -> None:
        self.waiting: dict[str, Job] = {}
        self.jobs: dict[str, Job] = {}

    def served_by(self, replicas: tuple[Replica, ...], occupancy: Occupancy) -> None:
        """Show these replicas, which draw from it."""
        self.pool = replicas[0].pool
        self.bits = sum([1 << replica.index for replica in replicas])
        self.view = cluster_of(replicas, self.waiting, self.jobs, _Idle(replicas, occupancy))


class ClusterState:
    """Replicas without work, all of them up, and no jobs.

    Args:
        pools: what it consists of.
        own_queues: every replica has a queue of its own; otherwise all of a pool draw from one.
        loads: what loading weights is expected to take; None: they are always there.

    Attributes:
        view: all of it, as a routing policy sees it.
        waiting, jobs: see `policies.contract.Cluster`.
        resident, loaded: of each replica, see `policies.contract.Replica`.
        queues: of each replica. Where all share one, it has the cluster's own ``waiting`` and ``jobs``.
        occupancy: what the replicas are doing.
    """

    def __init__(self, pools: Sequence[Pool], own_queues: bool = False, loads: LoadTimes | None = None) -> None:
        pool_of = [pool for pool in pools for _ in range(pool.replicas)]
        replicas = len(pool_of)
        self.resident: list[dict[str, Job]] = [{} for _ in range(replicas)]
        self.loaded: list[dict[str, None]] = [{} for _ in range(replicas)]
        whole = QueueState()
        self.waiting, self.jobs = whole.waiting, whole.jobs
        of_pools = {pool: whole if len(pools) == 1 else QueueState() for pool in pools}
        self.queues = [QueueState() if own_queues else of_pools[pool] for pool in pool_of]
        self.occupancy = Occupancy(replicas)
        self._batch_costs, self._loads = {pool: BatchCosts(pool.costs) for pool in pools}, loads
        every = tuple([self._replica(index, pool) for index, pool in enumerate(pool_of)])
        whole.served_by(every, self.occupancy)
        self.view = whole.view
        drawing: dict[QueueState, list[Replica]] = {}
        for replica, queue in zip(every, self.queues, strict=True):
            drawing.setdefault(queue, []).append(replica)
        for queue, replicas_of in drawing.items():
            if queue is not whole:
                queue.served_by(tuple(replicas_of), self.occupancy)

    def _replica(self, index: int, pool: Pool) -> Replica:
        replica = Replica()
        _set_pool(replica, pool)
        _set_costs(replica, pool.costs)
        _set_batch_costs(replica, self._batch_costs[pool])
        _set_loads(replica, self._loads)
        _set_index(replica, index)
        _set_queue(replica, MappingProxyType(self.queues[index].waiting))
        _set_resident(replica, MappingProxyType(self.resident[index]))
        _set_loaded(replica, MappingProxyType(self.loaded[index]))
        set_launch(replica, None)
        set_beside(replica, ())
        set_up(replica, True)
        return replica


def cluster_of(
    replicas: tuple[Replica, ...],
    waiting: Mapping[str, Job],
    jobs: Mapping[str, Job],
    idle: IdleReplicas | None = None,
) -> Cluster:
    """A view of these, which are not copied; the idle replicas are looked for where they are not given."""
    view = Cluster()
    _set_replicas(view, replicas)
    _set_idle(view, IdleReplicas(replicas) if idle is None else idle)
    _set_waiting(view, MappingProxyType(waiting))
    _set_jobs(view, MappingProxyType(jobs))
    return view


def devices_for(replica: Replica, jobs: Sequence[Job], count: int) -> tuple[int, ...]:
    """So many devices of a replica that no launch has: first those where the jobs lie, last those where others do."""
    taken = {device for launch in replica.launches for device in launch.devices}
    own = {device for job in jobs for device in job.devices if job.replica == replica.index}
    if len(own) == count and own.isdisjoint(taken):
        return tuple(sorted(own))
    free = [device for device in range(replica.pool.devices) if device not in taken]
    if len(free) == count:
        return tuple(free)
    others = {device for job in replica.resident.values() for device in job.devices}
    return tuple(sorted(sorted(free, key=lambda device: (device not in own, device in others, device))[:count]))


Variant = tuple[str, str, int]
"""What computes a request: weights, by their checkpoint or where all are always there by the model, the adapters on
them, and which leg of it, where pools serve some stages each."""
VariantOf = Callable[[Job], Variant]


def variant_of(job: Job) -> Variant:
    """Checkpoint, adapters and leg of a job."""
    return job.request.checkpoint, job.kind.adapters, 0 if job.leg is None else job.leg.number


def model_variant(job: Job) -> Variant:
    """The variant of a job where all checkpoints of a model are taken for one."""
    return job.request.model, job.kind.adapters, 0 if job.leg is None else job.leg.number


class JobsFor(Mapping[str, Job]):
    """Those of some jobs, by request id, that want one variant: a view that changes with them."""

    __slots__ = ("_jobs", "_of", "_variant")

    def __init__(self, variant: Variant, of: VariantOf, jobs: Mapping[str, Job]) -> None:
        self._variant = variant
        self._of = of
        self._jobs = jobs

    def __getitem__(self, name: str) -> Job:
        job = self._jobs[name]
        if self._of(job) != self._variant:
            raise KeyError(name)
        return job

    def __iter__(self) -> Iterator[str]:
        variant, of = self._variant, self._of
        return (name for name, job in self._jobs.items() if of(job) == variant)

    def __len__(self) -> int:
        return sum([self._of(job) == self._variant for job in self._jobs.values()])

    def __bool__(self) -> bool:
        return any(self._of(job) == self._variant for job in self._jobs.values())


class _ReplicaFor(Replica):
    """See `replica_for`."""

    __slots__ = ("_of", "_variant", "_whole")

    _of: VariantOf
    _variant: Variant
    _whole: Replica

    @property
    def launch(self) -> Launch | None:  # type: ignore[override]
        """What runs on it now, if it is of this variant."""
        launch = self._whole.launch
        return launch if launch is not None and self._is_own(launch) else None

    @property
    def beside(self) -> tuple[Launch, ...]:  # type: ignore[override]
        """The others that run on it now and are of this variant."""
        return tuple([launch for launch in self._whole.beside if self._is_own(launch)])

    @property
    def free_devices(self) -> int:
        """How many of its devices no launch has, of whatever variant."""
        return self._whole.free_devices

    def _is_own(self, launch: Launch) -> bool:
        return bool(launch.jobs) and self._of(launch.jobs[0]) == self._variant

    @property
    def up(self) -> bool:  # type: ignore[override]
        """Whether it works, and the weights lie there."""
        whole = self._whole
        return whole.up and (whole.weights is None or self._variant[0] in whole.loaded)


def replica_for(replica: Replica, variant: Variant, of: VariantOf) -> Replica:
    """A replica as the policy of one variant sees it: it works when the weights lie there, and for no other."""
    view = _ReplicaFor()
    object.__setattr__(view, "_whole", replica)
    object.__setattr__(view, "_variant", variant)
    object.__setattr__(view, "_of", of)
    _copy_facts(replica, view)
    _set_queue(view, MappingProxyType(JobsFor(variant, of, replica.queue)))
    _set_resident(view, MappingProxyType(JobsFor(variant, of, replica.resident)))
    return view


class _ReplicaOfQueue(Replica):
    """See `replica_of_queue`."""

    __slots__ = ("_whole",)

    _whole: Replica

    @property
    def launch(self) -> Launch | None:  # type: ignore[override]
        """What runs on it now."""
        return self._whole.launch

    @property
    def beside(self) -> tuple[Launch, ...]:  # type: ignore[override]
        """The others that run on it now."""
        return self._whole.beside

    @property
    def up(self) -> bool:  # type: ignore[override]
        """Whether it works."""
        return self._whole.up


def replica_of_queue(replica: Replica, queue: Mapping[str, Job]) -> Replica:
    """A replica as the policy sees it that is shown some of its queue alone."""
    view = _ReplicaOfQueue()
    object.__setattr__(view, "_whole", replica)
    _copy_facts(replica, view)
    _set_queue(view, MappingProxyType(queue))
    _set_resident(view, replica.resident)
    return view


def _copy_facts(replica: Replica, view: Replica) -> None:
    """Show of a replica what is the same in every view of it."""
    _set_index(view, replica.index)
    _set_pool(view, replica.pool)
    _set_costs(view, replica.costs)
    _set_batch_costs(view, replica.batch_costs)
    _set_loads(view, replica._loads)
    _set_loaded(view, replica.loaded)


_set_jobs = Cluster.__dict__["jobs"].__set__
_set_waiting = Cluster.__dict__["waiting"].__set__
_set_replicas = Cluster.__dict__["replicas"].__set__
_set_idle = Cluster.__dict__["idle"].__set__
_set_costs = Replica.__dict__["costs"].__set__
_set_batch_costs = Replica.__dict__["batch_costs"].__set__
_set_index = Replica.__dict__["index"].__set__
_set_pool = Replica.__dict__["pool"].__set__
_set_resident = Replica.__dict__["resident"].__set__
_set_loads = Replica.__dict__["_loads"].__set__
_set_queue = Replica.__dict__["queue"].__set__
_set_loaded = Replica.__dict__["loaded"].__set__
set_launch = Replica.__dict__["launch"].__set__
"""``set_launch(replica, launch)``: what runs on it now, of several what began last, or None."""
set_beside = Replica.__dict__["beside"].__set__
"""``set_beside(replica, launches)``: what else runs on it now."""
set_up = Replica.__dict__["up"].__set__
"""``set_up(replica, up)``: whether it works."""
