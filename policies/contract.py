"""What a scheduling policy is asked and may answer.

A policy is a class whose constructor only stores parameters. The controller copies it, calls `reset` once and
then the hooks below; it never sees a clock, a device or a driver, so it cannot tell a simulation from a GPU.
Which replica a request goes to is not its question: there is a copy for every queue, which sees that queue and the
replicas that draw from it alone. It is one queue for all replicas of a pool, or where a routing policy binds requests
to replicas (`policies.routing`) one for each; so the replicas that a policy sees are alike, and what it asks one of
them about costs holds for all.
The shortest useful policy is `plan` alone; the other hooks exist so that a policy can keep its own queues
instead of searching the cluster at every decision.

A decision for ``n`` steps is a promise: if nothing happens meanwhile, planning again at each step boundary would
choose the same. A policy that would choose otherwise after something happened names the running launch in
`recalls`; a recall too many costs a little time and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from policies.job import Job, ReadOnly
from predictors.costs import Batch, CostModel
from traces.composition import Composition, composition_of
from traces.stages import STAGES, Recipe

if TYPE_CHECKING:
    from policies.pool import Pool
    from policies.scheduling.mixing import BatchCosts
    from predictors.loading import LoadTimes, Weights


class Load(NamedTuple):
    """Weights to bring onto a replica before it can run requests for them.

    ``checkpoint`` is what requests name; ``evict`` makes room for it, checkpoints that lie there; ``expected_s`` is how
    long the policy expects it to take.
    """

    checkpoint: str
    evict: tuple[str, ...] = ()
    expected_s: float = 0.0


class Segment(NamedTuple):
    """The part of a launch that lies in one stage; ``predicted_step_s`` is what the replica's costs answered."""

    stage: str
    steps: int
    predicted_step_s: float


class LaunchWork(NamedTuple):
    """What launches compute: the batch that costs are asked for, and (stage, steps) in order.

    Launches of a run that compute the same share one object, whatever was predicted of each. ``received`` are those of
    the batch whose state comes from another replica first; None: all is here. ``degrees`` says on how many of the
    launch's devices each of the stages runs, as the costs have it; empty where replicas have one device.
    """

    batch: Batch
    stages: Recipe
    received: Batch | None = None
    degrees: tuple[int, ...] = ()

    def batch_of(self, stage: str) -> Batch:
        """What costs are asked for, of one of its stages."""
        return self.received if self.received is not None and STAGES[stage].receives else self.batch


class Launch(NamedTuple):
    """Work to start now on one replica: a batch of any sizes, each job at its own step, for a quantum of ``steps``.

    A step is an encode, a denoising step or a decode; of a tiled request also a step of its sketch, the upscale, or a
    refinement step on all devices. A quantum may run on from one stage into the next; then all of its jobs do so
    together. ``predicted_step_s`` is what the replica's costs answered, seconds of a step of each stage of the work.
    Tiled requests share a launch only with those of their own size.

    A launch with a ``load`` has no jobs: the replica is busy with its weights for one step of the stage ``load``. If
    adapters of its requests are not on yet, they are put on first, one after another: its work begins with the stage
    ``adapt``, whose steps count among ``steps`` but are none of the jobs' own. Nor is the step of the stage
    ``reshard``, with which it begins where what lies of its requests on other devices takes time to move; and that of
    ``receive``, with which it begins where requests begin here that another replica has handed on (``Job.receives``).
    A request with ``Job.passes_on`` is handed on when its last step is done: see `policies.legs`.

    ``devices`` are those of the replica that it has to itself, counted from 0, in order. Its steps run on the first of
    them: of a sampler on as many as its batch says, of other stages on as many as the ``degrees`` of its work say.
    """

    launch_id: int
    replica: int
    jobs: tuple[Job, ...]
    work: LaunchWork
    predicted_step_s: tuple[float, ...]
    steps: int
    start_s: float
    load: Load | None = None
    devices: tuple[int, ...] = (0,)

    @property
    def moving_steps(self) -> int:
        """Its first steps that move what lies of its requests elsewhere."""
        return sum([steps for stage, steps in self.work.stages if STAGES[stage].moves])

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Its stages, in order."""
        stages = zip(self.work.stages, self.predicted_step_s, strict=True)
        return tuple([Segment(stage, steps, step_s) for (stage, steps), step_s in stages])

    @property
    def batch(self) -> Batch:
        """What costs are asked for."""
        return self.work.batch

    @property
    def composition(self) -> Composition:
        """How many images of each size run together."""
        return self.work.batch.composition

    @property
    def stage(self) -> str:
        """The stage it starts in."""
        return self.work.stages[0][0]

    def done(self, steps: int) -> list[Segment]:
        """The first ``steps`` steps of its segments."""
        reached = []
        for segment in self.segments:
            reached.append(segment._replace(steps=min(steps, segment.steps)))
            steps -= segment.steps
            if steps <= 0:
                break
        return reached


class Outcome(NamedTuple):
    """How a launch ended.

    ``steps_done`` counts whole steps of the launch (0 when it failed before the first boundary). ``failed`` maps
    request ids to reasons; requests not named went on. ``computed`` and ``reused`` count work units: image-steps, and
    with a cache in denoising a unit for every block, in refinement tiles. ``device_s`` is the busy time of each device
    of the replica. ``stage_ends_s`` are the times at which it went from one stage into the next. ``notes`` says by
    request id, in a line, what else its client should know: a prompt that was cut, a picture that was blacked out.
    ``moved_bytes`` are those of its requests that its first steps brought from elsewhere.
    """

    steps_done: int
    failed: dict[str, str] | None = None
    computed: int = 0
    reused: int = 0
    device_s: tuple[float, ...] = ()
    stage_ends_s: tuple[float, ...] = ()
    notes: dict[str, str] | None = None
    moved_bytes: int = 0


class Decision(NamedTuple):
    """What to run next on the replica that was asked for, and what to give up.

    ``jobs`` share one stage, none of them is running, and those already started live on this replica. ``steps`` may
    reach beyond the stage as long as all jobs go from stage to stage together. ``drop`` holds (job, reason) pairs.
    ``Decision(drop=...)`` alone drops and has the policy asked again. ``Decision(load=...)`` runs no job, but brings
    weights onto the replica. ``anew`` says that what the replica has started was thought through again just now, at an
    instant that does not depend on how steps are grouped into launches: routing then looks at it again, too, as it
    does whenever a request starts. ``devices`` is how many devices of the replica it is to run on, of those that are
    free, one of the degrees that the replica's costs offer; or which; None: it has all of them to itself, and runs on
    as many as its steps can use. Where only a number is said, the jobs get those where they lie, as far as these are
    free, and then those where nothing lies. The policy is asked about what is left next.
    """

    jobs: tuple[Job, ...] = ()
    steps: int = 0
    drop: tuple[tuple[Job, str], ...] = ()
    load: Load | None = None
    anew: bool = False
    devices: int | tuple[int, ...] | None = None


class Replica(ReadOnly):
    """One copy of a model on one or more devices. Policies read it.

    It runs one launch at a time, unless a policy gives a launch fewer than all devices: then others run beside it.

    Attributes:
        index: 0, 1, 2, ...
        resident: jobs that live here, by request id, in order of arrival on the replica.
        launch: what runs now, of several launches the one that began last; or None.
        beside: the others that run now, in the order in which they began.
        up: whether it works; one that has failed is not asked about until it is repaired.
        loaded: checkpoints whose weights lie here, in the order they came; empty where all requests want the same.
        pool: to which it belongs; replicas of one pool are alike.
        costs: what steps cost here, as far as policies know; see `predictors.costs.CostModel`.
        batch_costs: the same for whoever asks for many batches that differ by one request; what one policy has asked
            for, all others find there. See `policies.scheduling.mixing.BatchCosts`.
        queue: jobs never started that may start here, by request id, in the order they came: those that were routed
            here, or those of the queue that all replicas of the pool share.
    """

    __slots__ = (
        "_loads",
        "batch_costs",
        "beside",
        "costs",
        "index",
        "launch",
        "loaded",
        "pool",
        "queue",
        "resident",
        "up",
    )

    beside: tuple[Launch, ...]
    batch_costs: BatchCosts
    costs: CostModel
    index: int
    launch: Launch | None
    loaded: Mapping[str, None]
    pool: Pool
    queue: Mapping[str, Job]
    resident: Mapping[str, Job]
    up: bool
    _loads: LoadTimes | None

    @property
    def launches(self) -> tuple[Launch, ...]:
        """All that run now, in the order in which they began."""
        return self.beside if self.launch is None else (*self.beside, self.launch)

    @property
    def free_devices(self) -> int:
        """How many of its devices no launch has."""
        free, launch = self.pool.devices, self.launch
        if launch is None:
            return free
        free -= len(launch.devices)
        for other in self.beside:
            free -= len(other.devices)
        return free

    @property
    def weights(self) -> Weights | None:
        """Sizes of the checkpoints and the memory for them; None: all requests want the same weights, always there."""
        return None if self._loads is None else self._loads.of[self.index]

    @property
    def room_gb(self) -> float:
        """Memory that no weights lie in; infinite where all are always there."""
        weights = self.weights
        if weights is None:
            return math.inf
        return weights.memory_gb - sum([weights.gb(checkpoint) for checkpoint in self.loaded])

    def load_s(self, checkpoint: str) -> float:
        """Predicted seconds until a checkpoint's weights lie here if its load begins now; 0.0 if they do."""
        return 0.0 if checkpoint in self.loaded else self.reload_s(checkpoint)

    def reload_s(self, checkpoint: str) -> float:
        """Predicted seconds of a load of a checkpoint, though its weights may lie here."""
        return 0.0 if self._loads is None else self._loads.expected(self.index, checkpoint)


class IdleReplicas(ReadOnly):
    """The replicas, of some, that work and on which no job lives, in order of their indexes; changes with them."""

    __slots__ = ("_replicas",)

    _replicas: tuple[Replica, ...]

    def __init__(self, replicas: tuple[Replica, ...]) -> None:
        object.__setattr__(self, "_replicas", replicas)

    def __iter__(self) -> Iterator[Replica]:
        return (replica for replica in self._replicas if replica.up and not replica.resident)

    def __len__(self) -> int:
        return sum([replica.up and not replica.resident for replica in self._replicas])


class Cluster(ReadOnly):
    """What a policy sees of the world; it reads it.

    A scheduling policy sees one queue and the replicas that draw from it; a routing policy sees everything.

    Attributes:
        replicas: in order of their indexes, which need not begin at 0.
        idle: those of them that work and on which no job lives.
        waiting: jobs never started, by request id, in order of arrival.
        jobs: all jobs not ended, by request id.
    """

    __slots__ = ("idle", "jobs", "replicas", "waiting")

    idle: IdleReplicas
    jobs: Mapping[str, Job]
    replicas: tuple[Replica, ...]
    waiting: Mapping[str, Job]

    def __getattr__(self, name: str) -> object:
        if name == "predictor":
            raise AttributeError(
                "a cluster has no predictor: ask a replica's costs, replica.costs.step_s(stage, job.kind.batch) or "
                "replica.costs.standalone_s(request)"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


class Policy:
    """Base of every kind of policy: what a user may write, and Tilecast calls through `policies.guard` alone.

    Attributes:
        required: hooks that every policy of the kind writes.
    """

    required: ClassVar[tuple[str, ...]] = ()

    @property
    def blamed(self) -> Policy:
        """Which policy a broken rule is put down to: this one, unless it only passes on what another decides."""
        return self


class SchedulingPolicy(Policy):
    """Base of every scheduling policy. Only `plan` must be written."""

    required = ("plan",)
    usual_routing: ClassVar[str] = "shared"
    """The routing policy of `policies.routing` that it is used with where a scenario names none."""
    cluster: Cluster

    def reset(self, cluster: Cluster) -> None:
        """Begin a run: forget everything of an earlier one. Overriders call ``super().reset(cluster)``.

        A replica that has a queue of its own and is down begins anew too, with a new copy.
        """
        self.cluster = cluster

    def plan(self, replica: Replica, now: float) -> Decision | None:
        """What to run next on this idle replica; None leaves it idle until something happens."""
        raise NotImplementedError

    def arrived(self, job: Job, now: float) -> None:
        """A request came into the queue; it waits."""

    def returned(self, job: Job, now: float) -> None:
        """A launch of this job ended and it has more to do; it is resident on its replica."""

    def ended(self, job: Job, now: float) -> None:
        """A job finished, was dropped, failed or was cancelled; or its stages here are done and its request goes on
        elsewhere; or it had not started, and its request is routed again."""

    def replica_down(self, replica: Replica, now: float) -> None:
        """A replica failed. What was resident on it ends next, and arrives anew if the run starts it again."""

    def replica_up(self, replica: Replica, now: float) -> None:
        """A replica that had failed works again; nothing is on it."""

    def recalls(self, now: float) -> Sequence[int]:
        """Ids of running launches to end at their next step boundary, because a better choice has come up."""
        return ()

    def wakeup(self, now: float) -> float | None:
        """When to ask again although nothing happened, in seconds; None for never."""
        return None


class PolicyError(RuntimeError):
    """A policy broke the contract, or raised. The message, one line, names the policy and the rule or the hook."""


def joined(*notes: str) -> str:
    """Notes on one request as one line."""
    return "; ".join(note for note in notes if note)


def composition_of_jobs(jobs: Sequence[Job]) -> Composition:
    """The composition of a batch of jobs."""
    first = jobs[0]
    if len(jobs) == 1:
        return first.alone
    key = first.batch_key
    for job in jobs:
        if job.batch_key != key:
            return composition_of([j.alone[0] for j in jobs])
    return ((first.alone[0][0], sum([j.images for j in jobs])),)


def guided_share(jobs: Sequence[Job]) -> float:
    """The share of a batch's pixels that classifier-free guidance doubles."""
    if len(jobs) == 1:
        return 1.0 if jobs[0].guided else 0.0
    guided = [job.batch_key[2] for job in jobs]
    if False not in guided:
        return 1.0
    if True not in guided:
        return 0.0
    pixels = [job.images * job.request.pixels for job in jobs]
    return sum([p for p, g in zip(pixels, guided, strict=True) if g]) / sum(pixels)
