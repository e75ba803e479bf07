"""Several models on every replica: a scheduling policy that loads weights and has any other decide what runs.

A batch runs on one checkpoint with one set of adapters, a *variant* of the model. Each variant has a copy of the other
policy, which sees the requests for it and no others, on the replicas as they are (`policies.cluster.replica_for`). What
is decided here is whose turn it is on a replica that is idle, and what makes room when weights must be loaded.

The turn passes when a request of the variant that has it ends, or when it has nothing to run; then it goes to the
variant with the most urgent request of those whose weights are there. One that would have to be loaded waits until
nothing else is to do, or until waiting longer might make its most urgent request late. And a load has to pay: weights
that came for requests stay until they have been used for some time, while there is use for them. Both bounds are
``visit`` times what the load takes, so that of a replica with too much to do at most 1 / (1 + visit) goes into loading.

A request of another architecture that comes meanwhile and is more urgent than all that the turn is for, a picture among
clips, does not wait for the end of one: where its weights lie, the turn passes at the next step boundary, on the
replica whose own requests are due last, unless another replica is idle or runs requests like it.

A load binds no request: where several replicas draw from one queue, whoever has the weights first runs it. Weights that
lie on one of them are loaded on another only when so much waits for them that this copy pays, too.

Adapters bind no place: all that requests name lie beside the model, and to exchange them is taken to cost nothing here.
Where all checkpoints are always there, the model and the adapters tell variants apart; and where a pool serves stages
that do not follow each other (`policies.legs`), which of its legs a request is on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

from policies import answers
from policies.cluster import JobsFor, Variant, VariantOf, cluster_of, model_variant, replica_for, variant_of
from policies.contract import Cluster, Decision, Load, Policy, Replica, SchedulingPolicy
from policies.guard import ask, begun, broken, has_own, short
from policies.job import Job
from policies.weights.contract import WeightsPolicy
from policies.weights.cost import CostAware


class ModelSwapping(SchedulingPolicy):
    """Runs a scheduling policy for every variant: a checkpoint with a set of adapters.

    Each copy of the policy plans as if the replicas were its own, so what it believes about deadlines is too hopeful
    where several variants share one.

    Args:
        policy: the scheduling policy; copied.
        evict: which weights make room; copied; None: `CostAware`.
        soft_slo_scale: a request without a deadline is due this many times its standalone seconds after it came; one
            that cannot meet its deadline any more is due again so much later.
        visit: seconds of use, and of waiting, that a second of loading is worth.
    """

    usual_routing = "affinity"

    def __init__(
        self,
        policy: SchedulingPolicy,
        evict: WeightsPolicy | None = None,
        soft_slo_scale: float = 30.0,
        visit: float = 4.0,
    ) -> None:
        self.policy = policy
        self.evict = evict
        self.soft_slo_scale = soft_slo_scale
        self.visit = visit

    @property
    def blamed(self) -> Policy:
        """The policy that decides what runs."""
        return self.policy

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        loads = any(replica.weights is not None for replica in cluster.replicas)
        self._variant = variant_of if loads else model_variant
        self._models: dict[Variant, _Model] = {}
        self._on: dict[str, list[_Model]] = {}
        self._stale: dict[_Model, None] = {}  # those that have had news since they were last asked for recalls
        self._giving_way: dict[_Place, None] = {}
        self._wakes = has_own(self.policy, "wakeup")
        self._places = {replica.index: self._place(replica, 0.0) for replica in cluster.replicas}

    def _place(self, replica: Replica, now: float) -> _Place:
        place = _Place(replica, begun(CostAware() if self.evict is None else self.evict))
        for checkpoint in replica.loaded:
            place.tell("came", checkpoint, now)
        return place

    def arrived(self, job: Job, now: float) -> None:
        variant = self._variant(job)
        model = self._models.get(variant)
        if model is None:
            model = _Model(variant, self._variant, self.policy, self.cluster, self.soft_slo_scale, job.request.model)
            self._models[variant] = model
            self._on.setdefault(model.checkpoint, []).append(model)
        model.add(job, now)
        self._stale[model] = None
        ask(model.policy, "arrived", job, now)
        if len(self._models) > 1:
            self._give_way(model, job, now)

    def _give_way(self, model: _Model, job: Job, now: float) -> None:
        """Have the turn of less urgent requests of another architecture pass at the next step boundary; see above.

        What is asked of those that run is when they are due, not what they have left: that is known only where a launch
        ends, and launches end elsewhere when the same steps are grouped otherwise.
        """
        places = [place for place in self._places.values() if place.replica.up]
        busy = [place for place in places if place.replica.launch is not None]
        if len(busy) < len(places) or any(place.turn is model or place.passes for place in busy):
            return
        latest: tuple[tuple[float, int], _Place] | None = None
        for place in busy:
            turn = place.turn
            if (
                turn is None
                or turn.architecture == model.architecture
                or place.loading
                or not place.has(model.checkpoint)
            ):
                continue
            started = [held for held in place.replica.resident.values() if turn.owns(held)]
            if not started:
                continue
            due_s, order = min([(turn.requests[held].due_s, held.order) for held in started])
            if latest is None or (due_s, order) > latest[0]:
                latest = (due_s, order), place
        if latest is not None and (model.requests[job].due_s, job.order) < latest[0]:
            _, place = latest
            place.passes = True
            self._giving_way[place] = None

    def returned(self, job: Job, now: float) -> None:
        model = self._models[self._variant(job)]
        self._stale[model] = None
        ask(model.policy, "returned", job, now)

    def ended(self, job: Job, now: float) -> None:
        model = self._models[self._variant(job)]
        model.remove(job)
        self._stale[model] = None
        if job.replica >= 0:
            place = self._places[job.replica]
            place.passes |= job in place.running
        ask(model.policy, "ended", job, now)

    def replica_down(self, replica: Replica, now: float) -> None:
        self._places[replica.index] = _Place(replica, begun(CostAware() if self.evict is None else self.evict))
        for model in self._models.values():
            ask(model.policy, "replica_down", model.replicas[replica.index], now)

    def replica_up(self, replica: Replica, now: float) -> None:
        self._places[replica.index] = self._place(replica, now)
        for model in self._models.values():
            ask(model.policy, "replica_up", model.replicas[replica.index], now)

    def recalls(self, now: float) -> Sequence[int]:
        stale, self._stale = self._stale, {}
        for place in self._places.values():
            if place.turn is not None:
                stale[place.turn] = None
        if self._wakes:  # policies that look at the clock are asked always
            stale |= dict.fromkeys(self._models.values())
        named: list[int] = []
        for place in self._giving_way:
            launch = place.replica.launch
            if launch is not None:
                named.append(launch.launch_id)
        self._giving_way.clear()
        for model in stale:
            named += answers.launch_ids(model.policy, ask(model.policy, "recalls", now), math.inf)
        return named

    def wakeup(self, now: float) -> float | None:
        if not self._wakes:
            return None
        asked = [(model.policy, ask(model.policy, "wakeup", now)) for model in self._models.values() if model.requests]
        return min([answers.wakeup_s(policy, at_s) for policy, at_s in asked if at_s is not None], default=None)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        place = self._places[replica.index]
        if place.turn is not None and not place.passes and self._wants(place, place.turn):
            decision = self._ask(place, place.turn, now)
            if decision is not None:
                return decision
        place.end_turn(now)
        for model in self._order(place, now):
            decision = (self._ask if place.has(model.checkpoint) else self._load)(place, model, now)
            if decision is not None:
                return decision
        return None

    def _wanted(self, place: _Place, checkpoint: str) -> bool:
        """Whether requests for a checkpoint, with whatever adapters, wait for a replica, or have started there."""
        return any(self._wants(place, model) for model in self._on.get(checkpoint, ()))

    def _wants(self, place: _Place, model: _Model) -> bool:
        """Whether requests for a model wait for a replica, or have started there."""
        return bool(model.waiting) or any(model.owns(job) for job in place.replica.resident.values())

    def _order(self, place: _Place, now: float) -> list[_Model]:
        """Whose turn it is, the first first; see the module."""
        started: dict[_Model, list[Job]] = {}
        for job in place.replica.resident.values():
            started.setdefault(self._models[self._variant(job)], []).append(job)
        here: list[tuple[float, int, Job, _Model]] = []
        missing: list[tuple[float, int, Job, _Model]] = []
        for model in self._models.values():
            if not (model.waiting or model in started):
                continue
            due_s, order, job = model.most_urgent(started.get(model, ()), now)
            if place.has(model.checkpoint):
                here.append((due_s, order, job, model))
            elif model in started or self._pays(place, model):
                missing.append((due_s - place.replica.load_s(model.checkpoint), order, job, model))
        here.sort(key=_by_due)
        missing.sort(key=_by_due)
        models = [model for _, _, _, model in here + missing]
        if here and missing and _by_due(missing[0]) < _by_due(here[0]):
            due_s, _, job, model = missing[0]
            if due_s - model.left_s(job) < now + self.visit * place.replica.load_s(model.checkpoint):
                models.remove(model)
                models.insert(0, model)
        return models

    def _pays(self, place: _Place, model: _Model) -> bool:
        """Whether a copy of a model's weights on one replica more is worth its load."""
        copies = sum([other.holds(model.checkpoint) for other in self._places.values()])
        if not copies:
            return True
        waiting_s = sum([other.waiting_s() for other in self._on[model.checkpoint]])
        return waiting_s > copies * self.visit * place.replica.load_s(model.checkpoint)

    def _ask(self, place: _Place, model: _Model, now: float) -> Decision | None:
        """Ask the policy of a model whose weights are there; it has the turn if it runs anything."""
        answer = ask(model.policy, "plan", model.replicas[place.replica.index], now)
        if answer is None:
            return None
        decision = answers.decision(model.policy, answer)
        if decision.load is not None:
            raise broken(model.policy, f"loads {answers.load(model.policy, decision.load).checkpoint!r} itself")
        jobs, steps = answers.batch(model.policy, decision.jobs, decision.steps)
        for job in jobs:
            if type(job) is not Job or job not in model.requests:
                raise broken(model.policy, f"names {short(job)}, which is no job of its own that has not ended")
        anew = bool(jobs) and (model is not place.turn or place.loading)
        if jobs:
            if anew:
                place.begin_turn(model, now)
            place.passes, place.running = False, frozenset(jobs)
            for job in jobs:
                if job in model.waiting:
                    del model.waiting[job]
                    place.tell("used", model.checkpoint, now)
        return decision._replace(jobs=jobs, steps=steps, anew=anew or decision.anew)

    def _load(self, place: _Place, model: _Model, now: float) -> Decision | None:
        """Load a model, if there is room for it or what lies there has paid."""
        weights = place.replica.weights
        assert weights is not None
        loaded, evict = list(place.replica.loaded), []
        while not weights.fit([*loaded, model.checkpoint]):
            open_to = [held for held in loaded if not self._must_stay(place, held)]
            if not open_to:
                return None
            unwanted = [held for held in open_to if not self._wanted(place, held)]
            asked = unwanted or open_to
            victim = answers.victim(place.evict, ask(place.evict, "victim", tuple(asked), now), asked)
            loaded.remove(victim)
            evict.append(victim)
        for victim in evict:
            ask(place.evict, "left", victim)
        load_s = place.replica.load_s(model.checkpoint)
        place.tell("came", model.checkpoint, now)
        place.load_s[model.checkpoint], place.served_s[model.checkpoint] = load_s, 0.0
        place.begin_turn(model, now)
        place.loading = True
        return Decision(load=Load(model.checkpoint, tuple(evict), load_s))

    def _must_stay(self, place: _Place, checkpoint: str) -> bool:
        if not self._wanted(place, checkpoint):
            return False
        return place.served_s.get(checkpoint, 0.0) <= self.visit * place.load_s.get(checkpoint, 0.0)


@dataclass
class _Request:
    """What is kept of a job that has not ended: when it is due, and predicted seconds."""

    due_s: float
    patient: bool  # it has no deadline, or not any more
    seconds: Mapping[str, float]  # of a step of each stage
    alone_s: float


class _Model:
    """One variant: the policy that schedules its requests, and these.

    Attributes:
        checkpoint: its checkpoint.
        architecture: what its requests call their model.
        replicas: as the policy sees them, by index.
        policy: that one.
        requests: jobs that have not ended.
        waiting: of them, those that have not started.
    """

    def __init__(
        self,
        variant: Variant,
        of: VariantOf,
        policy: SchedulingPolicy,
        cluster: Cluster,
        soft_slo_scale: float,
        architecture: str,
    ) -> None:
        self.architecture = architecture
        self.checkpoint = variant[0]
        self.replicas = {replica.index: replica_for(replica, variant, of) for replica in cluster.replicas}
        self.requests: dict[Job, _Request] = {}
        self.waiting: dict[Job, None] = {}
        self._by_due: list[tuple[float, int, Job]] = []
        self._costs = cluster.replicas[0].costs
        self._soft_slo_scale = soft_slo_scale
        waiting, jobs = JobsFor(variant, of, cluster.waiting), JobsFor(variant, of, cluster.jobs)
        self.policy = begun(policy, cluster_of(tuple(self.replicas.values()), waiting, jobs))

    def owns(self, job: Job) -> bool:
        """Whether a job is one of its requests."""
        return job in self.requests

    def add(self, job: Job, now: float) -> None:
        """A request comes."""
        step_s, batch = self._costs.step_s, job.kind.batch
        seconds = {stage: step_s(stage, batch) for stage in job.launched_stages}
        alone_s, deadline = job.seconds_left(seconds), job.request.deadline
        patient = deadline == math.inf
        due_s = now + self._soft_slo_scale * alone_s if patient else deadline
        self.requests[job] = _Request(due_s, patient, seconds, alone_s)
        self.waiting[job] = None
        heappush(self._by_due, (due_s, job.order, job))

    def remove(self, job: Job) -> None:
        """A request has ended."""
        del self.requests[job]
        self.waiting.pop(job, None)

    def left_s(self, job: Job) -> float:
        """Predicted seconds that a request still needs, alone."""
        return job.seconds_left(self.requests[job].seconds)

    def waiting_s(self) -> float:
        """Predicted seconds of all that waits, one after another."""
        return sum([self.requests[job].alone_s for job in self.waiting])

    def most_urgent(self, started: Iterable[Job], now: float) -> tuple[float, int, Job]:
        """The due time, order and job that is due first of those that wait or have started; there must be one."""
        heap = self._by_due
        while heap:
            due_s, order, job = heap[0]
            if job not in self.waiting:
                heappop(heap)
            elif (later_s := self._due_s(job, now)) != due_s:
                heapreplace(heap, (later_s, order, job))
            else:
                break
        return min([*heap[:1], *[(self._due_s(job, now), job.order, job) for job in started]])

    def _due_s(self, job: Job, now: float) -> float:
        request = self.requests[job]
        if not request.patient and request.due_s - self.left_s(job) < now:
            request.due_s += self._soft_slo_scale * request.alone_s
            request.patient = True
        return request.due_s


class _Place:
    """What is kept of one replica.

    Attributes:
        replica: which.
        evict: its weights policy.
        turn: the model that has it; None: none has.
        loading: its weights are on their way, or have just come.
        passes: the turn is to pass.
        running: jobs of its last launch.
        load_s: what the last load of each checkpoint was expected to take,
        served_s: and for how long the checkpoint has had the turn since.
    """

    def __init__(self, replica: Replica, evict: WeightsPolicy) -> None:
        self.replica = replica
        self.evict = evict
        self.turn: _Model | None = None
        self.loading = self.passes = False
        self.running: frozenset[Job] = frozenset()
        self.load_s: dict[str, float] = {}
        self.served_s: dict[str, float] = {}
        self._turn_s = 0.0

    def has(self, checkpoint: str) -> bool:
        """Whether a model's weights lie there."""
        return self.replica.weights is None or checkpoint in self.replica.loaded

    def holds(self, checkpoint: str) -> bool:
        """Whether the replica works and a model's weights lie there or are on their way."""
        launch = self.replica.launch
        coming = launch is not None and launch.load is not None and launch.load.checkpoint == checkpoint
        return self.replica.up and (coming or self.has(checkpoint))

    def begin_turn(self, model: _Model, now: float) -> None:
        """It is a model's turn."""
        self.turn, self._turn_s, self.loading = model, now, False

    def end_turn(self, now: float) -> None:
        """It is no model's turn."""
        if self.turn is not None and not self.loading:
            served = self.turn.checkpoint
            self.served_s[served] = self.served_s.get(served, 0.0) + now - self._turn_s
        self.turn, self.loading, self.passes = None, False, False

    def tell(self, hook: str, checkpoint: str, now: float) -> None:
        """Tell the weights policy that a checkpoint ``came`` or is ``used``."""
        weights = self.replica.weights
        if weights is not None:
            ask(self.evict, hook, checkpoint, weights.gb(checkpoint), self.replica.reload_s(checkpoint), now)


def _by_due(entry: tuple[float, int, Job, _Model]) -> tuple[float, int]:
    return entry[0], entry[1]
