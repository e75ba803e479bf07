"""The requests of one checkpoint on one replica, scheduled by a policy that knows of nothing else.

The policy sees a cluster of one replica, numbered 0. Its jobs are mirrors: copies of the controller's jobs that are
kept in step with them, because a job says on which replica it lives and what is left to do, adapters included, and
the policy is to see neither the other replicas nor the adapters. So any policy for one set of weights, whatever it
keeps and however it dispatches, serves many.

Adapters are put on when a request first runs, one request after another; the policy sees a launch that takes longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush, heapreplace
from typing import NamedTuple

from policies import answers
from policies.cluster import ClusterState, set_launch
from policies.contract import Decision, PolicyError, Predictor, Replica, SchedulingPolicy
from policies.guard import ask, begun, broken, short
from policies.job import Job, advance, copy_state, start

ADAPT = "adapt"


class _Held(NamedTuple):
    """What the policy wants to run next, once what comes before that is done."""

    jobs: tuple[Job, ...]
    steps: int


class CheckpointQueue:
    """A scheduling policy and the requests that it sees; begins empty.

    Args:
        checkpoint: that its requests want.
        policy: copied.
        predictor: of the run.
        replica: the controller's.
        patience: see `policies.residency.many.ManyCheckpoints`.

    Attributes:
        jobs: the controller's jobs, each with the one that the policy sees.
        load_s: what its last load was expected to take.
        served_s: for how long it has had its turn since then.
    """

    def __init__(
        self, checkpoint: str, policy: SchedulingPolicy, predictor: Predictor, replica: Replica, patience: float
    ) -> None:
        self.checkpoint = checkpoint
        self.jobs: dict[Job, Job] = {}
        self.load_s = self.served_s = 0.0
        self._patience = patience
        self._replica = replica
        self._real: dict[Job, Job] = {}
        self._due: list[tuple[float, int, bool, Job]] = []
        self._seconds: dict[Job, Mapping[str, float]] = {}
        self._held: _Held | None = None
        self._running: tuple[Job, ...] = ()  # mirrors
        self._recalled = False
        self._cluster = ClusterState(1, predictor)
        self._view = self._cluster.view.replicas[0]
        self._resident, self._loaded = self._cluster.resident[0], self._cluster.loaded[0]
        self._latest = -1  # the launch that it was shown last
        self._policy = begun(policy, self._cluster.view)

    @property
    def launching(self) -> bool:
        """Whether adapters are put on for a launch that is decided."""
        return self._held is not None

    def runs(self, job: Job) -> bool:
        """Whether a job is in the launch that runs, or ended with it."""
        return self.jobs[job].state == "running"

    def add(self, job: Job, seconds: Mapping[str, float], now: float) -> None:
        """A request comes; ``seconds`` are predicted, of a step of each of its stages."""
        recipe = tuple([item for item in job.recipe if item[0] != ADAPT])
        mirror = Job(job.request, job.order, recipe, job.earlier)
        self.jobs[job] = mirror
        self._real[mirror] = job
        self._seconds[job] = seconds
        patient = job.request.deadline == float("inf")
        due_s = now + self._patience * job.seconds_left(seconds) if patient else job.request.deadline
        heappush(self._due, (due_s, job.order, patient, job))
        self._cluster.jobs[job.request.request_id] = self._cluster.waiting[job.request.request_id] = mirror
        ask(self._policy, "arrived", mirror, now)

    def due_s(self, now: float) -> float:
        """When the most urgent of its requests is due. It must have one, and none may be running.

        One that cannot be in time any more is due again ``patience`` times its seconds later.
        """
        while True:
            due_s, order, patient, job = self._due[0]
            if job not in self.jobs:
                heappop(self._due)
            elif not patient and due_s - job.seconds_left(self._seconds[job]) < now:
                later_s = due_s + self._patience * self.alone_s(job)
                heapreplace(self._due, (later_s, order, True, job))
            else:
                return due_s

    def first_left_s(self) -> float:
        """Predicted seconds that the most urgent request still needs, alone; of the last `due_s`."""
        return self.left_s(self._due[0][3])

    def alone_s(self, job: Job) -> float:
        """Predicted seconds of a whole request alone."""
        seconds = self._seconds[job]
        return sum([steps * seconds[stage] for stage, steps in job.recipe])

    def left_s(self, job: Job) -> float:
        """Predicted seconds that a request still needs, alone."""
        return job.seconds_left(self._seconds[job])

    def plan(self, now: float) -> Decision | None:
        """What to do next on the replica, which is idle and has the weights."""
        if self._replica.loaded:
            self._loaded[self.checkpoint] = None
        else:
            self._loaded.clear()
        if self._held is None:
            decision = ask(self._policy, "plan", self._view, now)
            if decision is None:
                return None
            decision = answers.decision(self._policy, decision)
            if decision.load is not None:
                raise self._broken(f"loads {answers.load(self._policy, decision.load).checkpoint!r} itself")
            jobs, steps = answers.batch(self._policy, decision.jobs, decision.steps)
            drops = answers.drops(self._policy, decision.drop)
            if jobs:
                self._held = _Held(tuple([self._job(job) for job in jobs]), steps)
            elif not drops:
                raise self._broken("answered with no jobs; None is the answer that leaves a replica idle")
            if drops:
                return Decision(drop=tuple([(self._job(job), reason) for job, reason in drops]))
        assert self._held is not None
        jobs, steps = self._held
        self._start(jobs, now)
        for job in jobs:
            if job.stage == ADAPT:
                return Decision((job,), job.stage_left)
        self._held = None
        return Decision(jobs, 1 if self._recalled else steps)

    def _job(self, mirror: Job) -> Job:
        """The controller's job that the policy sees as this one."""
        job = self._real.get(mirror) if type(mirror) is Job else None
        if job is None:
            raise self._broken(f"names {short(mirror)}, which is no job of its own that has not ended")
        return job

    def _start(self, jobs: tuple[Job, ...], now: float) -> None:
        """Let the policy see that what it has decided runs."""
        self._running = tuple([self.jobs[job] for job in jobs if job in self.jobs])
        for mirror in self._running:
            name = mirror.request.request_id
            if mirror.state == "waiting":
                del self._cluster.waiting[name]
                self._resident[name] = mirror
            start(mirror, 0, now)

    def recalls(self, now: float) -> list[int]:
        """Its running launch, if the policy recalls it. Adapters are put on to the end; one step is done then."""
        launch = self._replica.launch
        shown = self._view.launch
        if self._running and launch is not None and (shown is None or shown.launch_id != launch.launch_id):
            steps = launch.steps if self._held is None else self._held.steps
            set_launch(self._view, launch._replace(jobs=self._running, replica=0, steps=steps))
            self._latest = launch.launch_id
        named = answers.launch_ids(self._policy, ask(self._policy, "recalls", now), self._latest + 1)
        if launch is None or launch.launch_id not in named or not self._running:
            return []
        if self._held is not None:
            self._recalled = True
            return []
        return [launch.launch_id]

    def returned(self, job: Job, now: float) -> None:
        """A launch of a job ended and it has more to do."""
        mirror = self.jobs[job]
        if self._held is not None:
            return
        self._stop()
        self._follow(job, mirror)
        copy_state(job, mirror)
        ask(self._policy, "returned", mirror, now)

    def _stop(self) -> None:
        self._running, self._recalled = (), False
        set_launch(self._view, None)

    def _follow(self, job: Job, mirror: Job) -> None:
        done = mirror.steps_left - (job.steps_left - (job.stage_left if job.stage == ADAPT else 0))
        if done:
            advance(mirror, done)

    def ended(self, job: Job, now: float) -> None:
        """A job ended, however."""
        mirror = self.jobs.pop(job)
        self._follow(job, mirror)
        del self._real[mirror], self._seconds[job]
        name = job.request.request_id
        if mirror.state == "waiting":
            del self._cluster.waiting[name]
        else:
            del self._resident[name]
        del self._cluster.jobs[name]
        if self._held is not None:
            others = tuple([other for other in self._held.jobs if other is not job])
            self._held = self._held._replace(jobs=others) if others else None
            self._recalled = True  # the others may be joined at their next step
        if mirror.state == "running":
            self._running = tuple([other for other in self._running if other is not mirror])
            if self._held is None:
                self._stop()
        copy_state(job, mirror)
        ask(self._policy, "ended", mirror, now)

    def wakeup(self, now: float) -> float | None:
        """When the policy wants to be asked again."""
        wakeup_s = ask(self._policy, "wakeup", now)
        return None if wakeup_s is None else answers.wakeup_s(self._policy, wakeup_s)

    def _broken(self, what: str) -> PolicyError:
        return broken(self._policy, what)
