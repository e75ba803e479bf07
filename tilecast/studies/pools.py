"""A plan for several pools: a pool whose models no other serves is a plan of its own, pools that share models are
planned together."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from reports.plan.joint import JointPlan
from reports.plan.page import PLAN
from reports.plan.result import Plan
from reports.progress import Tell, silent
from tilecast.demand import check_open, read_trace, served_as
from tilecast.scenario import Scenario
from tilecast.sections import PoolSection
from tilecast.studies.experiment_run import demand_of
from tilecast.studies.joint import JointCase, plan_joint
from tilecast.studies.joint_run import recorded
from tilecast.studies.result_store import kept_in
from tilecast.studies.run import plan
from tilecast.studies.scaling import ScalingPlan, plan_scaling
from traces.errors import BadInput
from traces.trace import Trace


@dataclass(frozen=True)
class PoolPlans:
    """The least replicas of each pool, with which the promise is kept for the requests of every model.

    Attributes:
        of: plans of pools whose one model no other pool serves, by the name of the pool.
        joint: plans of pools that share models, or of one that serves several, by the names of the pools, joined by +.
    """

    of: dict[str, Plan]
    joint: dict[str, JointPlan] = field(default_factory=dict)

    @property
    def _plans(self) -> list[Plan | JointPlan]:
        return [*self.of.values(), *self.joint.values()]

    @property
    def keeps(self) -> bool:
        """Whether for every model there are pools that keep the promise."""
        return all(made.answer is not None for made in self._plans)

    @property
    def price_per_hour(self) -> float:
        """Of all pools; NaN: a price is not known, or of some pools none keep the promise."""
        answers = [made.answer for made in self._plans]
        return sum([math.nan if answer is None else answer.price_per_hour for answer in answers])

    @property
    def replicas(self) -> dict[str, int]:
        """The replicas of each pool where the promise is kept; 0: others do its work for less."""
        found = {name: made.answer.candidate.replicas for name, made in self.of.items() if made.answer is not None}
        for made in self.joint.values():
            found |= {} if made.answer is None else made.answer.replicas
        return found


@dataclass(frozen=True)
class PoolGroup:
    """Pools that no other shares a model with.

    Attributes:
        name: of the pool, or of all of them, joined by +.
        scenario: of the pools and the requests for them alone; of one pool with one model as if it were the cluster.
        models: that they serve, by the names that requests have.
    """

    name: str
    scenario: Scenario
    models: tuple[str, ...]

    @property
    def joint(self) -> bool:
        """Whether several pools share models, or one serves several."""
        return bool(self.scenario.pool)

    @property
    def rate_rps(self) -> float:
        """Requests a second of the trace."""
        demand = recorded(self.scenario) if self.joint else demand_of(self.scenario)
        return demand.rate_rps * self.scenario.trace.rate_scale


def plan_pools(
    scenario: Scenario,
    output: Path | str | None = None,
    *,
    rate_rps: float | Mapping[str, float] | None = None,
    throughput_rps: float | None = None,
    workers: int | None = None,
    progress: Tell = silent,
    **more: Any,
) -> PoolPlans:
    """Find the cheapest replicas of every pool of a scenario with which the promise is kept for every model.

    Pools that share models are planned together, see `tilecast.studies.joint`: of them `attainment` and `headroom`
    alone may be said in ``more``.

    Args:
        scenario: one with pools.
        output: folder with a folder for each pool, or for pools that share models, in which their simulations are kept;
            None: nothing is kept.
        rate_rps: requests a second to plan for: of all models, in the shares of the trace, or of each model by its
            name; None: those of the trace.
        throughput_rps: requests a second that must be completed, likewise of all.
        workers: processes; None: one a core.
        progress: told what is simulated.
        more: what else `tilecast.studies.run.plan` takes, the same for all pools.

    Raises:
        BadInput: whatever is wrong, in one line.
        Interrupted: Ctrl-C; what finished is kept in ``output``.
    """
    check_open(scenario)
    scenario = scenario.replaced({"plan.scaling": (), "scaling": None, "policies.scaling": None})
    groups = pool_groups(scenario)
    if any(group.joint for group in groups):
        _check_joint(scenario, next(group for group in groups if group.joint), more)
    asked = _asked(groups, rate_rps)
    total_rps = sum(asked.values())
    plans: dict[str, Plan] = {}
    joint: dict[str, JointPlan] = {}
    for group in groups:
        own_rps = sum([asked[model] for model in group.models])
        folder = None if output is None else Path(output) / group.name
        own_throughput_rps = None if throughput_rps is None else throughput_rps * own_rps / total_rps
        tell = partial(_told, progress, group.name)
        if not group.joint:
            plans[group.name] = plan(
                group.scenario,
                folder,
                rate_rps=None if rate_rps is None else own_rps,
                throughput_rps=own_throughput_rps,
                workers=workers,
                progress=tell,
                **more,
            )
            continue
        given = {
            "attainment": more.get("attainment"),
            "headroom": more.get("headroom"),
            "throughput": own_throughput_rps,
        }
        promised = group.scenario.replaced({f"plan.{key}": each for key, each in given.items() if each is not None})
        each_rps = tuple([(model, asked[model]) for model in group.models]) if isinstance(rate_rps, Mapping) else ()
        with kept_in(folder, PLAN) as store:
            case = JointCase(promised, each_rps, own_rps)
            joint[group.name] = plan_joint(case, store, workers or os.cpu_count() or 1, tell)
    return PoolPlans(plans, joint)


def plan_pool_scaling(
    scenario: Scenario,
    output: Path | str | None = None,
    *,
    rate_rps: float | Mapping[str, float] | None = None,
    workers: int | None = None,
    progress: Tell = silent,
) -> dict[str, ScalingPlan]:
    """For each pool the policy of ``plan.scaling`` that keeps the promise for its requests for least, by its name.

    See `tilecast.studies.scaling.plan_scaling` and `plan_pools`; a pool has ``pool.NAME.replicas`` at most.

    Raises:
        BadInput: whatever is wrong, in one line; pools share models.
        Interrupted: Ctrl-C; what finished is kept in ``output``.
    """
    groups = pool_groups(scenario)
    if joint := [group for group in groups if group.joint]:
        raise BadInput(
            f"plan.scaling is of pools that serve one model each, none the same, but {joint[0].name} "
            f"{'share' if '+' in joint[0].name else 'serves'} {', '.join(joint[0].models)}; sweep policies.scaling"
        )
    asked = _asked(groups, rate_rps)
    return {
        group.name: plan_scaling(
            group.scenario,
            None if output is None else Path(output) / group.name,
            rate_rps=None if rate_rps is None else asked[group.models[0]],
            workers=workers,
            progress=partial(_told, progress, group.name),
        )
        for group in groups
    }


def _told(progress: Tell, name: str, what: str, *figures: Any) -> Any:
    return progress(f"pool {name}: {what}", *figures)


def _check_joint(scenario: Scenario, group: PoolGroup, more: Mapping[str, Any]) -> None:
    """Refuse what a plan of pools that share models does not do.

    Raises:
        BadInput: it is asked for.
    """
    wanted = [f"--{name}" for name, value in more.items() if value and name not in ("attainment", "headroom")]
    wanted += [f"plan.{name}" for name in ("hardware", "policies") if getattr(scenario.plan, name)]
    if wanted:
        raise BadInput(
            f"{wanted[0]} is of pools that serve one model each, none the same, but {group.name} "
            f"{'share' if '+' in group.name else 'serves'} {', '.join(group.models)}; expected a plan without it"
        )
    if scenario.faults is not None and (scenario.faults.outages or scenario.faults.slow):
        raise BadInput(
            "faults.outages and faults.slow name replicas, whose number is what a plan looks for; expected "
            "faults.mtbf_s and faults.straggler_every_s"
        )


def _asked(groups: list[PoolGroup], rate_rps: float | Mapping[str, float] | None) -> dict[str, float]:
    """Requests a second of each model that is planned for; of a group in which they are not told apart, of the first
    model all."""
    models = [model for group in groups for model in group.models]
    if isinstance(rate_rps, Mapping):
        if set(rate_rps) != set(models):
            raise BadInput(
                f"rates are given for {', '.join(sorted(rate_rps))}; expected one for each of "
                f"{', '.join(sorted(models))}"
            )
        return dict(rate_rps)
    own = {group.name: group.rate_rps for group in groups}
    scale = 1.0 if rate_rps is None else rate_rps / sum(own.values())
    return {
        model: scale * own[group.name] if model == group.models[0] else 0.0
        for group in groups
        for model in group.models
    }


def pool_groups(scenario: Scenario) -> list[PoolGroup]:
    """The pools of a scenario by the models that they share, each group with the requests for it alone.

    Raises:
        BadInput: there is no trace; a request whose model no pool serves, or a pool whose models none asks for.
    """
    if scenario.trace.limit is not None:
        raise BadInput("trace.limit counts the requests of all pools together; expected none where pools are planned")
    whole = read_trace(scenario)
    spelled = {  # by the name that requests have
        scenario.serving(pool, model).model_name: model
        for pool in scenario.pools
        for model in pool.models or (scenario.model,)
    }
    called = {model: name for name, model in spelled.items()}
    wanted = [served_as(name or scenario.model_name, spelled) for name in whole.frame["model"]]
    if "" in wanted:
        row = whole.frame.iloc[wanted.index("")]
        raise BadInput(
            f"{whole.source}: request {row['request_id']!r}: model {row['model'] or scenario.model_name!r} is served "
            f"by no pool; expected one of: {', '.join(sorted(spelled))}"
        )
    for pool in scenario.pools:
        own = [called[model] for model in pool.models or (scenario.model,)]
        if not set(own) & set(wanted):
            raise BadInput(
                f"pool {pool.name!r} serves {', '.join(own)}, which no request of {whole.source} asks for; take it "
                "out, or give it another model"
            )
    groups = _sharing(scenario)
    at = {called[model]: n for n, pools in enumerate(groups) for pool in pools for model in _models(scenario, pool)}
    parts: dict[str, Trace] = {}
    whole.by_part([str(at[name]) for name in wanted], lambda number, part: parts.setdefault(number, part))
    found = []
    for number, pools in enumerate(groups):
        served = dict.fromkeys([called[model] for pool in pools for model in _models(scenario, pool)])
        models = tuple([model for model in served if model in wanted])
        alone = len(pools) == 1 and len(served) == 1
        base = scenario.serving(pools[0], _models(scenario, pools[0])[0]) if alone else scenario
        kept: dict[str, Any] = {"trace.path": parts[str(number)], **({} if alone else {"pool": tuple(pools)})}
        found.append(PoolGroup("+".join([pool.name for pool in pools]), base.replaced(kept), models))
    return found


def _models(scenario: Scenario, pool: PoolSection) -> tuple[str, ...]:
    return pool.models or (scenario.model,)


def _sharing(scenario: Scenario) -> list[list[PoolSection]]:
    """The pools, in order, those together that share a model with each other, be it by way of others."""
    groups: list[list[PoolSection]] = []
    for pool in scenario.pools:
        own = set(_models(scenario, pool))
        joined = [group for group in groups if any(own & set(_models(scenario, each)) for each in group)]
        merged = [each for group in joined for each in group] + [pool]
        groups = [group for group in groups if group not in joined] + [merged]
    order = {pool.name: number for number, pool in enumerate(scenario.pools)}
    groups = [sorted(group, key=lambda pool: order[pool.name]) for group in groups]
    return sorted(groups, key=lambda group: order[group[0].name])
