"""From a scenario to a run folder: what `simulate`, `replay` and the parity check share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from policies.contract import SchedulingPolicy
from policies.controller import Controller
from policies.guard import name_of
from policies.legs import standalone_on
from policies.livelog import INITIAL, LOADED
from policies.pool import Pool, extrapolates_on
from policies.record import Served, request_table, run_arrays, step_table
from policies.routing import RoutingPolicy, usual_routing
from policies.run_arrays import RunArrays
from policies.runlog import write_run
from policies.scaling.elastic import Elastic
from policies.watchdog import watched
from predictors.costs import CostModel
from predictors.expected import ExpectedReuse
from predictors.latency_model import LatencyModel, check_supported
from predictors.online import OnlinePredictor
from predictors.profile import Profile
from reports.drift import drift
from tilecast.caching import PreparedCache, caching_policy, format_shares, prepare_cache
from tilecast.degrees import degree_notes, without_choice
from tilecast.demand import load_demand, with_deadlines
from tilecast.in_memory import is_named
from tilecast.latency import trust
from tilecast.lossy import lossy
from tilecast.memory import misfits
from tilecast.scaling import elastic_of, scaling_section, start_seconds
from tilecast.scenario import Scenario
from tilecast.sections import PredictorSection
from tilecast.served import ServedModel, as_measured, pools_of, served_models
from tilecast.stages import check_pools
from tilecast.tenants import sharing, tenants_without_effect
from tilecast.tiling import PreparedTiling, prepare_tiling
from tilecast.weights import (
    PreparedWeights,
    adapting,
    adapting_first,
    preloaded,
    prepare_weights,
    serving_many,
    unknown_checkpoints,
)
from traces.errors import BadInput
from traces.mix import parse_counts
from traces.notes import Note, ordered
from traces.request import Request, Size
from traces.stages import STAGES, Recipe, ordinary
from traces.streams import stream
from traces.trace import Trace
from traces.users import Users


@dataclass(frozen=True)
class Prepared:
    """A scenario with everything loaded, checked and fitted.

    ``members`` are every model on every pool; where nothing else is said, what is asked of the scenario as a whole (its
    profile, table, tiling) is that of the first. A cache and tiles are only where that is the only one.
    ``shares`` says which share of its work a request of each size is expected to compute, where a cache spares some.
    ``clock_start_s`` is where the run's clock starts on that of the trace's file, in seconds of it.
    """

    scenario: Scenario
    trace: Trace
    requests: list[Request]
    members: list[ServedModel]
    policy: SchedulingPolicy
    warnings: list[str | Note]
    cache: PreparedCache | None = None
    tiling: PreparedTiling | None = None
    shares: dict[Size, float] = field(default_factory=dict)
    clock_start_s: float = 0.0
    routing: RoutingPolicy | None = None
    weights: PreparedWeights | None = None
    elastic: Mapping[str, Elastic] = field(default_factory=dict)
    start_s: Sequence[float] = ()

    def running(self, scenario: Scenario, trace: Trace) -> Prepared:
        """The same for another run of other requests.

        Args:
            scenario: with other replicas, policies, seed, world or predictor's error: nothing that is loaded or fitted.
            trace: its requests, with their deadlines.
        """
        pools = {pool.name: pool for pool in scenario.pools}
        members = [
            replace(
                member,
                pool=(pool := pools[member.pool.name]),
                scenario=as_measured(scenario.serving(pool, member.scenario.model), member.profile),
            )
            for member in self.members
        ]
        requests = trace.requests()
        elastic, start_s, _ = _elastic(scenario, members, self.weights, preloaded(scenario, self.weights, requests))
        return replace(
            self,
            scenario=scenario,
            trace=trace,
            requests=requests,
            members=members,
            policy=scenario.policies.scheduling.policy("scheduling", scenario.base),
            routing=routing_of(scenario),
            elastic=elastic,
            start_s=start_s,
        )

    def controller(self, on_event: Callable[[str, Any, float], None] | None = None) -> Controller:
        """A fresh controller for this scenario, the same for every driver: its policy sees the same stages in each."""
        scenario = self.scenario
        routing = self.routing
        if routing is None and scenario.weights is None and scenario.replicas > 1:
            routing = usual_routing(self.policy)  # several sets of adapters lie wherever the model does
        return Controller(
            policy=sharing(scenario, serving_many(scenario, self.policy, self.trace)),
            pools=self._pools(self._believed),
            recipe=adapting_first(scenario, _recipe(self.tiling)),
            on_event=on_event,
            loaded=self.loaded,
            routing=routing,
        )

    def users(self) -> Users | None:
        """Fresh users of one run; None: requests come at the times of the trace."""
        section = self.scenario.trace
        if section.users is None:
            return None
        return Users(section.users, section.think_s, self.requests, stream(self.scenario.seed, "trace/users"))

    def asked(self, run: Served) -> list[Request]:
        """The requests of a run that is over, as they came: those of users when these asked."""
        if self.scenario.trace.users is None:
            return self.requests
        came: dict[str, Request] = {}
        for job in run.jobs:
            came.setdefault(job.request.request_id, job.asked)
        return [came.get(request.request_id, request) for request in self.requests]

    @property
    def loaded(self) -> list[list[str]]:
        """The checkpoints that lie on each replica from the beginning."""
        return preloaded(self.scenario, self.weights, self.requests)

    @property
    def profile(self) -> Profile | None:
        """The measurements of the first member."""
        return self.members[0].profile

    @property
    def table(self) -> LatencyModel:
        """What steps of the first member cost."""
        return self.members[0].table

    @property
    def policy_name(self) -> str:
        """What people call the scheduler."""
        name = self.scenario.policies.scheduling.name
        return name_of(self.policy) if is_named(name) else name

    @property
    def costs(self) -> CostModel:
        """What the stages of a request of the first member cost."""
        return self._costs(self.members[0])

    @property
    def pools(self) -> list[Pool]:
        """The replicas, with what is known of their costs before anything runs."""
        return self._pools(self._costs)

    @property
    def initial(self) -> list[int]:
        """The replicas that are there when a run begins."""
        controller = self.controller()
        return [index for index in range(self.scenario.replicas) if controller.state_of(index) == "ready"]

    def _pools(self, costs: Callable[[ServedModel], CostModel]) -> list[Pool]:
        weights = None if self.weights is None else self.weights.by_pool
        return pools_of(self.members, costs, weights, self.elastic)

    def _costs(self, member: ServedModel) -> CostModel:
        """What a member's steps cost."""
        return _costs(member, member.table, self.tiling)

    def _believed(self, member: ServedModel) -> CostModel:
        """What policies are told that a member's steps cost, in one run."""
        section = self.scenario.predictor
        costs = _costs(member, member.predictor() if section.oracle else member.table, self.tiling)
        return _costs_of_run(_expecting(costs, self.shares), section)

    def world_table(self) -> LatencyModel:
        """The measured table that the simulated world takes the durations of the first member from."""
        return self.members[0].world_table()

    def info(self, kind: str, **more: Any) -> dict[str, Any]:
        """``run.json`` of a run of this scenario."""
        scenario, priced = self.scenario, self.scenario.cluster.price_per_hour is not None
        return {
            "kind": kind,
            "tilecast": version("tilecast"),
            "model": scenario.model_name,
            "seed": scenario.seed,
            "scheduler": self.policy_name,
            "replicas": scenario.replicas,
            "devices": scenario.cluster.devices,
            "hardware": ", ".join(dict.fromkeys([member.table.hardware for member in self.members])),
            "scenario": scenario.model_dump(mode="json"),
            "predictor": {
                "basis": self.table.basis,
                "profile": scenario.predictor.profile,
                "divided": "" if self.profile is None else self.profile.divided(scenario.model_name),
                "hardware": scenario.predictor.hardware,
                "content_hash": "+".join([member.predictor().content_hash for member in self.members]),
                "executor": scenario.cluster.executor,
                "latency_model": self.table.latency_model,
                "fitted_models": self.table.fitted_models,
                "online": scenario.predictor.online,
                "oracle": scenario.predictor.oracle,
                "expected_computed": format_shares(self.shares),
                "expected_tiles": format_shares(self.tiling.shares if self.tiling is not None else {}),
            },
            "warnings": [note.document() for note in self.notes],
            "clock_start_s": self.clock_start_s,
            **({} if self.weights is None else {"weights": self.weights.facts, LOADED: self.loaded}),
            **self._of_scaling(),
            **({"pools": list(map(self._facts, self.pools))} if priced or scenario.pool else {}),
            **more,
        }

    def _of_scaling(self) -> dict[str, Any]:
        """What ``run.json`` says of replicas that come and go."""
        if not self.elastic:
            return {}
        return {INITIAL: self.initial, "start_s": {name: each.start_s for name, each in self.elastic.items()}}

    @property
    def served(self) -> dict[str, list[str]]:
        """Names of the models that each pool serves."""
        return {pool.name: [each.model for each in self.members if each.pool.name == pool.name] for pool in self.pools}

    def _facts(self, pool: Pool) -> dict[str, Any]:
        """What ``run.json`` says of a pool."""
        own = [member for member in self.members if member.pool.name == pool.name]
        return {
            **pool.facts,
            "models": {member.model: member.table.basis for member in own},
            "hardware": own[0].table.hardware,
        }

    @property
    def notes(self) -> list[Note]:
        """What is known before it runs and a reader must know, the gravest first."""
        profiles = {profile.content_hash: profile for profile in [member.profile for member in self.members] if profile}
        own = [note for profile in profiles.values() for note in profile.notes]
        tiled = self.tiling is not None and len(self.tiling.sizes) > 0
        tiles_cached = tiled and self.tiling is not None and self.tiling.caching is not None
        changed = lossy(self.scenario, self.cache is not None, tiled, tiles_cached)
        return ordered(
            [
                *(Note(f"the profile's own note: {note}", note.severity) for note in own),
                *([changed] if changed else []),
                *self.warnings,
            ]
        )

    def drift(self, run: Served) -> float | None:
        """How much longer the launches of a run took than the profile says, as a share; None: there is nothing to say.

        Policies' predictions are corrected while a run goes on, so it is asked of the profile anew.
        """
        of = {(member.pool.name, member.model): _expecting(self._costs(member), self.shares) for member in self.members}
        pool_of = [pool.name for pool in self.scenario.pool_of_replicas]
        expected, measured = [], []
        for launch, outcome, end_s in run.launched:
            if launch.load is None and outcome.steps_done:
                done, costs = launch.done(outcome.steps_done), of[pool_of[launch.replica], launch.batch.model]
                seconds = [s.steps * costs.step_s(s.stage, launch.work.batch_of(s.stage)) for s in done]
                expected.append(sum(seconds))
                measured.append(end_s - launch.start_s)
        found = drift(np.array(measured), np.array(expected))
        return found if math.isfinite(found) else None

    def simulation_info(self, controller: Controller) -> dict[str, Any]:
        """``run.json`` of a simulation of this scenario, which is over."""
        return self.info("simulation", **self.happened(controller))

    def happened(self, run: Served) -> dict[str, Any]:
        """What became of the replicas of a run, for ``run.json``."""
        outages = {} if self.scenario.faults is None and not run.outages else {"outages": run.outages}
        return outages if not self.elastic else {**outages, "lifetimes": run.lifetimes}

    def arrays(self, controller: Controller) -> RunArrays:
        """What figures of a simulation of this scenario, which is over, are computed on."""
        outages = None if self.scenario.faults is None else controller.outages
        lifetimes = None if not self.elastic else controller.lifetimes
        return run_arrays(controller, self.asked(controller), self.pools, outages, lifetimes)

    def write(self, folder: Path, controller: Controller, info: dict[str, Any], events: list[str]) -> None:
        """Write the run log of ``controller`` into ``folder``."""
        steps = step_table(controller, extrapolates_on(self.pools))
        requests = request_table(controller, self.asked(controller), steps, standalone_on(self.pools))
        write_run(folder, requests, steps, info, events)


def prepare(scenario: Scenario) -> Prepared:
    """Load, transform and check everything a scenario names.

    Raises:
        BadInput: whatever is wrong with it, in one line.
    """
    with watched(scenario.policies.call_limit_s):
        return _prepare(scenario)


def _prepare(scenario: Scenario) -> Prepared:
    warnings: list[str | Note] = []
    members = served_models(scenario)
    first = members[0]
    scenario_of, profile, geometry, table = first.scenario, first.profile, first.geometry, first.table
    _check_alone(scenario, members)
    check_pools(scenario, members)
    for member in members:
        of = f"{member.pool.name}, {member.model}: " if len(members) > 1 else ""
        warnings += [f"{of}{note}" for note in trust(member.table, member.profile)]
        if member.profile is not None and (ignored := member.profile.metadata.get("ignored")):
            warnings.append(f"the profile has columns that this Tilecast does not know, which are ignored: {ignored}")
    trace, clock_start_s = load_demand(scenario, members, warnings)
    checkpoints = trace.frame["checkpoint"].nunique()
    if scenario.weights is None and checkpoints > 1:
        warnings.append(f"the {checkpoints} checkpoints of the trace are taken for one; [weights] tells them apart")
    warnings += unknown_checkpoints(scenario, trace)
    warnings += tenants_without_effect(scenario, trace)
    weights = prepare_weights(scenario, trace, members)
    if weights is not None and weights.note:
        warnings.append(weights.note)
    tiling = None if scenario.pool and len(members) > 1 else prepare_tiling(scenario_of, geometry, table, trace)
    for member in members if tiling is None else ():
        warnings += degree_notes(member.on_devices(member.table), member.model)
    for member in members:
        if unmeasured := _unmeasured(member.table, tiling):
            warnings.append(f"not in the profile, taken as 0 s: {', '.join(unmeasured)}")
    limit = scenario.predictor.max_extrapolation
    kinds = trace.one_of_each_kind()
    warnings += misfits(members, kinds)
    for member in members:
        own = [kind for kind in kinds if kind.model == member.model]
        check_supported(member.table, own if tiling is None else tiling.untiled(own), limit)
    if tiling is not None:
        check_supported(table, tiling.windows, limit)
    known = pools_of(members, lambda member: _costs(member, member.table, tiling))
    trace = with_deadlines(scenario.slo, trace, standalone_on(known))
    reduction = scenario.trace.step_reduction
    if reduction.skip is not None:
        skip = parse_counts(reduction.skip, "trace.step_reduction.skip")
        trace = trace.with_step_reduction(reduction.share, skip, stream(scenario.seed, "trace/step_reduction"))
    policies = scenario.policies
    cache = None if len(members) > 1 else prepare_cache(scenario_of, profile, geometry, trace)
    if cache is not None and not (profile is not None and profile.frame["cached"].any()):
        warnings.append("the profile was measured without a cache: what reuse saves is taken from the work it spares")
    for member in members:
        warnings += _unlike_the_profile(member.scenario, member.profile)
    scheduling = policies.scheduling.policy("scheduling", scenario.base)
    serving_many(scenario, scheduling, trace)
    if tiling is None:
        degrees = {each for member in members for each in member.on_devices(member.table).degrees(member.model)}
        name = policies.scheduling.name
        warnings[:0] = without_choice(scheduling, name_of(scheduling) if is_named(name) else name, degrees)
    loaded = preloaded(scenario, weights, trace.requests())
    elastic, start_s, notes = _elastic(scenario, members, weights, loaded)
    warnings += notes
    requests = trace.requests()
    return Prepared(
        scenario=scenario,
        trace=trace,
        requests=requests,
        members=members,
        policy=scheduling,
        warnings=list(dict.fromkeys(warnings)),
        cache=cache,
        tiling=tiling,
        shares={} if cache is None else cache.shares,
        clock_start_s=clock_start_s,
        routing=routing_of(scenario),
        weights=weights,
        elastic=elastic,
        start_s=start_s,
    )


def routing_of(scenario: Scenario) -> RoutingPolicy | None:
    """The routing policy that a scenario names; None: it names none.

    Raises:
        BadInput: unknown name, no such file or class, or a wrong parameter.
        PolicyError: what a user's policy does wrong.
    """
    section = scenario.policies.routing
    return None if section is None else section.policy("routing", scenario.base)


def check_policies(scenario: Scenario) -> None:
    """Refuse policies that `prepare` would refuse whatever they are to serve, without a look at trace and profile.

    Raises:
        BadInput: unknown name, no such file or class, or a wrong parameter.
        PolicyError: what a user's policy does wrong.
    """
    policies, base = scenario.policies, scenario.base
    with watched(policies.call_limit_s):
        policies.scheduling.policy("scheduling", base)
        routing_of(scenario)
        if policies.scaling is not None:
            policies.scaling.policy("scaling", base)
        if policies.weights is not None and scenario.weights is not None:
            policies.weights.policy("weights", base)
        if not scenario.pool:
            caching_policy(scenario)
            policies.placement.policy("placement", base)
            if scenario.tiling is not None:
                policies.tile_caching.policy("caching", base)


def _unmeasured(table: LatencyModel, tiling: PreparedTiling | None) -> tuple[str, ...]:
    of_tiled = STAGES.named(lambda stage: stage.measured and not (stage.mixes or stage.priced_as))
    return (*table.unmeasured_stages, *[name for name in of_tiled if tiling is not None and name not in table.costs])


def _recipe(tiling: PreparedTiling | None) -> Callable[[Request], Recipe]:
    """What requests go through; a stage that was not measured takes a simulation a nanosecond a step."""
    return ordinary if tiling is None else tiling.rule.stages


def _unlike_the_profile(scenario: Scenario, profile: Profile | None) -> list[str]:
    """Settings of the executor that the profile was not measured with, so that its seconds may not be those."""
    cluster = scenario.cluster
    asked: dict[str, str] = {"decode": cluster.decode}
    if cluster.executor == "patched" and cluster.patch_floor is not None:
        asked["patch_floor"] = str(cluster.patch_floor)
    if scenario.policies.caching.name != "none":
        asked["cache_patch"] = str(cluster.side_of_cached_patch)
    measured = {"decode": "whole", **(profile.metadata if profile is not None else {})}
    warnings = [
        f"cluster.{name} is {value}, the profile was measured with {measured[name]}"
        for name, value in asked.items()
        if name in measured and measured[name] != value
    ]
    ran = measured.get("kernels", "")  # only of a device that has a choice
    if ran and (ran == "reference") != (cluster.kernels == "reference"):
        warnings.append(f"cluster.kernels is {cluster.kernels}, the profile was measured with {ran}")
    return warnings


def _elastic(
    scenario: Scenario, members: list[ServedModel], weights: PreparedWeights | None, loaded: list[list[str]]
) -> tuple[dict[str, Elastic], list[float], list[str]]:
    """How the replicas of each pool come and go, what each replica takes to start, and where that is from; empty where
    all are always there."""
    elastic: dict[str, Elastic] = {}
    start_s: list[float] = []
    notes: list[str] = []
    if scaling_section(scenario) is None:
        return elastic, start_s, notes
    first = {member.pool.name: member for member in reversed(members)}
    for pool in scenario.pools:
        member, begin = first[pool.name], len(start_s)
        own = None if weights is None else weights.by_pool[pool.name]
        seconds, note = start_seconds(member.scenario, member.profile, own, loaded[begin : begin + pool.replicas])
        start_s += seconds
        notes += [note] if note else []
        scaled = elastic_of(member.scenario, max(seconds))
        assert scaled is not None
        elastic[pool.name] = scaled
    return elastic, start_s, notes


def _check_alone(scenario: Scenario, members: list[ServedModel]) -> None:
    """Refuse what is known of one model on one pool alone, where there are several.

    Raises:
        BadInput: a cache or tiles.
    """
    if len(members) == 1:
        return
    section = scenario.policies
    if section.caching.name != "none":
        raise BadInput(f"policies.caching is {section.caching.name!r}: expected 'none' with several models or pools")
    if scenario.tiling is not None or section.tile_caching.name != "none":
        raise BadInput("[tiling] is of one model on one pool: take it out, or leave one pool with one model")


def _costs(member: ServedModel, table: LatencyModel, tiling: PreparedTiling | None) -> CostModel:
    costs = member.on_devices(table)
    return adapting(member.scenario, costs if tiling is None else tiling.costs(costs))


def _expecting(costs: CostModel, shares: dict[Size, float]) -> CostModel:
    return ExpectedReuse(costs, shares) if shares else costs


def _costs_of_run(table: CostModel, section: PredictorSection) -> CostModel:
    """What the policy of one run asks; one that learns starts anew, and an oracle has nothing to learn."""
    if section.oracle:
        return table
    if section.online:
        return OnlinePredictor(table, section.error)
    return table.scaled(1.0 + section.error) if section.error else table
