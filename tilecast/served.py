"""One model on one pool: everything that its seconds follow from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from policies.pool import Pool
from policies.scaling.elastic import Elastic
from predictors.by_model import ByModel
from predictors.costs import CostModel
from predictors.latency_model import LatencyModel
from predictors.loading import Weights
from predictors.profile import Profile
from tilecast.degrees import degree_costs
from tilecast.latency import geometry_for, latency_table, load_profile
from tilecast.scenario import Scenario
from tilecast.sections import PoolSection
from tilecast.stages import stage_costs
from traces.errors import BadInput
from traces.geometry import ModelGeometry


@dataclass(frozen=True)
class ServedModel:
    """A model that a pool serves.

    Attributes:
        pool: which.
        scenario: as if the pool were the cluster and served nothing else.
        profile: measurements of it there, if there are any.
        geometry: of the model.
        table: what its steps cost there.
    """

    pool: PoolSection
    scenario: Scenario
    profile: Profile | None
    geometry: ModelGeometry
    table: LatencyModel

    @property
    def model(self) -> str:
        """The name of the model in requests and profiles."""
        return self.scenario.model_name

    def on_devices(self, table: LatencyModel) -> CostModel:
        """What steps cost on the devices of a replica where a table says what they cost on one."""
        costs = degree_costs(self.scenario, self.profile, self.geometry, table)
        return stage_costs(self.scenario, self.pool, self.geometry, table, costs) if self.pool.stages else costs

    def world_table(self) -> LatencyModel:
        """The measured table that the simulated world takes its durations from."""
        latency_model = self.scenario.world.latency_model
        if latency_model is None:
            return self.table
        return latency_table(self.scenario, self.profile, self.geometry, latency_model)

    def predictor(self) -> LatencyModel:
        """What policies believe before anything has run; of an oracle, what is so."""
        scenario = self.scenario
        if scenario.predictor.oracle:
            return self.world_table().scaled(scenario.world.slowdown)
        error = scenario.predictor.error
        return self.table.scaled(1.0 + error) if error else self.table


def as_measured(scenario: Scenario, profile: Profile | None) -> Scenario:
    """A scenario whose cached patches are those with which the cache was measured, where it does not say it."""
    measured = "" if profile is None else profile.metadata.get("cache_patch", "")
    if scenario.cluster.cache_patch is not None or scenario.policies.caching.name == "none" or not measured.isdigit():
        return scenario
    return scenario.replaced({"cluster.cache_patch": int(measured)})


def served_models(scenario: Scenario) -> list[ServedModel]:
    """Every model on every pool of a scenario, the pools in order.

    Raises:
        BadInput: a profile, a hardware kind or a model that is wrong or unknown; of several pools it is named.
    """
    found = []
    for pool in scenario.pools:
        for model in pool.models or (scenario.model,):
            own = scenario.serving(pool, model)
            try:
                profile = load_profile(own)
                own = as_measured(own, profile)
                geometry = geometry_for(own.model_name, profile)
                found.append(ServedModel(pool, own, profile, geometry, latency_table(own, profile, geometry)))
            except BadInput as error:
                raise BadInput(f"pool {pool.name!r}: {error}" if scenario.pool else str(error)) from error
    return found


def pools_of(
    members: Sequence[ServedModel],
    costs: Callable[[ServedModel], CostModel],
    weights: Mapping[str, Weights] | None = None,
    elastic: Mapping[str, Elastic] | None = None,
) -> list[Pool]:
    """The pools of a cluster.

    Args:
        members: of all pools.
        costs: what steps of one model cost on one pool.
        weights: by the name of the pool; None: all that requests want is always there.
        elastic: how its replicas come and go, by its name; empty: they are always there.
    """
    by_pool: dict[str, list[ServedModel]] = {}
    for member in members:
        by_pool.setdefault(member.pool.name, []).append(member)
    pools = []
    for name, own in by_pool.items():
        section = own[0].pool
        of = {member.model: costs(member) for member in own}
        sole, cluster = len(members) == 1, own[0].scenario.cluster
        pools.append(
            Pool(
                costs=next(iter(of.values())) if sole else ByModel(of),
                replicas=section.replicas,
                name=name,
                models=frozenset() if sole else frozenset(of),
                stages=frozenset(section.stages),
                devices=cluster.devices,
                price_per_hour=math.nan if cluster.price_per_hour is None else cluster.price_per_hour,
                elastic=(elastic or {}).get(name),
                weights=None if weights is None else weights[name],
            )
        )
    return pools
