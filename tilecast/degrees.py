"""From a scenario to what denoising costs on several devices of a replica."""

from __future__ import annotations

from dataclasses import replace

from predictors.costs import CostModel
from predictors.degrees import DegreeRates, ParallelCosts, Sharing, link_at, shipped_degree_rates
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

    Rates are those of the profile's rows of several devices, where it has some, else the shipped ones.

    Raises:
        BadInput: nothing says what of the model several devices can share.
    """
    devices = scenario.cluster.devices
    if devices == 1:
        return table
    kind = _kind(scenario, table)
    shape = _shape(geometry)
    roofline = None if shape is None else _roofline(scenario, table, kind, geometry)
    number_bytes = 2.0 if roofline is None else PRECISIONS[roofline.setting.precision].number_bytes
    sharing = Sharing(shape, geometry, table.executor, roofline, number_bytes)
    rates = shipped_degree_rates()
    rows = None if profile is None else profile.on_several_devices(table.model, table.executor)
    if rows is not None and len(rows):
        from predictors.degree_fit import rates_of_rows  # scikit-learn, which a mere estimate does not need

        rates = rates_of_rows(rows, sharing, table, _sheet_bytes_per_s(kind), rates)
    return ParallelCosts(table, sharing, devices, link=link_for(scenario, kind, rates), rates=rates)


def link_for(scenario: Scenario, kind: Hardware | None, rates: DegreeRates | None = None) -> Link:
    """The link between the devices of a replica: as the scenario says, else as the data sheet of a kind does.

    Args:
        kind: of the devices; None: it is not known.
        rates: what links reach; None: the shipped ones.
    """
    cluster, link = scenario.cluster, Link()
    if kind is not None:
        link = link_at(_sheet_bytes_per_s(kind), rates or shipped_degree_rates())
    given = {"latency_s": cluster.link_latency_s, "bytes_per_s": cluster.link_bytes_per_s}
    return replace(link, **{name: value for name, value in given.items() if value is not None})


def hardware_of(scenario: Scenario) -> Hardware | None:
    """The kind that a scenario names; None: it names none."""
    name = scenario.predictor.hardware
    return None if name is None else find_hardware(name, scenario.base)


def _kind(scenario: Scenario, table: LatencyModel) -> Hardware | None:
    """What the scenario says, or what was measured."""
    kinds = {kind.name: kind for kind in shipped_hardware().values()}
    return hardware_of(scenario) or kinds.get(table.hardware)


def _sheet_bytes_per_s(kind: Hardware | None) -> float:
    """Of a link, in one direction."""
    return Link().bytes_per_s / 2 if kind is None else kind.link_bytes_per_s


def _shape(geometry: ModelGeometry) -> ModelShape | None:
    try:
        return shape_of(geometry.name)
    except BadInput:
        return None


def _roofline(
    scenario: Scenario, table: LatencyModel, kind: Hardware | None, geometry: ModelGeometry
) -> Roofline | None:
    """Of denoising: that of the table, or one of its kind of device."""
    (denoise,) = STAGES.named(lambda stage: stage.divides)
    if kind is not None and not isinstance(table.costs.get(denoise), RooflineCost):
        table = estimated_table(geometry.name, kind, table.executor, engine=scenario.predictor.engine)
    cost = table.costs.get(denoise)
    return cost.roofline if isinstance(cost, RooflineCost) else None
