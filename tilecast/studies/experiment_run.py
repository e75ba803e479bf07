"""One simulation of a study: from a scenario and a seed to what the run says.

What runs share, like a fitted table and a drawn demand, is remembered by each process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tilecast.demand import with_deadlines
from tilecast.latency import geometry_for
from tilecast.scenario import Scenario
from tilecast.sections import PolicySection
from tilecast.setup import Prepared, prepare
from tilecast.simulation import run_simulation
from tilecast.studies.replication import observe
from traces.bootstrap import DAY_S, Bootstrap, Fitted
from traces.errors import BadInput
from traces.trace import Trace
from traces.workload import fit


@dataclass(frozen=True)
class ExperimentRun:
    """A simulation.

    Attributes:
        what: what it is, for people.
        reference: the scenario that the demand and its deadlines come from.
        scenario: what runs; of its trace, the rate alone matters.
        replication: number of the demand's replication.
        requests: its first so many.
        saturate: all of them at once and without deadlines.
    """

    what: str
    reference: Scenario
    scenario: Scenario
    replication: int
    requests: int
    saturate: bool

    def __str__(self) -> str:
        return self.what


def run_experiment(experiment: ExperimentRun) -> dict[str, Any]:
    """What the simulation says, as `tilecast.studies.replication.Replication.to_dict`.

    Raises:
        BadInput: the scenario cannot be simulated.
    """
    scenario = experiment.scenario
    rate_scale = None if experiment.saturate else scenario.trace.rate_scale
    trace = demanded(experiment.reference, experiment.requests, experiment.replication, rate_scale)
    requests = trace.requests()
    run = shared(scenario).running(scenario, trace)
    if run.cache is not None and run.cache.plans is not None:
        run = replace(run, cache=replace(run.cache, plans=run.cache.plans.seeded(scenario.seed)))
    controller = run_simulation(run)
    demand = demand_of(experiment.reference)
    daily = demand.daily and not experiment.saturate
    period_s = DAY_S / scenario.trace.rate_scale if daily else None
    seen = observe(
        controller,
        run.arrays(controller),
        requests[-1].arrival_s,
        recorded=demand.recorded,
        period_s=period_s,
    )
    return seen.to_dict()


def shared(scenario: Scenario) -> Prepared:
    """The scenario prepared, whatever its load, replicas, seed and policy: those a run sets itself."""
    oracle = scenario.predictor.oracle  # knows the world
    plain = scenario.model_copy(
        update={
            "seed": 0,
            "predictor": scenario.predictor if oracle else scenario.predictor.model_copy(update={"error": 0.0}),
            "world": scenario.world if oracle else scenario.world.model_copy(update={"slowdown": 1.0}),
            "trace": scenario.trace.model_copy(update={"rate_scale": 1.0}),
            "cluster": scenario.cluster.model_copy(update={"replicas": 1}),
            "policies": scenario.policies.model_copy(
                update={"scheduling": PolicySection(name="fcfs"), "routing": None}
            ),
        }
    )
    return _prepared(plain)


@lru_cache(maxsize=8)
def demand_of(reference: Scenario) -> Bootstrap | Fitted:
    """The demand that a scenario's trace stands for, on the clock of the trace as it was recorded.

    Raises:
        BadInput: a fitted workload is wanted, which names no checkpoints, with [weights].
    """
    if reference.weights is not None and reference.plan.demand == "fitted":
        raise BadInput("plan.demand is 'fitted', which names no checkpoints; beside [weights] it must be 'bootstrap'")
    scale = reference.trace.rate_scale
    trace = _prepared(reference).trace.scale_rate(1.0 / scale)
    return Fitted(fit(trace), len(trace)) if reference.plan.demand == "fitted" else Bootstrap(trace)


@lru_cache(maxsize=64)
def drawn(reference: Scenario, requests: int, replication: int) -> Trace:
    """The first requests of a replication, each with its deadline."""
    trace = demand_of(reference).draw(requests, 1000 * reference.seed + replication)
    trace, _ = trace.guided_as(geometry_for(reference.model_name, _prepared(reference).profile))
    return with_deadlines(reference.slo, trace, _prepared(reference).costs.standalone_s)


@lru_cache(maxsize=32)
def demanded(reference: Scenario, requests: int, replication: int, rate_scale: float | None) -> Trace:
    """What `drawn` draws, at a rate, or, None, all at once and without deadlines. Its requests are made once."""
    trace = drawn(reference, requests, replication)
    if rate_scale is None:
        frame = trace.frame
        return Trace(frame.assign(arrival_s=0.0, deadline_s=float("nan"), slo_s=float("nan")), trace.source)
    return trace if rate_scale == 1.0 else trace.scale_rate(rate_scale)


@lru_cache(maxsize=8)
def _prepared(scenario: Scenario) -> Prepared:
    return prepare(scenario)
