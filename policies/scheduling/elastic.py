"""What policies share that choose on how many devices of a replica each request runs.

Such a policy thinks when something happens, a request comes or ends or what was to run has run, and at no other time:
it says which *units*, requests that run together and a degree, a replica is to work on. Else units only go on.
So that planning step by step and planning by quanta think the same, how far a unit has come is reckoned from when it
began and how long its steps are predicted to take, never read off requests that may be in a launch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from policies.contract import Cluster, Decision, Replica, SchedulingPolicy
from policies.job import Job, JobKind
from policies.scheduling.batch import next_quantum
from policies.scheduling.mixing import Alone, BatchCosts, BatchKind
from predictors.costs import OnDevices

_TOGETHER = 1.25
"""Devices that have denoised a request decode it together where that takes so many times one's device time at most."""
_ROUNDING = 1e-9
"""Of a step: sums of the same seconds in another order differ in their last digits."""


class KindOnDegrees:
    """What requests of one kind take alone, at every degree that is offered to them.

    Attributes:
        kind: whose; of `DegreeCosts.one`.
        degrees: how many devices, ascending.
        alone: predicted seconds of each stage at each degree, of what comes after the last step as it is finished.
        finishes: at each, whether all devices finish it: where that takes hardly more device time than one does.
        steps_s: of them, those of a denoising step.
        least_step_s: the least of these.
        one: on one device.
    """

    __slots__ = ("alone", "degrees", "finishes", "kind", "least_step_s", "one", "steps_s")

    def __init__(
        self,
        kind: BatchKind,
        one: Alone,
        degrees: tuple[int, ...],
        alone: tuple[Alone, ...],
        finishes: tuple[bool, ...],
    ) -> None:
        self.kind = kind
        self.one = one
        self.degrees = degrees
        self.alone = alone
        self.finishes = finishes
        self.steps_s = tuple([of.step_s for of in alone])
        self.least_step_s = min(self.steps_s)

    def least_s(self, left: int, begun: bool) -> float:
        """Predicted seconds of a request at least, that has so many denoising steps left."""
        if begun:
            return min([left * of.step_s + of.decode_s for of in self.alone])
        return min([of.encode_s + left * of.step_s + of.decode_s for of in self.alone])


class _Kind:
    """Where what a kind takes is asked for.

    Args:
        one: what batches cost on one device.
        kind: on one device.
        degrees: that are offered.
        on: at each, what batches cost and the kind there.
    """

    def __init__(
        self, one: BatchCosts, kind: BatchKind, degrees: tuple[int, ...], on: list[tuple[BatchCosts, BatchKind]]
    ) -> None:
        self._one, self._kind, self._degrees, self._on = one, kind, degrees, on
        self._found: KindOnDegrees | None = None
        self._alone: list[Alone] = []
        self._steps_s: list[list[float]] = []

    def now(self) -> KindOnDegrees:
        """What is known now; what nothing was learned of is not asked for anew."""
        if self._found is None:
            self._alone = [costs.alone(kind) for costs, kind in self._on]
            changed = True
        else:
            changed = False
            for at, (costs, kind) in enumerate(self._on):
                steps_s = [cost.step_s for cost in kind.step_costs or ()]
                if steps_s != self._steps_s[at]:
                    self._alone[at] = costs.alone(kind)
                    changed = True
        if self._found is None or changed or self._degrees[0] > 1:
            self._steps_s = [kind.steps_s for _, kind in self._on]
            one = self._alone[0] if self._degrees[0] == 1 else self._one.alone(self._kind)
            alone, finishes = list(self._alone), [True] * len(self._alone)
            if self._kind.mixes:
                for at, (degree, of) in enumerate(zip(self._degrees, alone, strict=True)):
                    together = of.decode_s < one.decode_s and degree * of.decode_s <= _TOGETHER * one.decode_s
                    finishes[at] = degree == 1 or together
                    alone[at] = of if finishes[at] else of._replace(decode_s=one.decode_s)
            self._found = KindOnDegrees(self._kind, one, self._degrees, tuple(alone), tuple(finishes))
        return self._found


class DegreeCosts:
    """What batches cost on some of a replica's devices: `policies.scheduling.mixing.BatchCosts` for each degree.

    Attributes:
        devices: of a replica.
        one: on one device.
    """

    def __init__(self, replica: Replica) -> None:
        self.devices = replica.pool.devices
        self._costs = replica.costs
        self._on = {1: replica.batch_costs if self.devices == 1 else BatchCosts(OnDevices(replica.costs, 1))}
        self.one = self._on[1]
        self._offered: dict[str, tuple[int, ...]] = {}
        self._kinds: dict[JobKind, _Kind] = {}
        self._now: dict[JobKind, KindOnDegrees] = {}
        self._observed = 0

    def renew(self) -> None:
        """Something may have been learned since `of` was asked."""
        if self._costs.learns and (not self._costs.observed or self._costs.observed != self._observed):
            self._observed = self._costs.observed
            self._now.clear()

    def of(self, job: Job) -> KindOnDegrees:
        """What a job takes alone, at every degree; asked for once until it is renewed."""
        found = self._now.get(job.kind)
        return self._ask(job) if found is None else found

    def _ask(self, job: Job) -> KindOnDegrees:
        known = self._kinds.get(job.kind)
        if known is None:
            degrees = self.offered(job)
            on = [(self.on(degree), self.on(degree).kind(job)) for degree in degrees]
            known = self._kinds[job.kind] = _Kind(self.one, self.one.kind(job), degrees, on)
        found = self._now[job.kind] = known.now()
        return found

    def offered(self, job: Job) -> tuple[int, ...]:
        """The degrees that a job can run at here, ascending; one that mixes with no other has one, all devices."""
        if not job.mixes:
            return (self.devices,)
        model = job.request.model
        found = self._offered.get(model)
        if found is None:
            found = tuple([each for each in self._costs.degrees(model) if each <= self.devices])
            self._offered[model] = found
        return found

    def on(self, degree: int) -> BatchCosts:
        """What batches cost on so many devices."""
        found = self._on.get(degree)
        if found is None:
            found = self._on[degree] = BatchCosts(OnDevices(self._costs, degree))
        return found

    def step_s(self, jobs: Sequence[Job], degree: int) -> float:
        """Predicted seconds of a denoising step of some jobs together."""
        costs = self.on(degree)
        return costs.step_s(costs.batch(jobs))

    def seconds(self, job: Job, denoise_left: int, degree: int) -> float:
        """Predicted seconds that a job needs alone at a degree, with so many denoising steps left; with all, new."""
        of_kind = self.of(job)
        alone = of_kind.alone[of_kind.degrees.index(degree)]
        begun = denoise_left < job.denoise_steps
        return (0.0 if begun else alone.encode_s) + denoise_left * alone.step_s + alone.decode_s

    def finishes_together(self, job: Job, degree: int) -> bool:
        """Whether all devices of a job's unit finish it: where that takes hardly more device time than one does."""
        if degree == 1 or not job.mixes:
            return True
        of_kind = self.of(job)
        return of_kind.finishes[of_kind.degrees.index(degree)]


class Unit:
    """Requests that run together on so many devices, until one of them ends or the policy wants it otherwise.

    Args:
        jobs: the requests; several run on one device.
        degree: how many devices.
        step_s: predicted seconds of a denoising step.
        left: denoising steps that each of them has left.
        encode_s: predicted seconds until all can take such steps.
        most_steps: denoising steps after which it is over; None: it has no such end.

    Attributes:
        jobs, degree, step_s, encode_s: as given.
        begun_s: when its first launch began; None before.
        finishes: whether all its devices finish what has taken its last step; else one is enough for that.
    """

    __slots__ = ("_last", "_left", "begun_s", "degree", "encode_s", "finishes", "jobs", "step_s")

    def __init__(
        self,
        jobs: tuple[Job, ...],
        degree: int,
        step_s: float,
        left: Sequence[int],
        encode_s: float = 0.0,
        most_steps: int | None = None,
    ) -> None:
        self.jobs = jobs
        self.degree = degree
        self.step_s = step_s
        self.encode_s = encode_s
        self.begun_s: float | None = None
        self.finishes = degree == 1
        self._left = tuple(left)
        self._last = -1 if most_steps is None else self._left[0] - most_steps or -1

    @property
    def over(self) -> bool:
        """Whether it has run as far as it was to: a request has ended, or needs fewer devices from now on."""
        for job in self.jobs:
            if job.ended or (job.finishing and not self.finishes):
                return True
        job = self.jobs[0]
        return job.state != "running" and job.denoise_left <= self._last

    @property
    def idle(self) -> bool:
        """Whether none of its requests is in a launch."""
        return "running" not in [job.state for job in self.jobs]

    def begin(self, now: float) -> None:
        """Its first launch begins."""
        if self.begun_s is None:
            self.begun_s = now
            self._left = tuple([job.denoise_left for job in self.jobs])

    def prepared(self, now: float) -> bool:
        """Whether its first denoising step has begun, as predicted when it began."""
        return self.begun_s is not None and now >= self.begun_s + self.encode_s

    def done(self) -> int:
        """How many denoising steps the first of its requests has done in it, which is in no launch."""
        return self._left[0] - (0 if self.jobs[0].ended else self.jobs[0].denoise_left)

    def left(self, now: float) -> tuple[int, ...]:
        """How many denoising steps each of its requests has left, as predicted when it began."""
        if self.begun_s is None or self.step_s <= 0.0:
            return self._left
        done = math.floor((now - self.begun_s - self.encode_s) / self.step_s + _ROUNDING)
        return tuple([max(0, left - done) for left in self._left]) if done > 0 else self._left

    def decision(self) -> Decision:
        """Its next launch."""
        if len(self.jobs) > 1:
            return next_quantum(self.jobs)._replace(devices=self.degree)
        job = self.jobs[0]
        steps = job.steps_left
        if not self.finishes and not job.finishing:
            steps -= job.kind.finish_steps  # which run on one device
        if job.denoise_left > self._last > 0:
            steps = min(steps, job.preparing + job.denoise_left - self._last)
        return Decision(self.jobs, max(1, steps), devices=self.degree)


class _Node:
    """What is kept of one replica.

    Attributes:
        units: what it is to work on.
        news: whether something has happened that has not been thought about.
        moved: whether requests there have come further or have ended, so that units may be over.
        broken: launches of units that are no more.
        left: denoising steps that requests have left whose unit was broken, until their launch has ended.
    """

    __slots__ = ("broken", "left", "moved", "news", "replica", "units")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.units: list[Unit] = []
        self.news = True
        self.moved = False
        self.broken: list[int] = []
        self.left: dict[Job, int] = {}


class ElasticPolicy(SchedulingPolicy):
    """Base of policies that choose degrees; `assign` must be written.

    Attributes:
        waiting: requests never started, in order of arrival.
    """

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self.costs = DegreeCosts(cluster.replicas[0])
        self.waiting: dict[Job, None] = {}
        self._nodes = {replica.index: _Node(replica) for replica in cluster.replicas}

    def assign(self, replica: Replica, units: Sequence[Unit], now: float) -> tuple[list[Unit], list[tuple[Job, str]]]:
        """What a replica is to work on from now on, in the order in which it is to begin; and what to drop.

        Args:
            replica: which; what is resident there and in no unit may go on.
            units: what it works on; one that is not in the answer ends at its next step boundary.
            now: seconds.
        """
        raise NotImplementedError

    def due(self, replica: Replica, now: float) -> bool:
        """Whether a replica is to be thought about although nothing has happened: then `wakeup` has said so."""
        return False

    def left(self, job: Job) -> int:
        """Denoising steps left of a job that is in no unit, when its launch has ended if it is in one."""
        node = self._nodes.get(job.replica)
        return job.denoise_left if node is None else node.left.get(job, job.denoise_left)

    def prepares(self, job: Job) -> bool:
        """Whether a job that is in no unit is still to be encoded, when its launch has ended if it is in one."""
        node = self._nodes.get(job.replica)
        return job.preparing and (node is None or job not in node.left)

    def room(self, replica: Replica) -> int:
        """How many devices of a replica are free or have launches of its own: all, but where others use it in turn."""
        return replica.free_devices + sum([len(launch.devices) for launch in replica.launches])

    def closed(self, unit: Unit, now: float) -> None:
        """A unit is over."""

    def tell(self) -> None:
        """Let every replica be thought about."""
        for node in self._nodes.values():
            node.news = node.moved = True

    def arrived(self, job: Job, now: float) -> None:
        self.waiting[job] = None
        self.tell()

    def returned(self, job: Job, now: float) -> None:
        node = self._nodes[job.replica]
        node.left.pop(job, None)
        node.moved = True

    def ended(self, job: Job, now: float) -> None:
        self.waiting.pop(job, None)
        if job.replica >= 0:
            node = self._nodes[job.replica]
            node.left.pop(job, None)
            node.news = node.moved = True
        else:
            self.tell()

    def replica_down(self, replica: Replica, now: float) -> None:
        node = self._nodes[replica.index]
        for unit in node.units:
            self.waiting.update(dict.fromkeys([job for job in unit.jobs if job.state == "waiting"]))
        self._nodes[replica.index] = _Node(replica)
        self.tell()

    def replica_up(self, replica: Replica, now: float) -> None:
        self.tell()

    def plan(self, replica: Replica, now: float) -> Decision | None:
        node = self._nodes[replica.index]
        if drop := self._think(node, now):
            for job, _ in drop:
                self.waiting.pop(job, None)
            return Decision(drop=tuple(drop))
        free = replica.free_devices
        pending = None
        for unit in node.units:  # what has begun goes on where it is
            if unit.degree <= free and unit.idle:
                if unit.begun_s is not None:
                    return unit.decision()
                pending = pending or unit
        if pending is None:
            return None
        pending.begin(now)
        return pending.decision()

    def recalls(self, now: float) -> list[int]:
        named: list[int] = []
        for node in self._nodes.values():
            if node.replica.up and self._think(node, now):  # who is late is dropped when a step ends, whoever's it is
                node.news = True
                node.broken += [launch.launch_id for launch in node.replica.launches]
            if node.broken:
                running = {launch.launch_id: launch.steps for launch in node.replica.launches}
                named += [launch_id for launch_id in node.broken if running.get(launch_id, 1) > 1]
                node.broken = []
        return named

    def _think(self, node: _Node, now: float) -> list[tuple[Job, str]]:
        """Let a replica be thought about, if it is to be; what is to be dropped."""
        if node.moved:
            node.moved = False
            self.costs.renew()
            for unit in [unit for unit in node.units if unit.over]:
                node.units.remove(unit)
                self.closed(unit, now)
                self.waiting.update(dict.fromkeys([job for job in unit.jobs if job.state == "waiting"]))
                node.news = True
        if not (node.news or self.due(node.replica, now)):
            return []
        node.news = self.room(node.replica) < self.costs.devices
        self.costs.renew()
        kept = node.units
        units, drop = self.assign(node.replica, tuple(kept), now)
        for unit in kept:
            if unit not in units:
                self._break(node, unit, now)
        node.units = units
        for unit in units:
            unit.finishes = self.costs.finishes_together(unit.jobs[0], unit.degree)
            for job in unit.jobs:
                self.waiting.pop(job, None)
        return drop

    def _break(self, node: _Node, unit: Unit, now: float) -> None:
        """A unit ends at its next step boundary."""
        for job, left in zip(unit.jobs, unit.left(now), strict=True):
            if job.state == "waiting":
                self.waiting[job] = None
            elif job.state == "running" and job not in node.left:
                node.left[job] = max(0, left - unit.prepared(now))  # the step that it is in ends
        node.broken += [launch.launch_id for launch in node.replica.launches if set(launch.jobs) & set(unit.jobs)]


def held(units: Iterable[Unit]) -> set[Job]:
    """The requests of some units."""
    return {job for unit in units for job in unit.jobs}
