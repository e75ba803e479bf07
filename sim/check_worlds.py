"""The small worlds that `sim.check` runs a scheduling policy in, with and without tiled requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from policies.controller import Controller
from policies.pool import Pool
from policies.routing import RoundRobin, RoutingPolicy
from policies.tiling.costs import TiledCosts
from policies.tiling.plan import TilePlans
from policies.tiling.recipe import TilingRule
from policies.tiling.timing import TileDevices
from predictors.costs import Batch, CostModel, RepeatNoise
from sim.world import World
from traces.geometry import ModelGeometry
from traces.request import Request
from traces.stages import STAGES, Recipe, ordinary
from traces.streams import stream

_SIZES = ((256, 256), (256, 384), (512, 512))
_TILED_SIZES = (*_SIZES, (512, 768), (1024, 768))
_RULE = TilingRule(ModelGeometry("check", 32, 4, 64, (512, 512)), refine=0.7, mode="clamp")


_PER_PIXEL = {"encode": 0.0021, "denoise": 0.0137, "upscale": 0.0113, "decode": 0.0071}


class IrregularCosts(CostModel):
    """Irregular step costs, so that events do not coincide by accident."""

    def step_s(self, stage: str, batch: Batch) -> float:
        pixels = sum(size[0] * size[1] * size[2] * n for size, n in batch.composition) / 65536
        per_pixel = _PER_PIXEL.get(stage)
        if per_pixel is None:
            return 0.0019 if STAGES[stage].receives else 0.0
        return 0.0053 + per_pixel * pixels * (0.51 + 0.49 * batch.guided_share) * (
            1.0 if batch.computed is None else batch.computed
        )

    def noise(self, stage: str) -> RepeatNoise:
        return RepeatNoise((0.95, 0.97, 1.0, 1.03, 1.05))


class DividedCosts(IrregularCosts):
    """Costs of replicas of four devices, which denoising and decoding can use; what a change of them moves takes a
    while."""

    def degrees(self, model: str) -> tuple[int, ...]:
        return 1, 2, 4

    def degree(self, stage: str, batch: Batch) -> int:
        return (batch.devices or 4) if STAGES[stage].divides else 1

    def step_s(self, stage: str, batch: Batch) -> float:
        if STAGES[stage].moves:
            return 0.0017
        whole_s = super().step_s(stage, batch)
        degree = batch.devices or 4
        return whole_s if degree == 1 or not STAGES[stage].divides else 0.0031 + (0.11 + 0.89 / degree) * whole_s


@cache
def _tile_plans() -> TilePlans:
    return TilePlans(TiledCosts(IrregularCosts(), _RULE, TileDevices(2)))


class CheckedWorld(NamedTuple):
    """What a policy is run in.

    Attributes:
        replicas: number of replicas.
        rate: requests a second.
        whole_seconds: they come at whole seconds, several at once.
        tiled: some are tiled, over two devices a replica.
        bound: every replica has a queue of its own.
        divided: a replica has four devices, over which a step can be divided.
        stages: of pools that serve some each, of one replica but for the first, which has all others.
    """

    replicas: int
    rate: float
    whole_seconds: bool
    tiled: bool = False
    bound: bool = False
    divided: bool = False
    stages: tuple[tuple[str, ...], ...] = ()

    @property
    def costs(self) -> CostModel:
        """What the policy may ask, and what is true."""
        if self.divided:
            return DividedCosts()
        return _tile_plans().costs if self.tiled else IrregularCosts()

    @property
    def recipe(self) -> Callable[[Request], Recipe]:
        """What requests go through."""
        return _RULE.stages if self.tiled else ordinary

    def controller(
        self,
        policy: Any,
        on_event: Callable[[str, Any, float], None] | None = None,
        routing: RoutingPolicy | None = None,
    ) -> Controller:
        """A fresh controller of this world."""
        if routing is None and self.bound:
            routing = RoundRobin()
        return Controller(policy, self._pools(), recipe=self.recipe, on_event=on_event, routing=routing)

    def _pools(self) -> list[Pool]:
        if not self.stages:
            return [Pool(self.costs, self.replicas, devices=4 if self.divided else 1)]
        replicas = [self.replicas - len(self.stages) + 1, *[1 for _ in self.stages[1:]]]
        return [
            Pool(self.costs, count, name="+".join(stages), stages=frozenset(stages))
            for stages, count in zip(self.stages, replicas, strict=True)
        ]

    def world(self, seed: int) -> World:
        """A fresh world."""
        return World(self.costs, self.replicas, seed, tiles=_tile_plans() if self.tiled else None)

    def requests(self, seed: int, count: int) -> list[Request]:
        """A Poisson trace of a few sizes and two tenants, with and without deadlines."""
        rng = stream(seed, f"check/{count}/{self.rate}")
        costs, sizes = self.costs, _TILED_SIZES if self.tiled else _SIZES
        arrivals = np.cumsum(rng.exponential(1 / self.rate, count))
        requests = []
        for i, arrival in enumerate(arrivals.tolist()):
            height, width = sizes[rng.integers(len(sizes))]
            fields: dict[str, Any] = {
                "request_id": f"r{i}",
                "arrival_s": float(int(arrival)) if self.whole_seconds else arrival,
                "height": height,
                "width": width,
                "steps": int(rng.integers(1, 9)),
                "images": int(rng.choice([1, 1, 1, 2, 6])),
                "guidance_scale": float(rng.choice([5.0, 5.0, 1.0])),
                "tenant": "aab"[i % 3],
                "priority": i % 2,
            }
            slo = float(rng.choice([0, 2, 6])) * costs.standalone_s(Request(**fields))
            requests.append(Request(**fields, slo_s=slo or None))
        return requests


WORLDS = (
    CheckedWorld(1, 2.0, False),
    CheckedWorld(1, 12.0, False),
    CheckedWorld(2, 20.0, True),
    CheckedWorld(3, 9.0, False),
    CheckedWorld(3, 12.0, True, bound=True),
    CheckedWorld(1, 1.5, False, tiled=True),
    CheckedWorld(2, 6.0, True, tiled=True),
    CheckedWorld(1, 9.0, False, divided=True),
    CheckedWorld(2, 24.0, True, divided=True),
    CheckedWorld(3, 12.0, True, stages=(("encode",), ("denoise", "decode"))),
)
