"""From a scenario to what denoising costs on several devices of a replica."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import exp

from policies.contract import SchedulingPolicy
from policies.guard import is_of
from policies.scheduling.elastic import ElasticPolicy
from predictors.costs import CostLayer, CostModel
from predictors.degrees import DegreeRates, ParallelCosts, Sharing, link_at, shipped_degree_rates
from predictors.efficiency import Z80
from predictors.estimate import RooflineCost, estimated_table
from predictors.hardware import PRECISIONS, Hardware, find_hardware, shipped_hardware
from predictors.latency_model import LatencyModel
from predictors.link import Link
from predictors.profile import Profile
from predictors.roofline import Roofline
from predictors.shapes import ModelShape, shape_of
from tilecast.scenario import Scenario
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.stages import STAGES


def degree_costs(
    scenario: Scenario, profile: Profile | None, geometry: ModelGeometry, table: LatencyModel
) -> CostModel:
    """What steps cost on as many devices as a replica has: the table itself where it has one.

    Args:
        profile: the scenario's.
        geometry: of the model.
        table: seconds on one device.
    """
    if scenario.cluster.devices == 1:
        return table
    costs = on_devices(
        replace(table, factor=1.0),
        scenario.cluster.devices,
        geometry=geometry,
        kind=kind_of(scenario, table),
        profile=profile,
        engine=scenario.predictor.engine,
        link=lambda found: _as_given(scenario, found),
        decodes=scenario.tiling is None or scenario.tiling.decode_together,
    )
    return costs if table.factor == 1.0 else costs.scaled(table.factor)  # hosts and links, too, are slower


def on_devices(
    table: LatencyModel,
    devices: int,
    *,
    geometry: ModelGeometry,
    kind: Hardware | None,
    profile: Profile | None = None,
    engine: str = "eager",
    link: Callable[[Link], Link] = lambda found: found,
    decodes: bool = True,
) -> ParallelCosts:
    """What a model's steps cost on up to so many devices where a table says what they cost on one.

    Rates are those of the profile's rows of several devices, where it has some, else the shipped ones.

    Args:
        geometry: of the model.
        kind: of the devices; None: it is not known.
        profile: measurements; None: there are none.
        engine: one of `predictors.efficiency.ENGINES`, where the table was measured.
        link: makes the link of what is found of it.
        decodes: whether they may decode together.
    """
    shape = model_shape(geometry)
    rooflines = {} if shape is None else _rooflines(table, kind, geometry, engine)
    roofline = rooflines.get(_DENOISE)
    number_bytes = 2.0 if roofline is None else PRECISIONS[roofline.setting.precision].number_bytes
    sharing = Sharing(shape, geometry, table.executor, roofline, number_bytes, rooflines.get(_DECODE))
    rates = decoding = shipped_degree_rates()
    rows = None if profile is None else profile.on_several_devices(table.model, table.executor)
    if rows is not None and len(rows):
        from predictors.degree_fit import rates_of_rows  # scikit-learn, which a mere estimate does not need

        sheet = _sheet_bytes_per_s(kind)
        rates = rates_of_rows(rows, sharing, table, sheet, rates)
        alike = rates.model_copy(update={"measured": {}})  # of the same hosts and links
        decoding = rates_of_rows(rows, sharing, table, sheet, alike, decoding=True)
    return ParallelCosts(
        table,
        sharing,
        devices,
        link=link(_link(kind, rates)),
        rates=rates,
        decoding=(link(_link(kind, decoding)), decoding),
        decodes=decodes,
    )


def degree_notes(costs: CostModel, model: str) -> list[str]:
    """What a reader must know before relying on seconds on several devices, in sentences; nothing of one device."""
    if not isinstance(costs, ParallelCosts):
        return []
    offered = [degree for degree in costs.degrees(model) if degree > 1]
    if not offered:
        return [f"devices: {model} can run a step on one device only, so the others of a replica do not shorten one"]
    estimated = [degree for degree in offered if degree not in costs.rates.measured]
    if not estimated:
        return []
    return [
        f"devices: times on {', '.join(map(str, estimated))} are ESTIMATED from those on one, not measured, and may be "
        f"wrong by x/÷ {exp(Z80 * costs.rates.log_sd):.2f} (80 %)"
    ]


def without_choice(policy: SchedulingPolicy, name: str, degrees: Iterable[int]) -> list[str]:
    """That a policy which chooses degrees has only one device to choose, in a sentence; nothing where it has more.

    Args:
        policy: which.
        name: what it is called.
        degrees: on how many devices requests can run here.
    """
    if not is_of(policy, ElasticPolicy) or max(degrees) > 1:
        return []
    return [
        f"{name} serves one request a device at a time here: it never batches, and of how many devices a request gets "
        "it has only 1 to choose; give replicas several devices (cluster.devices) and a model whose steps can be "
        "divided, or choose a scheduler that batches (lookahead)"
    ]


def degree_log_sd(costs: CostModel) -> float:
    """Standard deviation of the logarithm of true over predicted seconds on the largest degree that is offered, where
    those on one device are known; 0.0 where steps are not divided."""
    while isinstance(costs, CostLayer) and not isinstance(costs, ParallelCosts):
        costs = costs.table
    if not isinstance(costs, ParallelCosts) or (most := costs.degrees("")[-1]) == 1:
        return 0.0
    return costs.rates.log_sd_of(most)


def tile_link(scenario: Scenario) -> Link:
    """The link between devices that share tiles: as the scenario says, else by the data sheet of its hardware."""
    return _as_given(scenario, _link(hardware_of(scenario), shipped_degree_rates()))


def _as_given(scenario: Scenario, link: Link) -> Link:
    """A link with what the scenario says of it."""
    given = {"latency_s": scenario.cluster.link_latency_s, "bytes_per_s": scenario.cluster.link_bytes_per_s}
    return replace(link, **{name: value for name, value in given.items() if value is not None})


def hardware_of(scenario: Scenario) -> Hardware | None:
    """The kind that a scenario names; None: it names none."""
    name = scenario.predictor.hardware
    return None if name is None else find_hardware(name, scenario.base)


def kind_of(scenario: Scenario, table: LatencyModel) -> Hardware | None:
    """What the scenario says, or what was measured."""
    kinds = {kind.name: kind for kind in shipped_hardware().values()}
    return hardware_of(scenario) or kinds.get(table.hardware)


def _link(kind: Hardware | None, rates: DegreeRates) -> Link:
    return Link() if kind is None else link_at(kind.link_bytes_per_s, rates)


def _sheet_bytes_per_s(kind: Hardware | None) -> float:
    """Of a link, in one direction."""
    return Link().bytes_per_s / 2 if kind is None else kind.link_bytes_per_s


def model_shape(geometry: ModelGeometry) -> ModelShape | None:
    try:
        return shape_of(geometry.name)
    except BadInput:
        return None


def _rooflines(
    table: LatencyModel, kind: Hardware | None, geometry: ModelGeometry, engine: str
) -> dict[str, Roofline | None]:
    """Of denoising and decoding: those of the table, or of its kind of device."""
    if kind is not None and not isinstance(table.costs.get(_DENOISE), RooflineCost):
        table = estimated_table(geometry.name, kind, table.executor, engine=engine)
    costs = {stage: table.costs.get(stage) for stage in (_DENOISE, _DECODE)}
    return {stage: cost.roofline if isinstance(cost, RooflineCost) else None for stage, cost in costs.items()}


(_DENOISE,) = STAGES.named(lambda stage: stage.divides and stage.sampler)
(_DECODE,) = STAGES.named(lambda stage: stage.divides and stage.finishes)
