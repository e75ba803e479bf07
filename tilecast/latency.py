"""From a scenario to what a step costs: its profile, its hardware kind, and the table fitted from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from predictors.basis import CALIBRATED, ESTIMATED
from predictors.efficiency import Z80
from predictors.estimate import estimated_table
from predictors.hardware import find_hardware
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from tilecast.file_memo import memoised_by_file
from tilecast.scenario import Scenario
from traces.errors import BadInput
from traces.geometry import GEOMETRIES, ModelGeometry, geometry_from_json, geometry_of
from traces.stages import STAGES


def load_profile(scenario: Scenario) -> Profile | None:
    """The measurements that a scenario names; None: it names none, but a hardware kind.

    Raises:
        BadInput: it names neither, or the file is missing or wrong.
    """
    section = scenario.predictor
    if section.in_memory is not None:
        return section.in_memory
    if section.profile is not None:
        return _load(_find_profile(section.profile, scenario.base))
    if section.hardware is not None:
        return None
    raise BadInput(
        "the scenario names no profile; set predictor.profile, or pass --profile "
        "(tilecast profile --model FOLDER -o P.parquet measures one); "
        "without measurements, predictor.hardware estimates (tilecast hardware list)"
    )


def geometry_for(model: str, profile: Profile | None) -> ModelGeometry:
    """The geometry of a model, known or as its profile has it.

    Raises:
        BadInput: it is in neither.
    """
    if profile is None:
        return geometry_of(model)
    if model not in profile.models:
        raise BadInput(f"the profile measured {', '.join(profile.models)}, not {model!r}")
    if model in GEOMETRIES:
        return GEOMETRIES[model]
    if "geometry" in profile.metadata:
        return geometry_from_json(profile.metadata["geometry"])
    raise BadInput(f"the geometry of model {model!r} is neither known nor in the profile")


def latency_table(
    scenario: Scenario, profile: Profile | None, geometry: ModelGeometry, latency_model: str | None = None
) -> LatencyModel:
    """What steps cost: fitted to the profile; by the roofline of the scenario's hardware; or that calibrated by it.

    Args:
        latency_model: fit this one to the profile, whatever the scenario says.

    Raises:
        BadInput: an unknown model, hardware or latency model; or one is to be fitted, and there is no profile.
    """
    section, executor = scenario.predictor, scenario.cluster.executor
    if section.hardware is not None and latency_model is None:
        kind = find_hardware(section.hardware, scenario.base)
        return estimated_table(
            scenario.model_name,
            kind,
            executor,
            section.dtype,
            engine=section.engine,
            calibration=profile,
            geometry=geometry,
        )
    if profile is None:
        raise BadInput(f"latency model {latency_model!r} is fitted to measurements; set predictor.profile")
    measured = _Measured(profile.content_hash, profile)
    return _fitted(measured, scenario.model_name, executor, latency_model or section.latency_model, geometry)


def trust(table: LatencyModel, profile: Profile | None) -> list[str]:
    """What a reader must know before relying on the table, in sentences; nothing where all was measured and is met."""
    stages = {basis: [stage for stage, of in table.bases.items() if of == basis] for basis in (CALIBRATED, ESTIMATED)}
    notes = []
    if profile is not None and stages[CALIBRATED]:
        notes.append(
            f"{', '.join(stages[CALIBRATED])}: times are CALIBRATED, by measurements on {profile.hardware}, "
            f"taken to be {table.hardware}{_uncertain(table, stages[CALIBRATED])}"
        )
    if stages[ESTIMATED]:
        notes.append(
            f"{', '.join(stages[ESTIMATED])}: times are ESTIMATED from the data sheet of {table.hardware}, not measured"
            f"{_uncertain(table, stages[ESTIMATED])}"
        )
    return notes + table.misfits


def _uncertain(table: LatencyModel, stages: Sequence[str]) -> str:
    """By what factor, in four of five cases, seconds are wrong at most: those of denoising, and of stages of which that
    is another."""
    factors = {stage: f"{math.exp(Z80 * table.log_sds[stage]):.2f}" for stage in stages}
    main = next((stage for stage in stages if STAGES[stage].sampler), max(stages, key=table.log_sds.__getitem__))
    others = [f"{stage} {factor}" for stage, factor in factors.items() if factor != factors[main]]
    return f", and may be wrong by x/÷ {factors[main]} ({', '.join(['80 %', *others])})"


def _find_profile(name: str, base: Path) -> Path:
    beside = base / name
    shipped = Path(str(files("profiles"))) / f"{name}.parquet"
    return shipped if not beside.exists() and shipped.is_file() else beside


_load = memoised_by_file(Profile.load)


@dataclass(frozen=True)
class _Measured:
    """A profile, which is the same as any other with the same measurements."""

    content_hash: str
    profile: Profile = field(compare=False)


@lru_cache(maxsize=32)
def _fitted(
    measured: _Measured, model: str, executor: str, latency_model: str, geometry: ModelGeometry
) -> LatencyModel:
    """Measurements and what was fitted to them are not changed, so all scenarios of a process share them."""
    return LatencyModel.fit(measured.profile, model, executor, latency_model, geometry)
