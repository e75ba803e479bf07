"""Pools that serve some stages each: what may be, and what is handed on from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from policies.legs import check_stages
from predictors.costs import CostModel
from predictors.handover import HandedOn, StageCosts
from predictors.hardware import PRECISIONS
from predictors.latency_model import LatencyModel
from predictors.link import Link
from tilecast.degrees import kind_of, model_shape
from tilecast.scenario import Scenario
from tilecast.sections import PoolSection
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.stages import ORDINARY

if TYPE_CHECKING:
    from tilecast.served import ServedModel

NETWORK_BYTES_PER_S = 1.25e9
"""Into a replica, where nobody says: 10 Gb/s."""


def stage_costs(
    scenario: Scenario, pool: PoolSection, geometry: ModelGeometry, table: LatencyModel, costs: CostModel
) -> StageCosts:
    """What steps of a model cost on a pool that serves some of its stages.

    Args:
        scenario: as if the pool were the cluster.
        pool: which.
        geometry: of the model.
        table: seconds on one device.
        costs: on the devices of a replica.
    """
    cluster, kind = scenario.cluster, kind_of(scenario, table)
    of_kind = None if kind is None else kind.network_bytes_per_s
    link = Link(cluster.network_latency_s, cluster.network_bytes_per_s or of_kind or NETWORK_BYTES_PER_S)
    precision = scenario.predictor.dtype or (None if kind is None else kind.dtype)
    number_bytes = 2.0 if precision is None else PRECISIONS[precision].number_bytes
    return StageCosts(costs, pool.stages, HandedOn(geometry, model_shape(geometry), number_bytes), link)


def come_twice(scenario: Scenario) -> bool:
    """Whether a request comes to some pool twice: one that serves stages which do not follow each other."""
    for pool in scenario.pools:
        served = [stage in pool.stages for stage in ORDINARY]
        if sum([here and not next_here for here, next_here in pairwise([*served, False])]) > 1:
            return True
    return False


def check_pools(scenario: Scenario, members: Sequence[ServedModel]) -> None:
    """Refuse pools of stages that cannot be.

    Raises:
        BadInput: a stage of a model that no pool serves; pools that share some stages of a model and not others; or
            weights that come and go.
    """
    if not any(pool.stages for pool in scenario.pools):
        return
    for pool in scenario.pools:
        if len(set(pool.stages)) < len(pool.stages):
            raise BadInput(f"pool {pool.name!r}: stages names {_twice(pool.stages)} twice")
    if scenario.weights is not None:
        raise BadInput("[weights] load whole checkpoints, but some pools serve some stages; expected one or the other")
    for model in dict.fromkeys([member.model for member in members]):
        serving = {member.pool.name: frozenset(member.pool.stages) for member in members if member.model == model}
        check_stages(serving, model, ORDINARY)


def _twice(names: Sequence[str]) -> str:
    return next(name for at, name in enumerate(names) if name in names[:at])
