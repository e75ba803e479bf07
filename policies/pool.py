"""A pool: replicas of one kind, and what is known of them before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.scaling.elastic import Elastic
from predictors.costs import CostModel
from traces.stages import STAGES

if TYPE_CHECKING:
    from policies.contract import Launch
    from policies.job import Job
    from predictors.loading import Weights


@dataclass(frozen=True, eq=False)
class Pool:
    """Replicas that are alike: the same hardware, serving the same models.

    Attributes:
        costs: what steps cost on each of them, as far as is known.
        replicas: how many there are, or can be at most.
        name: what people call it; empty where it is the only one.
        models: that it serves; empty: all.
        stages: that it serves; empty: all. See `policies.legs`.
        devices: of each replica.
        price_per_hour: of each device, in any currency; NaN: unknown.
        elastic: how its replicas come and go; None: all are always there.
        weights: its replicas run only what they have loaded, and hold no more than fits; None: all that requests of
            the pool want always lies there.
    """

    costs: CostModel
    replicas: int = 1
    name: str = ""
    models: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    devices: int = 1
    price_per_hour: float = math.nan
    elastic: Elastic | None = None
    weights: Weights | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """For ``run.json``: how much there is of it."""
        price = None if math.isnan(self.price_per_hour) else self.price_per_hour
        served = {"stages": STAGES.named(lambda stage: stage.name in self.stages)} if self.stages else {}
        return {
            "name": self.name,
            "replicas": self.replicas,
            "devices": self.devices,
            "price_per_hour": price,
            **served,
        }

    def serves(self, model: str) -> bool:
        """Whether requests of a model may run there."""
        return not self.models or model in self.models

    def takes(self, job: Job) -> bool:
        """Whether a job may run there."""
        return self.serves(job.request.model) and (not self.stages or job.stage in self.stages)


def extrapolates_on(pools: Sequence[Pool]) -> Callable[[str, Launch], bool]:
    """Whether a stage of a launch lies outside what was measured, by the costs of the replica that ran it."""
    of_replicas = [pool.costs for pool in pools for _ in range(pool.replicas)]

    def extrapolates(stage: str, launch: Launch) -> bool:
        costs = of_replicas[launch.replica].of_model(launch.batch.model)
        return costs.extrapolates(stage, launch.composition)

    return extrapolates
