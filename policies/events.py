"""The event record of a run, and what can be had from it again.

A real run writes everything its controller was told and everything it answered, one JSON object a line, as it goes.
Feeding the same events to the same policy in a fresh controller must reproduce every decision; `check_parity` does that
and reports the first difference. This is what "the same policy objects run unchanged" means, tested. A predictor
that learns while running decides too, so the end of a launch is recorded with the borders between its stages: what
the predictor observed follows from them, to the last bit. Feeding them to a controller that is told the decisions too
gives its state at any moment, without the policy: that is `Ledger`, which the tables of a run log are made of.

A run that was interrupted and went on has parts, each begun by an event ``resumed``: in each a fresh policy was asked.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.contract import Cluster, Decision, Launch, Load, Outcome, Replica, SchedulingPolicy
from policies.controller import Controller, LaunchRecord
from policies.job import Job, Leg, come_after
from policies.legs import Legs
from policies.pool import Pool
from policies.scaling import Fixed
from policies.scaling.elastic import Elastic, Lifetime, Resize
from predictors.costs import Batch, CostModel
from predictors.loading import Weights, with_adapters
from traces.errors import BadInput
from traces.request import Request
from traces.stages import STAGES, Recipe, ordinary
from traces.text import read_text

Event = dict[str, Any]
_ANY_DEVICES = 1 << 16
"""Devices of a replica that has all on which the run launched something there."""
_ANY_ROOM = Weights(math.inf, 1.0)
"""Weights of a replica on which there is room for all that the run loaded there."""


class EventRecord:
    """Spells a controller's events as JSON lines; pass its `add` as the controller's ``on_event``.

    Args:
        extrapolates: whether a stage of a launch is predicted outside the measured range, for the record.

    Attributes:
        lines: all of them, where nobody else takes them; see `take`.
    """

    def __init__(self, extrapolates: Callable[[str, Launch], bool] | None = None) -> None:
        self.lines: list[str] = []
        self._extrapolates = extrapolates or (lambda stage, launch: False)
        self._outside: dict[tuple[int, str, Batch], bool] = {}

    def add(self, verb: str, payload: Any, now: float) -> None:
        """Take one event."""
        event = self._spell(verb, payload, now)
        self.take(event, json.dumps(event))

    def take(self, event: Event, line: str) -> None:
        """Keep an event, of which ``line`` is the JSON."""
        self.lines.append(line)

    def _spell(self, verb: str, payload: Any, now: float) -> Event:
        event: Event = {"now": now, verb: payload}
        if verb == "submit":
            event[verb] = payload.request.request_id
            request, recipe = payload.request, payload.recipe
            if payload.adapters_left:
                recipe = with_adapters(request, recipe)
            if payload.leg is not None:
                recipes = (recipe, *payload.leg.later)
                event["legs"] = [len(each) for each in recipes]
                recipe = tuple([stage for each in recipes for stage in each])
            if recipe != ordinary(request):
                event["recipe"] = recipe
        elif verb == "pass":
            event[verb] = [job.request.request_id for job in payload]
        elif verb == "cancel":
            event[verb], event["reason"] = payload
        elif verb == "route":
            event[verb] = list(payload)
        elif verb == "resizes":
            event[verb] = [list(resize) for resize in payload]
        elif verb == "launches":
            event[verb] = [_spell_launch(launch) for launch in payload]
            if payload:
                event["segments"] = [self._spell_segments(launch) for launch in payload]
        elif verb == "complete":
            launch_id, outcome = payload
            event[verb] = {"launch": launch_id, **_spell_outcome(outcome)}
        elif verb == "down":
            replica, in_flight, outcomes = payload
            ended = [{"launch": launch_id, **_spell_outcome(outcome)} for launch_id, outcome in outcomes.items()]
            event[verb] = {"replica": replica, "in_flight": in_flight, "outcomes": ended}
        return event

    def _spell_segments(self, launch: Launch) -> list[list[Any]]:
        """[stage, steps, predicted seconds of a step, whether that was extrapolated] of each."""
        spelled = []
        for stage, steps, predicted_step_s in launch.segments:
            key = (launch.replica, stage, launch.batch)
            if key not in self._outside:
                self._outside[key] = bool(launch.composition) and bool(self._extrapolates(stage, launch))
            spelled.append([stage, steps, float(predicted_step_s), self._outside[key]])
        return spelled


def _spell_launch(launch: Launch) -> list[Any]:
    if launch.load is not None:
        spelled = [launch.launch_id, launch.replica, launch.load.checkpoint, list(launch.load.evict)]
    else:
        names = [job.request.request_id for job in launch.jobs]
        spelled = [launch.launch_id, launch.replica, launch.stage, launch.steps, names]
    return spelled if launch.devices == (0,) else [*spelled, list(launch.devices)]


def _spell_outcome(outcome: Outcome) -> dict[str, Any]:
    spelled: dict[str, Any] = {"steps": outcome.steps_done, "failed": outcome.failed}
    if outcome.stage_ends_s:
        spelled["stage_ends"] = list(outcome.stage_ends_s)
    if outcome.device_s:
        spelled["device_s"] = [float(seconds) for seconds in outcome.device_s]
    if outcome.computed or outcome.reused:
        spelled |= {"computed": int(outcome.computed), "reused": int(outcome.reused)}
    if outcome.notes:
        spelled["notes"] = outcome.notes
    if outcome.moved_bytes:
        spelled["moved_bytes"] = int(outcome.moved_bytes)
    return spelled


def _outcome(spelled: Mapping[str, Any]) -> Outcome:
    return Outcome(
        steps_done=spelled["steps"],
        failed=spelled.get("failed"),
        computed=spelled.get("computed", 0),
        reused=spelled.get("reused", 0),
        device_s=tuple(spelled.get("device_s", ())),
        stage_ends_s=tuple(spelled.get("stage_ends", ())),
        notes=spelled.get("notes"),
        moved_bytes=spelled.get("moved_bytes", 0),
    )


@dataclass(frozen=True)
class Parity:
    """Result of a parity check: decisions compared, and the first that differed (None: all equal)."""

    decisions: int
    difference: str | None

    @property
    def same(self) -> bool:
        """Whether every decision was reproduced."""
        return self.difference is None


def _is_empty(path: Path) -> bool:
    return Path(path).is_file() and not Path(path).stat().st_size


def read_events(path: Path) -> list[Event]:
    """Read ``events.jsonl``; a last line that a kill tore off is left out.

    Raises:
        BadInput: it cannot be read, or has a line that is no event: says which.
    """
    events = []
    *lines, _ = read_text(path).split("\n") if not _is_empty(path) else [""]
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            float(event["now"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path}, line {number}: not an event of a run log") from error
        events.append(event)
    return events


def check_parity(
    events: Iterable[Event],
    requests: Sequence[Request],
    make_controller: Callable[[Callable[[str, Any, float], None]], Controller],
) -> Parity:
    """Feed recorded events to a fresh controller, or one a part of the run, and compare every answer with the record.

    ``make_controller`` is given the ``on_event`` hook and builds the controller as the run did: same policy, same
    predictor (fresh, if it learns), same replicas.
    """
    dropped: list[Any] = []
    routed: list[Any] = []

    def on_event(verb: str, payload: Any, now: float) -> None:
        if verb == "drop":
            dropped.append(list(payload))
        elif verb == "route":
            routed.append(list(payload))

    by_id = {request.request_id: request for request in requests}
    told = _Told(make_controller(on_event), by_id)
    decisions = 0
    drops: list[Any] = []
    try:
        for event in (upcoming := iter(events)):
            now = event["now"]
            if "resumed" in event:
                told, drops = _Told(make_controller(on_event), by_id), []
                routed.clear()
            elif "drop" in event:
                drops.append(event["drop"])
            elif "route" in event:
                way = routed.pop(0) if routed else None
                decisions += 1
                if way != event["route"]:
                    return Parity(decisions, f"at {now} s, route: recorded {event['route']}, now {way}")
            elif "launches" in event:
                if routed:
                    return Parity(decisions + 1, f"at {now} s, route: recorded None, now {routed[0]}")
                dropped.clear()
                answer: Any = [_spell_launch(launch) for launch in told.launches(now)]
                decisions += 1
                if dropped != drops:
                    return Parity(decisions, f"at {now} s, drops: recorded {drops}, now {dropped}")
                if answer != event["launches"]:
                    return Parity(decisions, f"at {now} s, launches: recorded {event['launches']}, now {answer}")
                drops = []
                resizes = [list(resize) for resize in told.controller.resizes(now)]
                decisions += told.controller.scales
                if resizes:
                    following = next(upcoming, {})
                    if resizes != (recorded := following.get("resizes", [])):
                        return Parity(decisions, f"at {now} s, resizes: recorded {recorded}, now {resizes}")
            elif "resizes" in event:
                return Parity(decisions, f"at {now} s, resizes: recorded {event['resizes']}, now []")
            elif "pass" in event:
                answer = [job.request.request_id for job in told.controller.pass_on(now)]
                decisions += 1
                if answer != event["pass"]:
                    return Parity(decisions, f"at {now} s, pass: recorded {event['pass']}, now {answer}")
            elif "recalls" in event:
                answer = told.controller.recalls(now)
                decisions += 1
                if answer != event["recalls"]:
                    return Parity(decisions, f"at {now} s, recalls: recorded {event['recalls']}, now {answer}")
            else:
                told.tell(event)
    except Exception:
        told.controller.check_unwritten()
        raise
    return Parity(decisions, None)


class _Told:
    """A controller that is told what another one was told."""

    def __init__(self, controller: Controller, requests: Mapping[str, Request]) -> None:
        self.controller = controller
        self._requests = requests
        self._running: dict[int, Launch] = {}

    def launches(self, now: float) -> list[Launch]:
        started = self.controller.launches(now)
        self._running.update((launch.launch_id, launch) for launch in started)
        return started

    def tell(self, event: Event) -> None:
        """Pass on what came from outside, which are all events but a policy's decisions."""
        controller, now = self.controller, event["now"]
        if "submit" in event:
            controller.submit(self._requests[event["submit"]], now)
        elif "cancel" in event:
            controller.cancel(event["cancel"], now, event.get("reason", ""))
        elif "pass" in event:
            controller.pass_on(now)
        elif "complete" in event:
            done = event["complete"]
            controller.complete(self._running.pop(done["launch"]), _outcome(done), now)
        elif "down" in event:
            down = event["down"]
            index = down["replica"]
            self._running = {key: launch for key, launch in self._running.items() if launch.replica != index}
            outcomes = {done["launch"]: _outcome(done) for done in down["outcomes"]}
            controller.replica_down(index, now, down["in_flight"], outcomes)
        elif "up" in event:
            controller.replica_up(event["up"], now)
        elif "ready" in event:
            controller.replica_ready(event["ready"], now)
        elif "stopped" in event:
            controller.replica_stopped(event["stopped"], now)


class Ledger:
    """What came of a run's requests and launches, by its events alone: told them in order, it knows at any moment.

    Args:
        requests: all that events may name.
        replicas: replicas of the run.
        loaded: checkpoints that lay on each replica from the beginning; None: all requests want the same, always there.
        initial: replicas that were there in the beginning; None: all, and always.

    Attributes:
        now: time of the last event, seconds.
    """

    def __init__(
        self,
        requests: Iterable[Request],
        replicas: int,
        loaded: Sequence[Sequence[str]] | None = None,
        initial: Sequence[int] | None = None,
    ) -> None:
        self.now = 0.0
        self._initial = initial
        self._loaded = loaded
        self._requests = {request.request_id: request for request in requests}
        self._replicas = replicas
        self._recipes: dict[str, Recipe] = {}
        self._legs = _LegsOfRun()
        self._extrapolated: set[tuple[int, str, Batch]] = set()
        self._jobs: list[Job] = []  # of the parts before this one, like the next
        self._launched: list[LaunchRecord] = []
        self._outages: list[tuple[int, float, float | None]] = []
        self._lifetimes: list[Lifetime] = []
        self._before: dict[str, Job] = {}
        self._told = self._part()

    @property
    def jobs(self) -> list[Job]:
        """As `policies.controller.Controller` has them, over all parts of the run; one not ended is as it was left."""
        return self._jobs + self._told.controller.jobs

    @property
    def launched(self) -> list[LaunchRecord]:
        """As `policies.controller.Controller` has it; ids go on through the parts of the run."""
        return self._launched + self._renumbered()

    @property
    def outages(self) -> list[tuple[int, float, float | None]]:
        """As `policies.controller.Controller` has them, over all parts of the run."""
        return self._outages + self._told.controller.outages

    @property
    def lifetimes(self) -> list[Lifetime]:
        """As `policies.controller.Controller` has them, over all parts of the run."""
        return self._lifetimes + self._told.controller.lifetimes

    def extrapolates(self, stage: str, launch: Launch) -> bool:
        """Whether the run said so of a launch."""
        return (launch.replica, stage, launch.batch) in self._extrapolated

    def tell(self, event: Event) -> None:
        """The next event.

        Raises:
            BadInput: it cannot follow those before it.
        """
        try:
            self._tell(event)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise BadInput(f"the event at {event.get('now')} s does not follow from those before it") from error
        self.now = max(self.now, event["now"])

    def _tell(self, event: Event) -> None:
        told, now = self._told, event["now"]
        if "resumed" in event:
            self._launched += self._renumbered()
            self._jobs += told.controller.jobs
            now = event["now"]  # a part begins with replicas that work
            self._outages += [(index, down, now if up is None else up) for index, down, up in told.controller.outages]
            self._lifetimes += [(*life[:3], now if life[3] is None else life[3]) for life in told.controller.lifetimes]
            self._before = {job.request.request_id: job for job in self._jobs}
            self._told = self._part()
        elif "drop" in event:
            _decisions_of(told).drop = event["drop"]
            told.launches(now)
        elif "launches" in event:
            recorded, decisions = event["launches"], _decisions_of(told)
            decisions.next = defaultdict(list)
            for each, of in zip(recorded, event.get("segments", ()), strict=True):
                decisions.next[each[1]].append((each, of))
            for launch, segments in zip(told.launches(now), event.get("segments", ()), strict=True):
                replica, batch = launch.replica, launch.batch
                self._extrapolated |= {(replica, stage, batch) for stage, _, _, outside in segments if outside}
        elif "submit" in event:
            name = event["submit"]
            if "recipe" in event:
                self._recipes[name] = tuple((stage, steps) for stage, steps in event["recipe"])
            self._legs.counts[name] = event.get("legs", [])
            told.tell(event)
            come_after(told.controller.jobs[-1], self._before.get(name))
        elif "resizes" in event:
            told.controller.follow([Resize(index, change) for index, change in event["resizes"]], now)
        elif "recalls" not in event:
            told.tell(event)

    def _part(self) -> _Told:
        def recipe(request: Request) -> Recipe:
            return self._recipes.get(request.request_id) or ordinary(request)

        elastic = None if self._initial is None else Elastic(Fixed(), 0, self._initial)
        weights = None if self._loaded is None else _ANY_ROOM
        controller = Controller(
            policy=_Decisions(),
            pools=[Pool(_Predictions(), self._replicas, devices=_ANY_DEVICES, elastic=elastic, weights=weights)],
            recipe=recipe,
            loaded=self._loaded or (),
            legs=self._legs,
        )
        return _Told(controller, self._requests)

    def _renumbered(self) -> list[LaunchRecord]:
        before = 1 + max((launch.launch_id for launch, _, _ in self._launched), default=-1)
        if not before:
            return self._told.controller.launched
        return [
            (launch._replace(launch_id=before + launch.launch_id), outcome, end_s)
            for launch, outcome, end_s in self._told.controller.launched
        ]


class _LegsOfRun(Legs):
    """The legs that requests had in a run.

    Attributes:
        counts: the stages of each leg, by request id; none: it was not divided.
    """

    def __init__(self) -> None:
        super().__init__(())
        self.counts: dict[str, Sequence[int]] = {}

    def recipes(self, request: Request, recipe: Recipe) -> tuple[Recipe, ...]:
        found, begin = [], 0
        for count in self.counts.get(request.request_id) or [len(recipe)]:
            found.append(recipe[begin : begin + count])
            begin += count
        return tuple(found)

    def part(self, leg: Leg, now: float) -> Request:
        return leg.asked


class _Predictions(CostModel):
    """Costs that answer as the run's did; that they are told what launches took keeps them from being remembered."""

    learns = True

    def __init__(self) -> None:
        self.next: dict[str, float] = {}
        self.devices = 1

    def degrees(self, model: str) -> tuple[int, ...]:
        return self.devices, _ANY_DEVICES

    def step_s(self, stage: str, batch: Batch) -> float:
        return self.next.get(stage, 0.0) if STAGES[stage].moves else self.next[stage]


class _Decisions(SchedulingPolicy):
    """A policy that decides as the run's did."""

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)
        self.next: dict[int, list[tuple[Any, Any]]] = {}
        self.drop: tuple[str, str] | None = None

    def plan(self, replica: Replica, now: float) -> Decision | None:
        jobs = self.cluster.jobs
        if self.drop is not None:
            (name, reason), self.drop = self.drop, None
            return Decision(drop=((jobs[name], reason),))
        if not self.next.get(replica.index):
            return None
        spelled, segments = self.next[replica.index].pop(0)
        if isinstance(spelled[3], list):  # of a load it says what makes room, of a batch how many steps
            _, _, checkpoint, evict, *devices = spelled
            ((_, _, expected_s, _),) = segments
            return Decision(load=Load(checkpoint, tuple(evict), expected_s), devices=_named(devices))
        _, _, _, steps, names, *devices = spelled
        not_own = [before for stage, before, _, _ in segments if STAGES[stage].weights or STAGES[stage].moves]
        costs = replica.costs
        assert isinstance(costs, _Predictions)
        costs.next, costs.devices = {stage: step_s for stage, _, step_s, _ in segments}, len(_named(devices))
        return Decision(tuple([jobs[name] for name in names]), steps - sum(not_own), devices=_named(devices))


def _named(devices: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The devices of a launch as `_spell_launch` has them."""
    return tuple(devices[0]) if devices else (0,)


def _decisions_of(told: _Told) -> _Decisions:
    policy = told.controller.policy
    assert isinstance(policy, _Decisions)
    return policy
