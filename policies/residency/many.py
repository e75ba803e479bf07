"""Many checkpoints on few replicas: any scheduling policy serves them, with two questions more.

An arriving request is given to a replica by the *dispatch* policy. On a replica each checkpoint has a queue of its own,
with its own copy of the scheduling policy (`policies.residency.queue`); whose turn it is, and what has to make room,
is decided by `policies.residency.lane` and the *keep* policy. A load occupies its replica: nothing runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract import Cluster, Decision, Policy, Replica, SchedulingPolicy
from policies.guard import ask, begun, broken, has_own, short
from policies.job import Job
from policies.residency.affinity import Affinity
from policies.residency.contract import DispatchPolicy, KeepPolicy
from policies.residency.cost import Cost
from policies.residency.lane import ReplicaLane
from policies.residency.queue import CheckpointQueue
from predictors.loading import LoadTimes, Weights


class ManyCheckpoints(SchedulingPolicy):
    """Runs a scheduling policy for every checkpoint and replica.

    Requests that wait for a replica that fails are given to another; those that find none wait until one is repaired.
    The copies of the policy on a replica that fails are thrown away; it begins with new ones.
    Each copy of the policy plans as if the replica was its own, so what it believes about deadlines is too hopeful
    where several checkpoints share one.

    Args:
        policy: the scheduling policy; copied.
        dispatch: which replica a request goes to; by default `Affinity`.
        keep: which weights make room; by default `Cost`.
        weights: their sizes and rates; None: all are always there, and nothing is loaded.
        patience: a request without a deadline is due this many times its standalone seconds after it came; one that
            cannot meet its deadline any more is due again so much later.
        visit: seconds of use, and of waiting, that a second of loading is worth; see `policies.residency.lane`.
    """

    def __init__(
        self,
        policy: SchedulingPolicy,
        dispatch: DispatchPolicy | None = None,
        keep: KeepPolicy | None = None,
        weights: Weights | None = None,
        patience: float = 30.0,
        visit: float = 4.0,
    ) -> None:
        self.policy = policy
        self.dispatch = dispatch
        self.keep = keep
        self.weights = weights
        self.patience = patience
        self.visit = visit

    @property
    def blamed(self) -> Policy:
        """The policy that decides what runs."""
        return self.policy

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self._dispatch = begun(Affinity() if self.dispatch is None else self.dispatch)
        keep = Cost() if self.keep is None else self.keep
        loads = None
        if self.weights is not None:
            loads = LoadTimes(self.weights, [list(replica.loaded) for replica in cluster.replicas])
        self._lanes = [
            ReplicaLane(replica, self._queue, begun(keep), loads, self.visit) for replica in cluster.replicas
        ]
        self._working = list(self._lanes)
        self._wakes = has_own(self.policy, "wakeup")
        self._lane_of: dict[Job, ReplicaLane] = {}
        self._nowhere: dict[Job, None] = {}

    def _queue(self, checkpoint: str, replica: Replica) -> CheckpointQueue:
        return CheckpointQueue(checkpoint, self.policy, self.cluster.predictor, replica, self.patience)

    def arrived(self, job: Job, now: float) -> None:
        if not self._working:
            self._nowhere[job] = None
            return
        seconds = self.cluster.predictor.seconds
        of_stages = {stage: seconds(stage, job.alone, float(job.guided)) for stage in job.stages}
        views = tuple([lane.view for lane in self._working])
        chosen = ask(self._dispatch, "choose", job, views, now)
        if all(chosen is not view for view in views):
            raise broken(self._dispatch, f"chooses {short(chosen)}, expected one of the lanes that it is shown")
        lane = self._lane_of[job] = self._lanes[chosen.index]
        lane.add(job, of_stages, now)

    def returned(self, job: Job, now: float) -> None:
        self._lane_of[job].returned(job, now)

    def ended(self, job: Job, now: float) -> None:
        self._nowhere.pop(job, None)
        lane = self._lane_of.pop(job, None)
        if lane is not None:  # else its replica has failed
            lane.ended(job, now)

    def replica_down(self, replica: Replica, now: float) -> None:
        lane = self._lanes[replica.index]
        self._working.remove(lane)
        lost = [job for job, of in self._lane_of.items() if of is lane]
        lane.begin(now)
        for job in lost:
            del self._lane_of[job]
        for job in lost:
            if job.state == "waiting":
                self.arrived(job, now)

    def replica_up(self, replica: Replica, now: float) -> None:
        self._working = [lane for lane in self._lanes if self.cluster.replicas[lane.index].up]
        nowhere, self._nowhere = self._nowhere, {}
        for job in nowhere:
            self.arrived(job, now)

    def recalls(self, now: float) -> Sequence[int]:
        return [launch_id for lane in self._lanes for launch_id in lane.recalls(now)]

    def plan(self, replica: Replica, now: float) -> Decision | None:
        return self._lanes[replica.index].plan(now)

    def wakeup(self, now: float) -> float | None:
        if not self._wakes:
            return None
        times = [lane.wakeup(now) for lane in self._lanes]
        return min([at_s for at_s in times if at_s is not None], default=None)
