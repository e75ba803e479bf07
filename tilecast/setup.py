"""From a scenario to a run folder: what `simulate`, `replay` and the parity check share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from policies.contract import SchedulingPolicy
from policies.controller import Controller
from policies.guard import name_of
from policies.livelog import INITIAL, LOADED
from policies.pool import Pool, extrapolates_on, standalone_on
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
from tilecast.caching import PreparedCache, format_shares, prepare_cache
from tilecast.file_memo import memoised_by_file
from tilecast.in_memory import is_named
from tilecast.latency import geometry_for, latency_table, load_profile, trust
from tilecast.lossy import lossy
from tilecast.scaling import elastic_of, scaling_section, start_seconds
from tilecast.scenario import Scenario
from tilecast.sections import PredictorSection
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
from traces.clock import format_start, on_run_clock
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.mix import parse_counts
from traces.notes import Note, ordered
from traces.references import REFERENCES, sides_in
from traces.request import Request, Size
from traces.spikes import parse_spike, with_spikes
from traces.stages import STAGES, Recipe, ordinary
from traces.streams import stream
from traces.strength import IMAGE_TO_IMAGE
from traces.trace import Trace
from traces.unused import without_effect


@dataclass(frozen=True)
class Prepared:
    """A scenario with everything loaded, checked and fitted.

    ``shares`` says which share of its work a request of each size is expected to compute, where a cache spares some.
    ``clock_start_s`` is where the run's clock starts on that of the trace's file, in seconds of it.
    """

    scenario: Scenario
    trace: Trace
    requests: list[Request]
    profile: Profile | None
    table: LatencyModel
    predictor: LatencyModel
    policy: SchedulingPolicy
    warnings: list[str]
    cache: PreparedCache | None = None
    tiling: PreparedTiling | None = None
    shares: dict[Size, float] = field(default_factory=dict)
    clock_start_s: float = 0.0
    routing: RoutingPolicy | None = None
    weights: PreparedWeights | None = None
    elastic: Elastic | None = None
    start_s: Sequence[float] = ()

    def controller(self, on_event: Callable[[str, Any, float], None] | None = None) -> Controller:
        """A fresh controller for this scenario, the same for every driver: its policy sees the same stages in each."""
        scenario, section = self.scenario, self.scenario.predictor
        costs = _costs(scenario, self.predictor if section.oracle else self.table, self.tiling)
        believed = _costs_of_run(_expecting(costs, self.shares), section)
        routing = self.routing
        if routing is None and scenario.weights is None and scenario.cluster.replicas > 1:
            routing = usual_routing(self.policy)  # several sets of adapters lie wherever the model does
        return Controller(
            policy=serving_many(scenario, self.policy, self.trace),
            pools=[Pool(believed, scenario.cluster.replicas, elastic=self.elastic)],
            recipe=adapting_first(scenario, _recipe(self.tiling)),
            on_event=on_event,
            weights=None if self.weights is None else self.weights.weights,
            loaded=self.loaded,
            routing=routing,
        )

    @property
    def loaded(self) -> list[list[str]]:
        """The checkpoints that lie on each replica from the beginning."""
        return preloaded(self.scenario, None if self.weights is None else self.weights.weights, self.requests)

    @property
    def policy_name(self) -> str:
        """What people call the scheduler."""
        name = self.scenario.policies.scheduling.name
        return name_of(self.policy) if is_named(name) else name

    @property
    def costs(self) -> CostModel:
        """What the stages of a request cost."""
        return _costs(self.scenario, self.table, self.tiling)

    @property
    def pools(self) -> list[Pool]:
        """The replicas, with what is known of their costs before anything runs."""
        cluster = self.scenario.cluster
        price = math.nan if cluster.price_per_hour is None else cluster.price_per_hour
        return [Pool(self.costs, cluster.replicas, devices=cluster.devices, price_per_hour=price)]

    @property
    def initial(self) -> list[int]:
        """The replicas that are there when a run begins."""
        controller = self.controller()
        return [index for index in range(self.scenario.cluster.replicas) if controller.state_of(index) == "ready"]

    def world_table(self) -> LatencyModel:
        """The measured table that the simulated world takes its durations from."""
        return _world_table(self.scenario, self.profile, self.table)

    def info(self, kind: str, **more: Any) -> dict[str, Any]:
        """``run.json`` of a run of this scenario."""
        scenario = self.scenario
        return {
            "kind": kind,
            "tilecast": version("tilecast"),
            "model": scenario.model_name,
            "seed": scenario.seed,
            "scheduler": self.policy_name,
            "replicas": scenario.cluster.replicas,
            "devices": scenario.cluster.devices,
            "hardware": self.table.hardware,
            "scenario": scenario.model_dump(mode="json"),
            "predictor": {
                "basis": self.table.basis,
                "profile": scenario.predictor.profile,
                "divided": "" if self.profile is None else self.profile.divided(scenario.model_name),
                "hardware": scenario.predictor.hardware,
                "content_hash": self.predictor.content_hash,
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
            **({} if self.elastic is None else {INITIAL: self.initial, "start_s": self.elastic.start_s}),
            **({} if scenario.cluster.price_per_hour is None else {"pools": [pool.facts for pool in self.pools]}),
            **more,
        }

    @property
    def notes(self) -> list[Note]:
        """What is known before it runs and a reader must know, the gravest first."""
        own = () if self.profile is None else self.profile.notes
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
        costs = _expecting(self.costs, self.shares)
        expected, measured = [], []
        for launch, outcome, end_s in run.launched:
            if launch.load is None and outcome.steps_done:
                done = launch.done(outcome.steps_done)
                seconds = [s.steps * costs.step_s(s.stage, launch.batch) for s in done]
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
        return outages if self.elastic is None else {**outages, "lifetimes": run.lifetimes}

    def arrays(self, controller: Controller) -> RunArrays:
        """What figures of a simulation of this scenario, which is over, are computed on."""
        outages = None if self.scenario.faults is None else controller.outages
        lifetimes = None if self.elastic is None else controller.lifetimes
        return run_arrays(controller, self.requests, self.pools, outages, lifetimes)

    def write(self, folder: Path, controller: Controller, info: dict[str, Any], events: list[str]) -> None:
        """Write the run log of ``controller`` into ``folder``."""
        steps = step_table(controller, extrapolates_on(self.pools))
        requests = request_table(controller, self.requests, steps, standalone_on(self.pools))
        write_run(folder, requests, steps, info, events)


def prepare(scenario: Scenario) -> Prepared:
    """Load, transform and check everything a scenario names.

    Raises:
        BadInput: whatever is wrong with it, in one line.
    """
    with watched(scenario.policies.call_limit_s):
        return _prepare(scenario)


def _prepare(scenario: Scenario) -> Prepared:
    warnings: list[str] = []
    profile = load_profile(scenario)
    geometry = geometry_for(scenario.model_name, profile)
    table = latency_table(scenario, profile, geometry)
    warnings += trust(table, profile)
    if profile is not None and (ignored := profile.metadata.get("ignored")):
        warnings.append(f"the profile has columns that this Tilecast does not know, which are ignored: {ignored}")
    trace, clock_start_s = _load_trace(scenario, geometry, profile, warnings)
    trace.check(geometry)
    checkpoints = trace.frame["checkpoint"].nunique()
    if scenario.weights is None and checkpoints > 1:
        warnings.append(f"the {checkpoints} checkpoints of the trace are taken for one; [weights] tells them apart")
    warnings += unknown_checkpoints(scenario, trace)
    weights = prepare_weights(scenario, trace, profile)
    if weights is not None and weights.note:
        warnings.append(weights.note)
    tiling = prepare_tiling(scenario, geometry, table, trace)
    if unmeasured := _unmeasured(table, tiling):
        warnings.append(f"not in the profile, taken as 0 s: {', '.join(unmeasured)}")
    costs = _costs(scenario, table, tiling)
    limit = scenario.predictor.max_extrapolation
    kinds = trace.one_of_each_kind()
    check_supported(table, kinds if tiling is None else tiling.untiled(kinds), limit)
    if tiling is not None:
        check_supported(table, tiling.windows, limit)
    slo = scenario.slo
    if slo.scale is not None:
        trace = trace.with_slo(scale=slo.scale, standalone=costs.standalone_s)
    elif slo.absolute_s is not None:
        trace = trace.with_slo(slo.absolute_s)
    reduction = scenario.trace.step_reduction
    if reduction.skip is not None:
        skip = parse_counts(reduction.skip, "trace.step_reduction.skip")
        trace = trace.with_step_reduction(reduction.share, skip, stream(scenario.seed, "trace/step_reduction"))
    policies = scenario.policies
    cache = prepare_cache(scenario, profile, geometry, trace)
    if cache is not None and not (profile is not None and profile.frame["cached"].any()):
        warnings.append("the profile was measured without a cache: what reuse saves is taken from the work it spares")
    warnings += _unlike_the_profile(scenario, profile)
    scheduling = policies.scheduling.policy("scheduling", scenario.base)
    serving_many(scenario, scheduling, trace)
    start_s: list[float] = []
    if scaling_section(scenario) is not None:
        loaded = preloaded(scenario, None if weights is None else weights.weights, trace.requests())
        start_s, note = start_seconds(scenario, profile, None if weights is None else weights.weights, loaded)
        warnings += [note] if note else []
    preloaded(scenario, None if weights is None else weights.weights, trace.requests())
    if scenario.predictor.oracle:
        predictor = _world_table(scenario, profile, table).scaled(scenario.world.slowdown)
    else:
        predictor = table.scaled(1.0 + scenario.predictor.error) if scenario.predictor.error else table
    requests = trace.requests()
    return Prepared(
        scenario=scenario,
        trace=trace,
        requests=requests,
        profile=profile,
        table=table,
        predictor=predictor,
        policy=scheduling,
        warnings=warnings,
        cache=cache,
        tiling=tiling,
        shares={} if cache is None else cache.shares,
        clock_start_s=clock_start_s,
        routing=routing_of(scenario),
        weights=weights,
        elastic=elastic_of(scenario, max(start_s, default=0.0)),
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
        asked["cache_patch"] = str(cluster.cache_patch)
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


def _costs(scenario: Scenario, table: LatencyModel, tiling: PreparedTiling | None) -> CostModel:
    return adapting(scenario, table if tiling is None else tiling.costs(table))


def _expecting(costs: CostModel, shares: dict[Size, float]) -> CostModel:
    return ExpectedReuse(costs, shares) if shares else costs


def _world_table(scenario: Scenario, profile: Profile | None, table: LatencyModel) -> LatencyModel:
    latency_model = scenario.world.latency_model
    if latency_model is None:
        return table
    return latency_table(scenario, profile, geometry_for(scenario.model_name, profile), latency_model)


def _costs_of_run(table: CostModel, section: PredictorSection) -> CostModel:
    """What the policy of one run asks; one that learns starts anew, and an oracle has nothing to learn."""
    if section.oracle:
        return table
    if section.online:
        return OnlinePredictor(table, section.error)
    return table.scaled(1.0 + section.error) if section.error else table


_read_trace = memoised_by_file(Trace.load)


def _load_trace(
    scenario: Scenario, geometry: ModelGeometry, profile: Profile | None, warnings: list[str]
) -> tuple[Trace, float]:
    """The trace of a run on its clock, and where that starts on the file's, in seconds."""
    section = scenario.trace
    if section.path is None:
        raise BadInput("the scenario names no trace; set trace.path, or pass --trace")
    whole = trace = _read_trace(scenario.base / section.path) if section.in_memory is None else section.in_memory
    if section.start_s or section.end_s is not None:
        trace = trace.slice(section.start_s, section.end_s if section.end_s is not None else float("inf"))
    if section.limit is not None:
        trace = trace.head(section.limit)
    if not len(trace):
        first_s, last_s = whole.span
        raise BadInput(
            f"{section.path}: no requests left after trace.start_s, trace.end_s and trace.limit; "
            f"its arrivals are at {first_s:.15g} to {last_s:.15g} s"
        )
    trace, clock_start_s = on_run_clock(trace)
    if clock_start_s:
        warnings.append(format_start(clock_start_s))
    if unused := without_effect(trace.frame):
        warnings.append(unused)
    if scenario.weights is None and (trace.frame["adapters"] != "").any():
        warnings.append(
            "adapters are taken to cost nothing, neither to put on nor in a step; weights.adapter_s says otherwise"
        )
    clock_start_s += section.start_s
    if section.rate_scale != 1.0:
        trace = trace.scale_rate(section.rate_scale)
    if section.spikes:
        spikes = [parse_spike(text) for text in section.spikes]
        trace = with_spikes(trace, spikes, stream(scenario.seed, "trace/spikes"))
    if section.steps_scale != 1.0:
        trace = trace.with_steps(section.steps_scale)
    others = sorted(set(trace.frame["model"]) - {"", scenario.model_name})
    if section.fit_sizes:
        trace = trace.scale_sizes(geometry)
        if others:
            warnings.append(f"requests for {', '.join(others)} run as {scenario.model_name}, sizes scaled to it")
    elif others:
        warnings.append(f"requests for {', '.join(others)} run as {scenario.model_name}")
    image_to_image = IMAGE_TO_IMAGE.get(_pipeline_of(scenario, profile))
    if image_to_image is not None:
        trace = trace.with_schedules(image_to_image)
    elif count := int(trace.frame["strength"].notna().sum()):
        name = scenario.model_name
        warnings.append(f"strength of {count} requests has no effect: {name} is not known to be image to image")
    if (reference := REFERENCES.get(_pipeline_of(scenario, profile))) is not None:
        trace = trace.with_references(reference, geometry.size_multiple, sides_in(scenario.images))
    trace, notes = trace.guided_as(geometry)
    warnings += notes
    return trace.with_model(scenario.model_name), clock_start_s


def _pipeline_of(scenario: Scenario, profile: Profile | None) -> str:
    """The class of the scenario's pipeline, as its folder says, or else its profile; "": neither does."""
    try:
        index = json.loads((Path(scenario.model_source) / "model_index.json").read_bytes())
        return str(index["_class_name"])
    except (OSError, ValueError, LookupError, TypeError):
        return "" if profile is None else profile.metadata.get("pipeline", "")
