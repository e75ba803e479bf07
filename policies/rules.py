"""Whether a decision keeps the contract, in the state that the cluster is in.

What comes here is plain already, see `policies.answers`; but a job may still be half of one, of the policy's making.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.cluster import ClusterState, QueueState, devices_for
from policies.contract import Load, Replica, SchedulingPolicy
from policies.guard import broken, fail, short
from policies.job import Job
from predictors.loading import LoadTimes


class Rules:
    """The rules for what a scheduling policy runs, loads and drops.

    Args:
        cluster: where it decides.
        loads: what loading weights takes; None: all requests want the same, always there.
    """

    def __init__(self, cluster: ClusterState, loads: LoadTimes | None) -> None:
        self._cluster = cluster
        self._loads = loads

    def check_batch(self, queue: QueueState, replica: Replica, jobs: tuple[Job, ...], steps: int) -> None:
        """PolicyError when a replica cannot run so many steps of these jobs."""
        if not jobs:
            raise broken(queue.policy, "answered with no jobs; None is the answer that leaves a replica idle")
        known, index = queue.jobs, replica.index
        try:
            for job in jobs:
                if type(job) is Job:
                    state = job.state
                    if (
                        (state == "waiting" or (state == "resident" and job.replica == index))
                        and 1 <= steps <= job.steps_left
                        and known.get(job.request.request_id) is job
                    ):
                        continue
                raise broken(queue.policy, self._unfit(replica, job, steps))
        except BaseException as error:
            fail(queue.policy, "plan", error)
        if len(jobs) > 1:
            _check_together(queue.policy, jobs, steps)
        if self._loads is not None:
            _check_loaded(queue.policy, replica, jobs)

    def _unfit(self, replica: Replica, job: Job, steps: int) -> str:
        """What is wrong with running so many steps of a job on a replica."""
        if type(job) is not Job:
            return f"wants to run {short(job)}, which is no job"
        name = job.request.request_id
        if self._cluster.jobs.get(name) is not job:
            return f"wants to run request {name!r}, which is {job.state} or was never submitted"
        if job.state == "waiting" and name not in replica.queue:
            return f"wants to run request {name!r} on replica {replica.index}, which waits elsewhere"
        if job.state == "running":
            return f"wants to run request {name!r}, which is running already"
        if job.state == "resident" and job.replica != replica.index:
            return f"wants to run request {name!r} on replica {replica.index}, but it lives on replica {job.replica}"
        return f"asks for {steps} steps of request {name!r}, which has {job.steps_left} left"

    def devices(
        self, policy: SchedulingPolicy, replica: Replica, jobs: tuple[Job, ...], wanted: int | tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """The devices of a replica that a batch has to itself, of those that are free: those wanted; None: all.

        Raises:
            PolicyError: so many are not free, or its steps cannot run on so many.
        """
        free = replica.free_devices
        if wanted is None:
            return devices_for(replica, jobs, free)
        named = wanted if type(wanted) is tuple else ()
        count = len(named) if named else wanted
        if type(count) is not int or count < 1 or any(type(device) is not int for device in named):
            raise broken(policy, f"answers plan with devices = {short(wanted)}, expected a whole number of at least 1")
        if count > free:
            raise broken(policy, f"wants {count} devices of replica {replica.index}, of which {free} are free")
        if not named:
            if jobs and jobs[0].mixes and count not in (offered := replica.costs.degrees(jobs[0].request.model)):
                allowed = ", ".join(map(str, offered))
                raise broken(policy, f"wants {count} devices for {jobs[0].request.model!r}, which runs on {allowed}")
            return devices_for(replica, jobs, count)
        taken = {device for launch in replica.launches for device in launch.devices}
        had = [device for device in set(named) if 0 <= device < replica.pool.devices and device not in taken]
        if len(had) < count:
            raise broken(policy, f"wants devices {short(named)} of replica {replica.index}, which are not all free")
        return named

    def check_load(self, policy: SchedulingPolicy, replica: Replica, jobs: tuple[Job, ...], load: Load) -> None:
        """PolicyError when weights cannot be brought onto a replica."""
        name = load.checkpoint
        if self._loads is None:
            raise broken(policy, f"loads {name!r}, but all requests of this run want the same weights")
        if jobs:
            raise broken(policy, f"loads {name!r} and runs requests in one decision")
        if name in replica.loaded:
            raise broken(policy, f"loads {name!r}, which lies on replica {replica.index} already")
        busy = {job.request.checkpoint for launch in replica.launches for job in launch.jobs}
        for checkpoint in load.evict:
            if checkpoint in busy:
                raise broken(policy, f"evicts {checkpoint!r}, which runs on replica {replica.index}")
            if checkpoint not in replica.loaded:
                raise broken(policy, f"evicts {checkpoint!r}, which does not lie on replica {replica.index}")
        beside = [checkpoint for checkpoint in replica.loaded if checkpoint not in load.evict]
        weights = self._loads.of[replica.index]
        if not weights.fit([*beside, name]):
            what = f"beside {', '.join(beside)} in {weights.memory_gb:g} GB"
            raise broken(policy, f"loads {name!r} onto replica {replica.index}, which does not fit {what}")

    def check_drop(self, policy: SchedulingPolicy, job: Job) -> None:
        """PolicyError when a job cannot be dropped."""
        try:
            name = job.request.request_id
            if job.state not in ("waiting", "resident"):
                raise broken(policy, f"drops request {name!r}, which is {job.state}")
            if self._cluster.jobs.get(name) is not job:
                raise broken(policy, f"drops request {name!r}, which was never submitted")
        except BaseException as error:
            fail(policy, "plan", error)


def _check_together(policy: SchedulingPolicy, jobs: Sequence[Job], steps: int) -> None:
    """PolicyError when jobs cannot run so many steps together."""
    if len(set(jobs)) < len(jobs):
        raise broken(policy, "names a request twice in one launch")
    first = jobs[0]
    kind, left = first.kind, first.steps_left
    for job in jobs:
        if job.kind is kind and job.steps_left == left:
            continue
        if job.request.model != first.request.model:
            raise broken(
                policy,
                f"mixes models in one launch: {first.request.request_id!r} is of {first.request.model!r}, "
                f"{job.request.request_id!r} of {job.request.model!r}",
            )
        if job.kind.adapters != kind.adapters:
            raise broken(
                policy,
                f"mixes adapters in one launch: {first.request.request_id!r} wants {kind.adapters or 'none'}, "
                f"{job.request.request_id!r} {job.kind.adapters or 'none'}",
            )
        alike = job.steps_left == left and job.recipe == first.recipe
        if not alike and job.segments(steps) != first.segments(steps):
            raise broken(
                policy,
                f"mixes stages in one launch: {first.request.request_id!r} would go through {first.segments(steps)}, "
                f"{job.request.request_id!r} through {job.segments(steps)}; next_quantum(jobs) of "
                "policies.scheduling.batch makes a launch of them that does not",
            )
        if not (job.mixes and first.mixes) and job.batch_key != first.batch_key:
            raise broken(
                policy,
                f"mixes sizes in a launch of requests that do not mix: {first.request.request_id!r} and "
                f"{job.request.request_id!r}",
            )


def _check_loaded(policy: SchedulingPolicy, replica: Replica, jobs: Sequence[Job]) -> None:
    """PolicyError when a replica lacks the weights that jobs want."""
    for job in jobs:
        name, wanted = job.request.request_id, job.request.checkpoint
        if wanted not in replica.loaded:
            raise broken(policy, f"wants to run request {name!r} on replica {replica.index}, which lacks {wanted!r}")
    if len({job.request.checkpoint for job in jobs}) > 1:
        raise broken(policy, f"mixes checkpoints in one launch: {jobs[0].request.request_id!r} and others")
