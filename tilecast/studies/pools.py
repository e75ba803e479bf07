"""A plan for several pools: as every model is served by one of them, each is a plan of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reports.plan.result import Plan
from reports.progress import Tell, silent
from tilecast.demand import read_trace, served_as
from tilecast.scenario import Scenario
from tilecast.studies.experiment_run import demand_of
from tilecast.studies.run import plan
from traces.errors import BadInput
from traces.trace import Trace


@dataclass(frozen=True)
class PoolPlans:
    """The least cluster of each pool, each of which keeps the promise for the requests of its models: so all do.

    Attributes:
        of: plans by the name of the pool.
    """

    of: dict[str, Plan]

    @property
    def keeps(self) -> bool:
        """Whether every pool has a cluster that keeps the promise."""
        return all(made.answer is not None for made in self.of.values())

    @property
    def price_per_hour(self) -> float:
        """Of all clusters; NaN: a price is not known, or a pool has none that keeps the promise."""
        return sum([math.nan if made.answer is None else made.answer.price_per_hour for made in self.of.values()])

    @property
    def replicas(self) -> dict[str, int]:
        """The replicas of each pool that has a cluster that keeps the promise."""
        return {name: made.answer.candidate.replicas for name, made in self.of.items() if made.answer is not None}


def plan_pools(
    scenario: Scenario,
    output: Path | str | None = None,
    *,
    rate_rps: float | Mapping[str, float] | None = None,
    throughput_rps: float | None = None,
    progress: Tell = silent,
    **more: Any,
) -> PoolPlans:
    """Find the least number of replicas of every pool of a scenario that keeps the promise for its requests.

    Args:
        scenario: one whose pools serve one model each, none of them the same.
        output: folder with a folder for each pool, in which its simulations are kept; None: nothing is kept.
        rate_rps: requests a second to plan for: of all models, in the shares of the trace, or of each model by its
            name; None: those of the trace.
        throughput_rps: requests a second that must be completed, likewise of all.
        progress: told what is simulated.
        more: what else `tilecast.studies.run.plan` takes, the same for all pools.

    Raises:
        BadInput: whatever is wrong, in one line.
        Interrupted: Ctrl-C; what finished is kept in ``output``.
    """
    if scenario.plan.scaling:
        raise BadInput(
            "plan.scaling is of a cluster without [[pool]] sections: take it or them out, or sweep policies.scaling"
        )
    own = pool_scenarios(scenario)
    rates = {name: demand_of(each).rate_rps * each.trace.rate_scale for name, each in own.items()}
    asked = _asked(own, rates, rate_rps)
    plans = {}
    for name, each in own.items():
        share = asked[name] / sum(asked.values())
        plans[name] = plan(
            each,
            None if output is None else Path(output) / name,
            rate_rps=None if rate_rps is None else asked[name],
            throughput_rps=None if throughput_rps is None else throughput_rps * share,
            progress=partial(_told, progress, name),
            **more,
        )
    return PoolPlans(plans)


def _told(progress: Tell, name: str, what: str, *figures: Any) -> Any:
    return progress(f"pool {name}: {what}", *figures)


def _asked(
    own: Mapping[str, Scenario], rates: Mapping[str, float], rate_rps: float | Mapping[str, float] | None
) -> dict[str, float]:
    """Requests a second that each pool is planned for."""
    if rate_rps is None:
        return dict(rates)
    if not isinstance(rate_rps, Mapping):
        total_rps = sum(rates.values())
        return {name: rate_rps * rate / total_rps for name, rate in rates.items()}
    models = {each.model_name: name for name, each in own.items()}
    if set(rate_rps) != set(models):
        raise BadInput(
            f"rates are given for {', '.join(sorted(rate_rps))}; expected one for each of {', '.join(sorted(models))}"
        )
    return {models[model]: rate for model, rate in rate_rps.items()}


def pool_scenarios(scenario: Scenario) -> dict[str, Scenario]:
    """For each pool the scenario of its model and the requests for it alone.

    Raises:
        BadInput: a pool serves several models, or a model is served by several pools; there is no trace, or no request
            for a pool's model.
    """
    served: dict[str, str] = {}
    for pool in scenario.pools:
        models = pool.models or (scenario.model,)
        if len(models) > 1:
            raise BadInput(
                f"pool {pool.name!r} serves {len(models)} models: a plan takes pools of one model each; simulate or "
                f"sweep pool.{pool.name}.replicas instead"
            )
        (model,) = models
        if model in served:
            raise BadInput(
                f"{model} is served by the pools {served[model]!r} and {pool.name!r}: a plan takes pools of different "
                f"models; simulate or sweep pool.{pool.name}.replicas instead"
            )
        served[model] = pool.name
    if scenario.trace.limit is not None:
        raise BadInput("trace.limit counts the requests of all pools together; expected none where pools are planned")
    whole = read_trace(scenario)
    own = {
        model: scenario.serving(pool, model) for pool in scenario.pools for model in pool.models or (scenario.model,)
    }
    names = {each.model_name: model for model, each in own.items()}
    wanted = [served_as(name or scenario.model_name, names) for name in whole.frame["model"]]
    if "" in wanted:
        row = whole.frame.iloc[wanted.index("")]
        raise BadInput(
            f"{whole.source}: request {row['request_id']!r}: model {row['model'] or scenario.model_name!r} is served "
            f"by no pool; expected one of: {', '.join(sorted(names))}"
        )
    parts: dict[str, Trace] = {}
    whole.by_part(wanted, lambda name, part: parts.setdefault(name, part))
    if missing := [name for name in names if name not in parts]:
        pool_name = served[names[missing[0]]]
        raise BadInput(
            f"pool {pool_name!r} serves {missing[0]}, which no request of {whole.source} asks for; take it out, or "
            "give it another model"
        )
    return {served[names[name]]: own[names[name]].replaced({"trace.path": part}) for name, part in parts.items()}
