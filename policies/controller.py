"""The controller: a state machine without a clock, a thread or a device.

A driver tells it what happened and when; it answers with work to start. It is the only caller of the scheduling
policy and the only writer of job states, so that a simulation and a real replay that report the same events get
the same decisions. The trap it avoids: in every simulator of a neighbouring field the simulated policy is a
second implementation that drifts from the real one.

Times are seconds, as floats, on one clock of the driver's choice that never runs backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from policies import answers
from policies.audit import Audit, Writer
from policies.cluster import ClusterState, QueueState, set_up
from policies.contract import (
    Decision,
    Launch,
    LaunchWork,
    Outcome,
    Policy,
    Replica,
    SchedulingPolicy,
    composition_of_jobs,
    guided_share,
    joined,
)
from policies.guard import fail, has_own, is_users, read
from policies.job import Job, Leg, through
from policies.legs import Legs
from policies.pool import Pool
from policies.router import Router
from policies.routing import RoutingPolicy, Shared, usual_routing
from policies.rules import Rules
from policies.run_arrays import STATUSES
from policies.scaler import Members, Scaler
from policies.scaling.elastic import Lifetime, Resize
from policies.scheduling.finishing import Finishing
from predictors.costs import Batch, CostModel, FixedCost, StepCost
from predictors.loading import LoadTimes, Weights
from traces.request import Request
from traces.stages import ORDINARY, RECEIVE, STAGES, Recipe

LaunchRecord = tuple[Launch, Outcome, float]
_StepCosts = tuple[StepCost, ...]
"""What the costs say of each stage of a launch's work."""
_Work = tuple[LaunchWork, _StepCosts, tuple[float, ...]]
"""What launches compute, what the costs say of it, and the seconds of a step of each stage; (): they must be asked."""
_Place = tuple[Replica, dict[str, Job], QueueState]
"""Where a launch runs: the replica, what is resident there, the queue it draws from."""

IN_FLIGHT = ("restart", "resume", "fail")
"""What may become of the requests on a replica that fails: begin again; go on elsewhere from their last step, for which
their latents must have been kept (tiled ones begin again); fail with it."""

_MOST_KNOWN = 100_000
_new = tuple.__new__  # of a named tuple, it takes a third of the time that its class takes
_FIELDS = len(Decision._fields)

_FIRST = (0,)
_MOVING = frozenset(STAGES.named(lambda stage: stage.moves))
_LOADING = LaunchWork(Batch("", (), 0.0), (("load", 1),))

REPLICA_FAILED = "its replica failed"
REPLICA_CAME = "another replica came"


class Controller:
    """Runs a scheduling policy over pools of replicas, to which a routing policy brings the requests.

    Under a routing policy that binds, every replica has a queue and a scheduling policy of its own; under one that does
    not, all of a pool draw from one queue; see `policies.router`.

    Args:
        policy: copied, so one policy object can serve many runs at once.
        pools: the replicas, with what the policies may know about their costs; costs alone are those of one pool.
        replicas: how many there are, where ``pools`` are costs.
        recipe: what a request goes through, as `policies.tiling.recipe.TilingRule.stages` says; or the stages of an
            ordinary request that every one goes through. Where weights are loaded it may begin with its adapters.
        on_event: called with (verb, payload, now) for every event and answer, in order; see `policies.events`.
        weights: of the replicas, where ``pools`` are costs, see `policies.pool.Pool`; of several pools all have
            weights or none.
        loaded: checkpoints that lie on each replica from the beginning; empty: none on any.
        routing: copied; None: what the scheduling policy is used with.
        legs: of requests; None: by the stages that the pools serve.

    Attributes:
        jobs: every job ever submitted, in order of submission; a request whose replica failed has several, and so has
            one that was routed again before it started, or that has several legs.
        launched: (launch, outcome, end time in seconds) of every launch that ended.
        open: requests not ended.
        answered: ids of requests that have ended since the driver last took them out; None: it does not ask.
        outages: [replica, from, to] in seconds of every failure, in order; one not repaired by the end ends with None,
            one given up where it is.
    """

    def __init__(
        self,
        policy: SchedulingPolicy,
        pools: Sequence[Pool] | CostModel,
        replicas: int = 1,
        recipe: Callable[[Request], Recipe] | tuple[str, ...] = ORDINARY,
        on_event: Callable[[str, Any, float], None] | None = None,
        weights: Weights | None = None,
        loaded: Sequence[Sequence[str]] = (),
        routing: RoutingPolicy | None = None,
        legs: Legs | None = None,
    ) -> None:
        # At most 30 attributes: Python finds those of an object with more of them slower, see the tests.
        self.recipe = through(recipe) if isinstance(recipe, tuple) else recipe
        self.jobs: list[Job] = []
        self.launched: list[LaunchRecord] = []
        self.open = 0
        self.outages: list[tuple[int, float, float | None]] = []
        self.answered: list[str] | None = None
        if isinstance(pools, CostModel):
            pools = [Pool(pools, replicas, weights=weights)]
        replicas = sum([pool.replicas for pool in pools])
        self._legs = Legs(pools) if legs is None and any(pool.stages for pool in pools) else legs
        if routing is None:
            routing = usual_routing(policy) if replicas > 1 else Shared()
        self._loads = None
        held = [pool.weights for pool in pools for _ in range(pool.replicas) if pool.weights is not None]
        if held:
            loaded = [*loaded, *[()] * (replicas - len(loaded))]
            self._loads = LoadTimes(held, loaded)
        binds = answers.truth(routing, read(routing, "binds"), "binds")
        self._cluster = cluster = ClusterState(pools, binds, self._loads)
        self._replicas = cluster.view.replicas
        places = zip(self._replicas, cluster.resident, cluster.queues, strict=True)
        self._places: dict[int, _Place] = {1 << index: place for index, place in enumerate(places)}
        self._occupancy = cluster.occupancy
        for here, checkpoints in zip(cluster.loaded, loaded, strict=False):
            here.update(dict.fromkeys(checkpoints))
        self._running: dict[int, _StepCosts] = {}
        self._recalled: set[int] = set()
        self._own_recalls: list[int] = []
        self._next_launch = 0
        self._known: dict[Pool, dict[tuple[Any, ...], _Work]] = {pool: {} for pool in pools}
        self._on_event = on_event
        self._learns = any(pool.costs.learns for pool in pools)
        self._rules = Rules(cluster, self._loads)
        self._preloaded = loaded
        self._scaler = self._scaler_of(pools, binds)
        self._finishing: dict[int, QueueState] = {}  # of replicas that begin nothing any more
        scaling = [] if self._scaler is None else [pool.elastic.policy for pool in pools if pool.elastic is not None]
        users = [each for each in (policy, routing, *scaling) if is_users(each)]
        self._audit = Audit(cluster, users) if users else None
        self._write = Writer() if self._audit is None else self._audit.writer
        self._router = Router(cluster, policy, routing if binds or len(pools) > 1 else None, on_event)
        self._changed = self._router.changed
        self._recalls, self._returns = (has_own(self.policy, hook) for hook in ("recalls", "returned"))

    def _scaler_of(self, pools: Sequence[Pool], binds: bool) -> Scaler | None:
        """What looks after the replicas that come and go; those that are not there yet take no work."""
        cluster = self._cluster
        members = [
            Members(pool, pool.elastic, [replica for replica in self._replicas if replica.pool is pool])
            for pool in pools
            if pool.elastic is not None
        ]
        if not members:
            return None
        queues = {index: queue.waiting for index, queue in enumerate(cluster.queues)} if binds else {}
        scaler = Scaler(members, queues, len(self._replicas))
        for index, state in scaler.states.items():
            if state != "ready":
                cluster.loaded[index].clear()
                set_up(self._replicas[index], False)
                cluster.occupancy.up &= ~(1 << index)
                cluster.occupancy.free &= ~(1 << index)
        return scaler

    @property
    def policy(self) -> SchedulingPolicy:
        """The scheduling policy that runs, or of several copies the first."""
        return self._router.queues[0].policy

    @property
    def scales(self) -> bool:
        """Whether replicas come and go, so that a driver must ask for `resizes`."""
        return self._scaler is not None

    @property
    def gave_up(self) -> Policy | None:
        """The scaling policy of a pool that has no replica, and wants none; None: there is no such pool."""
        return None if self._scaler is None else self._scaler.gave_up

    @property
    def lifetimes(self) -> list[Lifetime]:
        """When all replicas were ordered, ready and gone, where some come and go."""
        return [] if self._scaler is None else self._scaler.lifetimes

    def state_of(self, index: int) -> str:
        """The state of a replica, as of `policies.scaler`; one that neither comes nor goes is ready."""
        return "ready" if self._scaler is None else self._scaler.states.get(index, "ready")

    @contextmanager
    def audited(self) -> Iterator[None]:
        """For a driver, around a whole run: `check_unwritten` in the end, and where the run breaks off.

        Raises:
            PolicyError: a policy has written; that is said rather than what has come of it.
        """
        try:
            yield
        except Exception:
            self.check_unwritten()
            raise
        self.check_unwritten()

    def check_unwritten(self) -> None:
        """Whether a user's policy has written to what it may only read, so far.

        Raises:
            PolicyError: one has.
        """
        if self._audit is not None:
            self._audit.check()

    def submit(self, request: Request, now: float) -> None:
        """A request arrived."""
        job = self._job(request)
        if self._on_event:
            self._on_event("submit", job, now)
        if request.request_id in self._cluster.jobs:
            raise ValueError(f"request {request.request_id!r} was submitted twice")
        self._add(job, now)

    def _job(self, request: Request, earlier: Job | None = None) -> Job:
        recipe = self.recipe(request)
        if self._loads is None and self._legs is None:
            return Job(request, len(self.jobs), recipe, earlier)
        if self._loads is not None and STAGES[recipe[0][0]].weights:
            return Job(request, len(self.jobs), recipe[1:], earlier, adapters=recipe[0][1])
        if self._legs is not None:
            return self._leg(request, 0, request.arrival_s, earlier)
        return Job(request, len(self.jobs), recipe, earlier)

    def _leg(self, asked: Request, number: int, now: float, earlier: Job | None) -> Job:
        """One of the legs of a request."""
        assert self._legs is not None
        recipes = self._legs.recipes(asked, self.recipe(asked))
        leg = Leg(number, recipes[number + 1 :], asked)
        return Job(self._legs.part(leg, now), len(self.jobs), recipes[number], earlier, leg=leg)

    def pass_on(self, now: float) -> list[Job]:
        """Let the requests whose legs are done arrive where they go on; their jobs there, in the order of those legs.

        `launches` does it first, so that a driver need not.
        """
        legs = self._legs
        if legs is None or not legs.passing:
            return []
        passing, legs.passing = sorted(legs.passing, key=lambda job: job.order), []
        if self._on_event:
            self._on_event("pass", passing, now)
        self.open -= len(passing)
        arrived = []
        for job in passing:
            assert job.leg is not None
            arrived.append(self._leg(job.asked, job.leg.number + 1, now, job))
            self._add(arrived[-1], now)
        return arrived

    def _add(self, job: Job, now: float) -> None:
        cluster, name = self._cluster, job.request.request_id
        self.jobs.append(job)
        if self._audit is not None:
            self._audit.submitted(job)
        self.open += 1
        cluster.jobs[name] = job
        cluster.waiting[name] = job
        self._router.arrived(job, now)

    def cancel(self, request_id: str, now: float, reason: str = "the client left") -> None:
        """Give a request up. A running one ends at the next step boundary, the others of its batch go on."""
        self.pass_on(now)
        if self._on_event:
            self._on_event("cancel", (request_id, reason), now)
        job = self._cluster.jobs.get(request_id)
        if job is None:
            return
        if job.state == "running":
            self._write.cancel_soon(job, reason)
            launches = self._replicas[job.replica].launches
            self._own_recalls += [launch.launch_id for launch in launches if job in launch.jobs]
        else:
            self._end(job, "cancelled", reason, now)

    def launches(self, now: float) -> list[Launch]:
        """Work to start now."""
        if self._legs is not None:
            self.pass_on(now)
        started: list[Launch] = []
        waiting, router, occupancy = self._cluster.waiting, self._router, self._occupancy
        left, unbound, binds = occupancy.free, router.unbound, router.binds
        if occupancy.leaving:
            left &= occupancy.holding | ~occupancy.leaving
        while True:
            anyone = unbound or (waiting and not binds)
            asked = left if anyone else left & (occupancy.holding | occupancy.queued)
            if not asked:
                break
            lowest = asked & -asked
            left ^= lowest
            place = self._places[lowest]
            replica, resident, queue = place
            policy, queued = queue.policy, queue.waiting
            if binds and not queued:
                occupancy.queued &= ~lowest
            while queued or resident or (unbound and router.bind_oldest(queue, now)):
                try:
                    decision = policy.plan(replica, now)
                except BaseException as error:
                    fail(policy, "plan", error)
                if decision is not None:
                    launch = self._carry_out(place, decision, now)
                    if launch is not None:
                        started.append(launch)
                        if not occupancy.free & lowest:
                            break
                elif not (unbound and router.bind_oldest(queue, now)):
                    break
        if self._on_event:
            self._on_event("launches", started, now)
        return started

    def _carry_out(self, place: _Place, decision: Decision, now: float) -> Launch | None:
        """What a decision starts; None: it only drops."""
        replica, resident, queue = place
        policy = queue.policy
        if type(decision) is not Decision or len(decision) != _FIELDS:
            decision = answers.decision(policy, decision)
        jobs, steps, drop, load, anew, devices = decision
        if load is not None:
            self._drop(policy, drop, now)
            return self._start_loading(place, decision, now)
        if type(jobs) is not tuple or type(steps) is not int:
            jobs, steps = answers.batch(policy, jobs, steps)
        if anew is not True and anew is not False:
            anew = answers.truth(policy, anew, "plan with anew =")
        if jobs:
            self._rules.check_batch(queue, replica, jobs, steps)
            if self._router.heeds_plans and (anew or any(job.state == "waiting" for job in jobs)):
                self._router.planned(replica, resident, jobs, now)
        if type(drop) is not tuple or drop or not jobs:
            if self._drop(policy, drop, now) and not jobs:
                return None
            self._rules.check_batch(queue, replica, jobs, steps)  # what was dropped does not run
        if devices is None and replica.pool.devices == 1:
            return self._start(place, jobs, steps, now)
        return self._start(place, jobs, steps, now, self._rules.devices(queue.policy, replica, jobs, devices))

    def recalls(self, now: float) -> list[int]:
        """Ids of running launches to end at their next step boundary; each is named once."""
        if not (self._recalls or self._own_recalls or self._on_event):
            return []
        wanted: list[int] = []
        running = self._running
        for queue in self._router.recalling():
            policy = queue.policy
            try:
                launch_ids = policy.recalls(now)
            except BaseException as error:
                fail(policy, "recalls", error)
            if type(launch_ids) is tuple or type(launch_ids) is list:
                for launch_id in launch_ids:
                    if type(launch_id) is not int or launch_id not in running:
                        break
                    wanted.append(launch_id)
                else:
                    continue
            wanted += answers.launch_ids(policy, launch_ids, self._next_launch)
        if not (wanted or self._own_recalls or self._on_event):
            return []
        if self._own_recalls:
            wanted += self._own_recalls
            self._own_recalls = []
        named: list[int] = []
        for launch_id in wanted:
            if launch_id in running and launch_id not in self._recalled:
                self._recalled.add(launch_id)
                named.append(launch_id)
        if self._on_event:
            self._on_event("recalls", named, now)
        return named

    def resizes(self, now: float) -> list[Resize]:
        """Which replicas are to come and go; to be asked after `launches`, which are to be asked for again if any are.

        A driver starts and stops them, and tells `replica_ready` and `replica_stopped`; all else is done.
        """
        scaler = self._scaler
        if scaler is None:
            return []
        seen = len(self.jobs), self.open, len(self._cluster.waiting)
        found = scaler.resizes(self._router.jobs_of, seen, now)
        if found:
            if self._on_event:
                self._on_event("resizes", found, now)
            self._resize(found, now)
        return found

    def follow(self, resizes: Sequence[Resize], now: float) -> None:
        """In the place of `resizes`, where decisions are told: what came of it in the run of which this is the record.

        What launches where is told, too; so all replicas take requests, whatever has become of them.
        """
        assert self._scaler is not None
        self._scaler.follow(resizes, now)
        for index, change in resizes:
            if change == "stop":
                self._empty(index)
                self._end_outage(index, now)

    def _resize(self, resizes: Sequence[Resize], now: float) -> None:
        """Let what is to become of replicas become of the requests there."""
        assert self._scaler is not None
        leaving = [index for index, change in resizes if change in ("drain", "stop") and self._replicas[index].up]
        for index in leaving:
            self._set_present(index, False)
        for index in leaving:
            self._router.replica_down(self._replicas[index], now)
        for index, change in resizes:
            if change == "drain":
                self._finish(index)
            elif change == "resume":
                self._leave_finishing(index)
                if self._scaler.works(index):
                    self._take_part(index, now)
            elif change == "stop":
                self._leave_finishing(index)
                self._empty(index)
                self._end_outage(index, now)

    def _set_present(self, index: int, present: bool) -> None:
        """Let a replica take requests, or no longer."""
        occupancy, bit = self._occupancy, 1 << index
        self._write.set_up(self._replicas[index], present)
        if present:
            occupancy.up |= bit
            if self._replicas[index].free_devices:
                occupancy.free |= bit
        else:
            occupancy.up &= ~bit
            occupancy.free &= ~bit

    def _take_part(self, index: int, now: float) -> None:
        """Let a replica take requests, those too that wait for others: they are routed again, the oldest first."""
        self._set_present(index, True)
        again = self._router.replica_up(self._replicas[index], now)
        for job in again:
            self._end(job, "rerouted", REPLICA_CAME, now)
        for job in again:
            self._add(Job(job.request, len(self.jobs), job.recipe, job.earlier, job.adapters_left, job.leg), now)

    def _finish(self, index: int) -> None:
        """Let a replica finish what it has, and begin nothing."""
        occupancy, bit, resident = self._occupancy, 1 << index, self._cluster.resident[index]
        if occupancy.leaving & bit:
            return
        queue = self._finishing.get(index)
        if queue is None:
            queue = self._finishing[index] = QueueState()
            queue.bits, queue.pool, queue.policy = bit, self._replicas[index].pool, Finishing()
            queue.jobs = resident
        occupancy.leaving |= bit
        replica = self._replicas[index]
        if replica.free_devices:
            occupancy.free |= bit
        self._own_recalls += [launch.launch_id for launch in replica.launches]  # what runs beside it may join now
        self._places[bit] = self._replicas[index], resident, queue
        queue.instead_of, self._cluster.queues[index] = self._cluster.queues[index], queue

    def _leave_finishing(self, index: int) -> None:
        """A replica has nothing left to finish."""
        occupancy, bit = self._occupancy, 1 << index
        if occupancy.leaving & bit:
            occupancy.leaving &= ~bit
            occupancy.free &= ~bit
            queue = self._cluster.queues[index] = self._finishing[index].instead_of
            if queue.waiting:
                occupancy.queued |= bit
            self._places[bit] = self._replicas[index], self._cluster.resident[index], queue

    def _empty(self, index: int) -> None:
        """A replica is gone, and what was loaded there."""
        self._cluster.loaded[index].clear()
        if self._loads is not None:
            self._loads.lost(index)

    def replica_ready(self, index: int, now: float) -> None:
        """A replica that was to start takes requests from now on, unless it was given up meanwhile."""
        if self._on_event:
            self._on_event("ready", index, now)
        assert self._scaler is not None
        if not self._scaler.ready(index, now):
            return
        if self._loads is not None:
            self._cluster.loaded[index].update(dict.fromkeys(self._preloaded[index]))
            self._loads.came(index)
        self._take_part(index, now)

    def replica_stopped(self, index: int, now: float) -> None:
        """A replica that was to stop is there no longer."""
        if self._on_event:
            self._on_event("stopped", index, now)
        assert self._scaler is not None
        self._scaler.gone(index, now)

    def complete(self, launch: Launch, outcome: Outcome, now: float) -> None:
        """A launch ended, whole or early, well or with failures."""
        if self._on_event:
            self._on_event("complete", (launch.launch_id, outcome), now)
        launch_id, index, jobs, _, _, steps_asked, _, load, _ = launch
        steps, failed, _, _, _, _, notes, _ = outcome
        step_costs = self._running.pop(launch_id, None)
        if step_costs is None:
            raise ValueError(f"launch {launch_id} is not running")
        if not 0 <= steps <= steps_asked:
            raise ValueError(f"launch {launch_id} did {steps} of {steps_asked} steps")
        self._recalled.discard(launch_id)
        queue = self._cluster.queues[index]
        self._changed[queue] = None
        own_steps = steps
        if self._loads is not None or launch.work.stages[0][0] in _MOVING:
            own_steps = self._own_steps(launch, steps)
        replica = self._replicas[index]
        if replica.beside:
            self._leave(replica, launch)
        else:
            self._write.set_launch(replica, None)
        self._occupancy.free |= 1 << index
        self.launched.append((launch, outcome, now))
        if load is not None:
            self._cluster.loaded[index][load.checkpoint] = None
            return
        if self._learns and steps and not failed:
            _learn(step_costs, launch, outcome, now)
        for job in jobs:
            if notes and (note := notes.get(job.request.request_id)):
                self._write.remark(job, joined(job.note, note))
            if failed and job.request.request_id in failed:
                self._end(job, "failed", failed[job.request.request_id], now)
            elif own_steps == job.steps_left and not (job.cancelling and job.passes_on):
                self._write.finish(job, now)
                self._ended(job, self._cluster.resident[index], now)
                if self._legs is not None and job.passes_on:
                    self._legs.passing.append(job)
                    self.open += 1
            else:
                self._write.rest(job, own_steps)
                if job.cancelling:
                    self._end(job, "cancelled", job.cancelling, now)
                elif self._returns:
                    policy = queue.policy
                    try:
                        policy.returned(job, now)
                    except BaseException as error:
                        fail(policy, "returned", error)

    def _leave(self, replica: Replica, launch: Launch) -> None:
        """A launch runs no longer."""
        beside = replica.beside
        if not beside:
            self._write.set_launch(replica, None)
            return
        *others, last = [other for other in replica.launches if other.launch_id != launch.launch_id]
        self._write.set_beside(replica, tuple(others))
        self._write.set_launch(replica, last)

    def _own_steps(self, launch: Launch, steps: int) -> int:
        """How many of a launch's first steps are its jobs' own."""
        if launch.work.stages[0][0] in _MOVING:
            steps = max(0, steps - launch.moving_steps)
        return steps if self._loads is None else self._write.adapt(launch.jobs, steps)

    def replica_down(
        self, index: int, now: float, in_flight: str = "restart", outcomes: Mapping[int, Outcome] = MappingProxyType({})
    ) -> None:
        """A replica failed: what lay on it is gone, and it gets no work until `replica_up`.

        Args:
            index: which.
            now: seconds.
            in_flight: what becomes of its requests, one of `IN_FLIGHT`.
            outcomes: how far its running launches had come, by their ids.
        """
        if self._on_event:
            self._on_event("down", (index, in_flight, outcomes), now)
        replica = self._replicas[index]
        served = self._scaler is None or self._scaler.failed(index)
        self._set_present(index, False)
        self.outages.append((index, now, None))
        self._empty(index)
        for launch in replica.launches:
            outcome = outcomes.get(launch.launch_id)
            if outcome is None:
                raise ValueError(f"replica {index} was running launch {launch.launch_id}, which has no outcome")
            self._leave(replica, launch)
            del self._running[launch.launch_id]
            self._recalled.discard(launch.launch_id)
            self.launched.append((launch, outcome, now))
            steps = self._own_steps(launch, outcome.steps_done)
            for job in launch.jobs:
                self._write.rest(job, steps)
        if served:
            self._router.replica_down(replica, now)
        again = []
        for job in list(self._cluster.resident[index].values()):
            if job.cancelling:
                self._end(job, "cancelled", job.cancelling, now)
            elif in_flight == "fail":
                self._end(job, "failed", REPLICA_FAILED, now)
            else:
                self._end(job, "lost", REPLICA_FAILED, now)
                again.append(job)
        for job in again:
            leg, asked = job.leg, job.asked
            samples = STAGES[job.kind.main].sampler  # of a leg that does not, no step is done that counts
            if in_flight == "resume" and samples and all(STAGES[stage].resumes for stage in job.stages):
                asked = replace(asked, steps=max(1, job.denoise_left))
            self._add(self._job(asked, job) if leg is None else self._leg(asked, leg.number, now, job), now)

    def replica_up(self, index: int, now: float) -> None:
        """A replica that had failed works again."""
        if self._on_event:
            self._on_event("up", index, now)
        self._end_outage(index, now)
        if self._scaler is not None and not self._scaler.repaired(index):
            return
        self._take_part(index, now)

    def _end_outage(self, index: int, now: float) -> None:
        """A replica that failed works again, or is given up."""
        for at in reversed(range(len(self.outages))):
            failed, down_s, up_s = self.outages[at]
            if failed == index and up_s is None:
                self.outages[at] = (index, down_s, now)
                break

    def wakeup(self, now: float) -> float | None:
        """When to ask again although nothing happened."""
        earliest_s = None
        if self._scaler is not None:
            earliest_s = self._scaler.wakeup_s
            if not self.open:
                return earliest_s
        for queue in self._router.queues:
            policy = queue.policy
            try:
                wakeup_s = policy.wakeup(now)
            except BaseException as error:
                fail(policy, "wakeup", error)
            if wakeup_s is not None:
                if type(wakeup_s) is not float or not -answers.LATEST_S < wakeup_s < answers.LATEST_S:
                    wakeup_s = answers.wakeup_s(policy, wakeup_s)
                if earliest_s is None or wakeup_s < earliest_s:
                    earliest_s = wakeup_s
        return earliest_s

    def resident_on(self, replica: int) -> list[str]:
        """Ids of the requests whose state lies on a replica; anything else it holds can be freed."""
        return list(self._cluster.resident[replica])

    def _start(
        self, place: _Place, jobs: tuple[Job, ...], steps: int, now: float, devices: tuple[int, ...] = _FIRST
    ) -> Launch:
        replica, resident, queue = place
        self._changed[queue] = None
        degree = None if replica.pool.devices == 1 else _degree(replica, jobs[0], len(devices))
        work, step_costs, predicted_step_s = self._work(replica, jobs, steps, degree)
        if self._loads is not None and (adapters := sum([job.adapters_left for job in jobs])):
            step_costs = (replica.costs.step_cost("adapt", work.batch), *step_costs)
            work = _after("adapt", adapters, work)
            steps += adapters
            predicted_step_s = ()
        if degree is not None:
            moves = any(job.devices and job.devices != devices for job in jobs) and _divides(replica, jobs[0])
            moving = replica.costs.step_cost("reshard", work.batch) if moves else None
            if moving is not None and moving.step_s > 0.0:
                step_costs = (moving, *step_costs)
                work = _after("reshard", 1, work)
                steps += 1
                predicted_step_s = ()
            for job in jobs:
                if job.devices != devices:
                    self._write.place(job, devices)
        if self._legs is not None and (handed := [job for job in jobs if job.receives and job.state == "waiting"]):
            received = Batch(jobs[0].request.model, composition_of_jobs(handed), guided_share(handed))
            step_costs = (replica.costs.step_cost(RECEIVE, received), *step_costs)
            work = _after(RECEIVE, 1, work)._replace(received=received)
            steps += 1
            predicted_step_s = ()
        index, launch_id = replica.index, self._next_launch
        if not predicted_step_s:
            predicted_step_s = tuple([cost.step_s for cost in step_costs])
        launch = _new(Launch, (launch_id, index, jobs, work, predicted_step_s, steps, now, None, devices))
        self._running[launch_id] = step_costs
        occupancy, bit = self._occupancy, 1 << index
        if degree is None and replica.launch is None:
            self._write.set_launch(replica, launch)
            occupancy.free &= ~bit
        else:
            self._begin(replica, launch)
        occupancy.holding |= bit
        self._next_launch = launch_id + 1
        waiting, queued = self._cluster.waiting, queue.waiting
        for job in jobs:
            if job.state == "waiting":
                name = job.request.request_id
                del waiting[name]
                if queued is not waiting:
                    del queued[name]
                resident[name] = job
                self._write.start(job, index, now)
            else:
                self._write.set_state(job, "running")
        return launch

    def _begin(self, replica: Replica, launch: Launch) -> None:
        """A launch runs from now on."""
        running = replica.launch
        if running is not None:
            self._write.set_beside(replica, (*replica.beside, running))
        self._write.set_launch(replica, launch)
        if len(launch.devices) == replica.pool.devices or not replica.free_devices:
            self._occupancy.free &= ~(1 << replica.index)

    def _work(self, replica: Replica, jobs: tuple[Job, ...], steps: int, degree: int | None) -> _Work:
        """What the next steps of a batch are, with what the costs of a replica answer."""
        first = jobs[0]
        kind, known = first.kind, self._known[replica.pool]
        alike: tuple[Any, ...] = (kind, len(jobs), first.steps_left, steps, degree)
        for job in jobs:
            if job.kind is not kind:
                composition, guided = composition_of_jobs(jobs), guided_share(jobs)
                alike = (kind, composition, guided, first.steps_left, steps, degree)
                break
        found = known.get(alike)
        if found is None:
            batch = Batch(first.request.model, composition_of_jobs(jobs), guided_share(jobs), degree)
            stages, costs = first.segments(steps), replica.costs
            degrees = () if degree is None else tuple([costs.degree(stage, batch) for stage, _ in stages])
            work = LaunchWork(batch, stages, degrees=degrees)
            step_costs = tuple([replica.costs.step_cost(stage, batch) for stage, _ in work.stages])
            found = work, step_costs, () if self._learns else tuple([cost.step_s for cost in step_costs])
            if len(known) < _MOST_KNOWN:
                known[alike] = found
        return found

    def _start_loading(self, place: _Place, decision: Decision, now: float) -> Launch:
        replica, resident, queue = place
        load = answers.load(queue.policy, decision.load)
        self._rules.check_load(queue.policy, replica, decision.jobs, load)
        devices = self._rules.devices(queue.policy, replica, (), decision.devices)
        assert self._loads is not None
        self._loads.seconds(replica.index, load.checkpoint)
        if self._router.heeds_plans:
            self._router.planned(replica, resident, (), now)
        for checkpoint in load.evict:
            del self._cluster.loaded[replica.index][checkpoint]
        launch = Launch(
            launch_id=self._next_launch,
            replica=replica.index,
            jobs=(),
            work=_LOADING,
            predicted_step_s=(load.expected_s,),
            steps=1,
            start_s=now,
            load=load,
            devices=devices,
        )
        self._next_launch += 1
        self._running[launch.launch_id] = (FixedCost(load.expected_s),)
        self._begin(replica, launch)
        return launch

    def _drop(self, policy: SchedulingPolicy, drop: tuple[tuple[Job, str], ...], now: float) -> int:
        """Drop what a decision drops; how many."""
        pairs = answers.drops(policy, drop)
        for job, reason in pairs:
            self._rules.check_drop(policy, job)
            if self._on_event:
                self._on_event("drop", (job.request.request_id, reason), now)
            self._end(job, "dropped", reason, now)
        return len(pairs)

    def _end(self, job: Job, state: str, reason: str, now: float) -> None:
        held = self._cluster.waiting if job.state == "waiting" else self._cluster.resident[job.replica]
        self._write.end(job, state, reason, now)
        self._ended(job, held, now)

    def _ended(self, job: Job, held: dict[str, Job], now: float) -> None:
        """A job has ended that was held there."""
        name = job.request.request_id
        del held[name]
        if not held and job.replica >= 0:
            self._occupancy.holding &= ~(1 << job.replica)
        del self._cluster.jobs[name]
        self.open -= 1
        if self.answered is not None and job.state in STATUSES:
            self.answered.append(name)
        self._router.ended(job, now)


def _after(stage: str, steps: int, work: LaunchWork) -> LaunchWork:
    """Work that begins with another stage, on one device."""
    return work._replace(stages=((stage, steps), *work.stages), degrees=work.degrees and (1, *work.degrees))


def _divides(replica: Replica, job: Job) -> bool:
    """Whether the steps of a job can be divided over devices of a replica, so that what lies of it can move there."""
    return job.mixes and len(replica.costs.degrees(job.request.model)) > 1


def _degree(replica: Replica, job: Job, devices: int) -> int:
    """On how many of so many devices the steps of a job's launch run."""
    if not job.mixes:
        return devices
    return max([degree for degree in replica.costs.degrees(job.request.model) if degree <= devices], default=1)


def _learn(step_costs: _StepCosts, launch: Launch, outcome: Outcome, now: float) -> None:
    """Tell the costs what the stages of a launch took."""
    start_s, left = launch.start_s, outcome.steps_done
    stages = zip(launch.work.stages, launch.predicted_step_s, step_costs, (*outcome.stage_ends_s, now), strict=False)
    for (_, steps), predicted_step_s, cost, end_s in stages:
        done = steps if steps < left else left
        if done <= 0:
            break
        cost.observe(predicted_step_s, (end_s - start_s) / done, done)
        left -= done
        start_s = end_s
