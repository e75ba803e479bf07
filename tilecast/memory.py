"""Whether models fit on the devices that are to serve them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from predictors.basis import ESTIMATED
from predictors.hardware import find_hardware, shipped_hardware
from predictors.memory import Footprint, footprint, largest_batch
from predictors.shapes import shipped_shapes
from tilecast.scenario import Scenario
from tilecast.served import ServedModel
from traces.geometry import geometry_of
from traces.notes import Note, grave
from traces.request import Request, Size
from traces.sizes import format_size

if TYPE_CHECKING:
    from reports.plan.result import Memory


def memory_of(scenario: Scenario, hardware: str, requests: Sequence[Request]) -> Memory | None:
    """Whether batches of the largest size asked for fit on a device; None where the hardware or the shapes of the model
    are not known."""
    from reports.plan.result import Memory  # simulations need none of it

    if not _known(scenario, hardware):
        return None
    kind, size = find_hardware(hardware, scenario.base), _largest(scenario, requests)
    shape, geometry = shipped_shapes()[scenario.model_name], geometry_of(scenario.model_name)
    dtype, cache_bytes = scenario.predictor.dtype or kind.dtype, _cache_bytes(scenario)
    images = largest_batch(shape, geometry, size, kind.memory_bytes, dtype, cache_bytes=cache_bytes)
    needed = footprint(shape, geometry, size, max(1, images), dtype, cache_bytes=cache_bytes).needed_bytes
    return Memory(needed, kind.memory_bytes, images, ESTIMATED)


class _Held(NamedTuple):
    """What a device holds of a model for one request of the largest size asked for."""

    model: str
    size: Size
    footprint: Footprint


def misfits(members: Iterable[ServedModel], requests: Sequence[Request]) -> list[Note]:
    """What does not fit on the devices of each pool, whose seconds are therefore none that it could have.

    Weights of all models that a pool serves lie there together. Asked is only of times that were not measured, and not
    where weights come and go, see `tilecast.weights`.
    """
    by_pool: dict[str, list[ServedModel]] = {}
    for member in members:
        by_pool.setdefault(member.pool.name, []).append(member)
    return [note for own in by_pool.values() for note in _misfits(own, requests)]


def _misfits(members: Sequence[ServedModel], requests: Sequence[Request]) -> Iterable[Note]:
    first = members[0].scenario
    hardware = first.predictor.hardware
    if hardware is None or first.weights is not None:
        return
    kind, held = find_hardware(hardware, first.base), []
    for member in members:
        own, asked = member.scenario, [request for request in requests if request.model == member.model]
        if not asked or not _known(own, hardware):
            return
        size, shape = _largest(own, asked), shipped_shapes()[own.model_name]
        dtype = own.predictor.dtype or kind.dtype
        needed = footprint(shape, member.geometry, size, 1, dtype, cache_bytes=_cache_bytes(own))
        held.append(_Held(member.model, size, needed))
    there = kind.memory_bytes
    for model, size, needed in held:
        if needed.needed_bytes > there:
            yield _note(model, f"for {format_size(size)}", needed.needed_bytes, kind.name, there)
    together = sum([each.footprint.weights_bytes for each in held])
    together += max([each.footprint.needed_bytes - each.footprint.weights_bytes for each in held])
    if together > there and all(each.footprint.needed_bytes <= there for each in held):
        how = "together, unless [weights] says that they come and go"
        yield _note(" and ".join([each.model for each in held]), how, together, kind.name, there)


def _note(what: str, how: str, needed_bytes: float, hardware: str, there_bytes: float) -> Note:
    return grave(
        f"DOES NOT FIT: {what} take{'' if ' and ' in what else 's'} {needed_bytes / 1e9:.1f} GB {how}, a device has "
        f"{there_bytes / 1e9:.1f} ({hardware}): what was simulated cannot run like this."
    )


def _known(scenario: Scenario, hardware: str) -> bool:
    known = hardware in shipped_hardware() or ".toml" in hardware
    return known and scenario.model_name in shipped_shapes() and scenario.tiling is None


def _largest(scenario: Scenario, requests: Sequence[Request]) -> Size:
    return max({request.size for request in requests}, key=geometry_of(scenario.model_name).tokens)


def _cache_bytes(scenario: Scenario) -> float:
    return float(scenario.cluster.cache_bytes) if scenario.policies.caching.name != "none" else 0.0
