"""From a scenario to how its large requests are tiled: on devices, in simulation, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from policies.caching import CachingPolicy, ComputeAll
from policies.tiling.costs import TiledCosts
from policies.tiling.plan import TilePlans
from policies.tiling.planner import GridPlanner
from policies.tiling.recipe import TilingRule
from policies.tiling.signals import TileSignals
from policies.tiling.timing import TileDevices
from predictors.costs import Batch, CostModel, alone
from predictors.latency_model import LatencyModel
from predictors.shipped import find
from predictors.tile_recording import TileRecording
from predictors.tile_reuse import TileReuse
from tilecast.degrees import tile_link
from tilecast.scenario import Scenario
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.request import Request, Size
from traces.sizes import parse_tile
from traces.trace import Trace

if TYPE_CHECKING:
    from backend.tiled.execution import Tiling

_DRAWS = 8  # draws of the reuse model that an expected share is averaged over
_NUMBER_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class PreparedTiling:
    """A scenario's tiling.

    Attributes:
        scenario: the scenario whose tiling this is.
        rule: which requests are tiled and how.
        devices: the devices per replica and their links.
        caching: decides which tiles are computed; None: all.
        signals: what tiles of simulated requests show; None: none were recorded.
        shares: the share of refinement's seconds that the cache leaves, by size.
        sizes: sizes of the trace's tiled requests.
    """

    scenario: Scenario
    rule: TilingRule
    devices: TileDevices
    caching: CachingPolicy | None
    signals: TileSignals | None
    shares: dict[Size, float]
    sizes: tuple[Size, ...]

    @property
    def windows(self) -> list[Size]:
        """The sizes of everything that tiled requests are sketched and refined at."""
        factor, found = self.rule.geometry.latent_factor, set()
        for size in self.sizes:
            shape = self.rule.shape(size, 1)
            found.add(shape.sketch)
            for step in range(max(shape.shifts.periods)):
                for tile in shape.grid.tiles(shape.shifts.at(step)):
                    found.add((tile.window.height * factor, tile.window.width * factor, size[2]))
        return sorted(found)

    def untiled(self, requests: Iterable[Request]) -> list[Request]:
        """Those of the requests that are not tiled."""
        return [request for request in requests if not self.rule.applies(request.size)]

    def costs(self, table: CostModel) -> TiledCosts:
        """``table`` with the costs of what is tiled."""
        return TiledCosts(table, self.rule, self.devices, self.shares)

    def plans(self, table: CostModel) -> TilePlans:
        """What refining simulated requests takes when ``table`` is the truth.

        Raises:
            BadInput: a caching policy, and no recorded signals to show it.
        """
        if self.caching is not None and self.signals is None:
            raise BadInput(
                f"no tile signals were recorded for {self.scenario.model_name!r}; set predictor.tile_reuse to a file "
                "written by 'tilecast cache record-tiles', or policies.tile_caching to none"
            )
        return TilePlans(self.costs(table), self.caching, self.signals)

    def execution(self, table: LatencyModel) -> Tiling:
        """How a real executor does it; ``table`` tells its placement policy what tiles cost."""
        from backend.tiled.execution import Tiling

        section, cluster = self.scenario.tiling, self.scenario.cluster
        assert section is not None
        costs = self.costs(table)
        return Tiling(
            rule=self.rule,
            positions=section.positions,
            caching=self.caching,
            reuse=section.reuse,
            placement=self.devices.placement,
            seconds=lambda request: costs.window_s(alone(request)),
            batch=section.batch,
            devices=cluster.devices,
            model=self.scenario.model_source,
            dtype=cluster.weights_dtype,
            timeout_s=cluster.rank_timeout_s,
            images=self.scenario.images,
        )


def prepare_tiling(
    scenario: Scenario, geometry: ModelGeometry, table: LatencyModel, trace: Trace
) -> PreparedTiling | None:
    """The tiling of a scenario; None where it has none.

    Raises:
        BadInput: a wrong value, an unknown policy, a missing file, or a grid that a canvas cannot have.
    """
    section, policies, cluster = scenario.tiling, scenario.policies, scenario.cluster
    placement = policies.placement.policy("placement", scenario.base)
    if section is None:
        if policies.tile_caching.name != "none":
            raise BadInput(f"policies.tile_caching is {policies.tile_caching.name!r}; add a [tiling] section")
        return None
    tile = (
        None
        if section.tile in ("native", "planned")
        else parse_tile(section.tile, "tiling.tile", "native, planned, or ")
    )
    rule = TilingRule(
        geometry=geometry,
        above=section.above,
        refine=section.refine,
        tile=tile,
        grids={},
        mode=section.mode,
        overlap=section.overlap,
        stride=section.stride,
        image=section.image,
        stand=section.stand,
    )
    devices = TileDevices(cluster.devices, placement, tile_link(scenario), _NUMBER_BYTES[cluster.weights_dtype])
    sizes = tuple(sorted({request.size for request in trace.requests() if rule.applies(request.size)}))
    if section.tile == "planned":
        planner = GridPlanner(rule, devices, lambda size: table.step_s("denoise", Batch(table.model, ((size, 1),))))
        rule = planner.planned(sizes)
    caching = policies.tile_caching.policy("caching", scenario.base)
    if isinstance(caching, ComputeAll):
        return PreparedTiling(
            scenario=scenario, rule=rule, devices=devices, caching=None, signals=None, shares={}, sizes=sizes
        )
    path = find(scenario.predictor.tile_reuse or scenario.model_name, "tiles", scenario.base)
    if scenario.predictor.tile_reuse is None and not path.is_file():
        return PreparedTiling(
            scenario=scenario, rule=rule, devices=devices, caching=caching, signals=None, shares={}, sizes=sizes
        )
    signals = TileSignals(TileReuse.fit(TileRecording.load(path)), scenario.seed)
    prepared = PreparedTiling(
        scenario=scenario, rule=rule, devices=devices, caching=caching, signals=signals, shares={}, sizes=sizes
    )
    plans = prepared.plans(table)
    usual = {request.size: request for request in trace.requests() if rule.applies(request.size)}
    return replace(prepared, shares={size: plans.expected_share(one, _DRAWS) for size, one in sorted(usual.items())})
