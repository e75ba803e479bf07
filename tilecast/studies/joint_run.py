"""One simulation of pools that share models: the demand of all of them together, and what it says of each model.

What runs share is remembered by each process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from reports.figures import value
from tilecast.scenario import Scenario
from tilecast.setup import Prepared, prepare
from tilecast.simulation import run_simulation
from tilecast.studies.replication import WARM_UP, observe
from traces.bootstrap import DAY_S, Bootstrap, Fitted, draws_at
from traces.trace import Trace
from traces.workload import fit

Rates = tuple[tuple[str, float], ...]
"""(model, requests a second) of each."""


@dataclass(frozen=True)
class JointRun:
    """A simulation.

    Attributes:
        what: what it is, for people.
        reference: with all pools and the requests of their models; the demand and its deadlines come from it.
        scenario: what runs: those pools that have replicas.
        rates: of each model, where they are asked for one by one; empty: all together, in the shares of the trace.
        rate_rps: of all of them.
        replication: number of the demand's replication.
        requests: about so many of it, of all models.
        harder: times the demand.
    """

    what: str
    reference: Scenario
    scenario: Scenario
    rates: Rates
    rate_rps: float
    replication: int
    requests: int
    harder: float = 1.0

    def __str__(self) -> str:
        return self.what


def run_joint(run: JointRun) -> dict[str, Any]:
    """``models``: by name, as `tilecast.studies.replication.Replication.to_dict`; ``busy``: the share of each pool.

    Raises:
        BadInput: the scenario cannot be simulated.
    """
    trace = drawn(run.reference, run.rates, run.rate_rps, run.requests, run.replication)
    trace = trace if run.harder == 1.0 else trace.scale_rate(run.harder)
    ready = prepared_pools(run.scenario).running(run.scenario, trace)
    controller = run_simulation(ready)
    arrays = ready.arrays(controller)
    period_s = _period_s(run)
    end_s = ready.requests[-1].arrival_s
    models: dict[str, Any] = {}
    for model in dict.fromkeys([member.model for member in ready.members]):
        launched = [record for record in controller.launched if record[0].batch.model == model]
        serving = {member.pool.name for member in ready.members if member.model == model}
        own = arrays.of_model(model, [launch.launch_id for launch, _, _ in launched], serving)
        if not len(own.requests):
            continue
        known = demand_of_model(run.reference, model).recorded
        seen = observe(controller, own, end_s, recorded=known, period_s=period_s, launched=launched)
        models[model] = seen.to_dict()
    within = arrays.between(WARM_UP * end_s, end_s)
    busy = {pool.name: value("utilisation", within.of_pool(pool)) for pool in within.pools}
    return {"models": models, "busy": busy}


def _period_s(run: JointRun) -> float | None:
    """Of a demand that repeats itself, seconds."""
    if not daily(run.reference, run.rates):
        return None
    together = not by_model(run.reference, run.rates)
    return DAY_S / run.harder / (run.rate_rps / recorded(run.reference).rate_rps if together else 1.0)


def by_model(reference: Scenario, rates: Rates) -> bool:
    """Whether the demand of each model is drawn for itself: rates are asked for one by one, or a workload is fitted,
    which is of one model."""
    return bool(rates) or reference.plan.demand == "fitted"


def daily(reference: Scenario, rates: Rates) -> bool:
    """Whether demand has a course of the day."""
    if not by_model(reference, rates):
        return recorded(reference).daily
    return any(demand_of_model(reference, model).daily for model in shares(reference))


@lru_cache(maxsize=8)
def recorded(reference: Scenario) -> Bootstrap:
    """The requests of all models, on the clock of the trace as it was recorded."""
    return Bootstrap(prepared_pools(reference).trace.scale_rate(1.0 / reference.trace.rate_scale))


@lru_cache(maxsize=16)
def demand_of_model(reference: Scenario, model: str) -> Bootstrap | Fitted:
    """The demand of one model, on the clock of the trace as it was recorded.

    Raises:
        BadInput: fewer than two requests are of it.
    """
    whole = recorded(reference).trace
    parts: dict[str, Trace] = {}
    whole.by_part(whole.frame["model"].tolist(), lambda name, part: parts.setdefault(name, part))
    part = parts[model]
    return Fitted(fit(part), len(part)) if reference.plan.demand == "fitted" else Bootstrap(part)


def shares(reference: Scenario) -> dict[str, float]:
    """The share of each model in the requests of the trace."""
    counts = prepared_pools(reference).trace.frame["model"].value_counts(sort=False)
    return {str(model): float(count) / float(counts.sum()) for model, count in counts.items()}


@lru_cache(maxsize=64)
def drawn(reference: Scenario, rates: Rates, rate_rps: float, requests: int, replication: int) -> Trace:
    """About so many requests of a replication, each with its deadline.

    Where rates are asked for by model, each model's demand is drawn for itself, see `traces.bootstrap.draws_at`.
    """
    seed = 1000 * reference.seed + replication
    if not by_model(reference, rates):
        demand = recorded(reference)
        return demand.draw(requests, seed).scale_rate(rate_rps / demand.rate_rps)
    wanted = dict(rates) or {model: share * rate_rps for model, share in shares(reference).items()}
    span_s = requests / sum(wanted.values())
    parts = [
        part
        for number, (model, own_rps) in enumerate(wanted.items())
        for part in draws_at(demand_of_model(reference, model), own_rps, span_s, 97 * seed + number)
    ]
    return parts[0].merge(*parts[1:])


def prepared_pools(scenario: Scenario) -> Prepared:
    """The scenario prepared, whatever its replicas and seed."""
    pools = [pool.model_copy(update={"replicas": 1, "least": None, "initial": None}) for pool in scenario.pool]
    return _prepared(scenario.model_copy(update={"seed": 0, "pool": tuple(pools)}))


@lru_cache(maxsize=16)
def _prepared(scenario: Scenario) -> Prepared:
    return prepare(scenario)
