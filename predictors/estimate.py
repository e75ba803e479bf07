"""A latency table without measurements, or with a few: the roofline of a model on a hardware kind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import exp, hypot
from typing import TYPE_CHECKING

import numpy as np

from predictors.basis import CALIBRATED, ESTIMATED
from predictors.calibration import LEAST_ROWS, calibrated
from predictors.costs import RepeatNoise
from predictors.efficiency import ENGINES, Efficiencies, Setting, shipped_efficiencies
from predictors.features import FeatureMap
from predictors.forms import batch_coordinates
from predictors.hardware import Hardware
from predictors.latency_model import LatencyModel, StageCost
from predictors.measured import MeasuredRange
from predictors.measurements import Measurements
from predictors.misfit import Misfits, misfits
from predictors.profile import Profile
from predictors.roofline import Roofline
from predictors.shapes import ModelShape, shape_of
from traces.composition import Composition
from traces.errors import BadInput, did_you_mean
from traces.geometry import ModelGeometry, geometry_of
from traces.stages import ORDINARY, STAGES

if TYPE_CHECKING:
    from predictors.gaussian import ResidualProcess

LATENCY_MODEL = "roofline"

OTHER_EXECUTOR = 0.1
"""Standard deviation of the logarithm by which what whole batches say of the rates is wrong of another executor. On the
profiles measured both ways, SD3 on an H100 and tiny-image on one core, it makes four of five measurements of the other
lie in the interval that ten whole ones leave."""


LEAST_LIKE = 10
"""Measurements of a stage from which on a batch like them is taken to be missed as they are."""


def forwards_of(executor: str, composition: Composition) -> Sequence[Composition]:
    """What runs together: stacking takes equal sizes, so whole images of several sizes take turns."""
    return [(item,) for item in composition] if executor == "whole" else [composition]


@dataclass(frozen=True)
class RooflineCost(StageCost):
    """One stage by its roofline; what `predictors.latency_model.FittedCost` is for a fitted one.

    Attributes:
        roofline: roofline of the stage.
        log_sd: see `predictors.latency_model.StageCost`.
        basis: `CALIBRATED` or `ESTIMATED`.
        measured: the range of the calibrating measurements; None: there are none.
        noise: theirs.
        misfits: those of them that the calibrated roofline misses.
        residual: what the calibrated roofline misses of batches like the measured ones; None: nothing is known of it.
    """

    roofline: Roofline
    log_sd: float
    basis: str = ESTIMATED
    measured: MeasuredRange | None = None
    noise: RepeatNoise = field(default_factory=RepeatNoise)
    misfits: Misfits = field(default_factory=Misfits)
    residual: ResidualProcess | None = None

    @property
    def features(self) -> FeatureMap:  # type: ignore[override]
        """Stage, executor and geometry."""
        return self.roofline.features

    def forwards(self, composition: Composition) -> Sequence[Composition]:
        """See `forwards_of`."""
        return forwards_of(self.features.executor, composition)

    def of(self, composition: Composition, guided: float, computed: float, cached: bool) -> float:
        """Seconds of one step; see `FeatureMap.row`."""
        return sum([self._forward_s(c, guided, computed, cached) for c in self.forwards(composition)])

    def _forward_s(self, composition: Composition, guided: float, computed: float, cached: bool) -> float:
        seconds = self.roofline.seconds(self.roofline.work(composition, guided, computed))
        if self.residual is None:
            return seconds
        place = batch_coordinates(self.features.row(composition, guided, computed, cached))
        return seconds * exp(float(self.residual.log_ratio(np.array([place]))[0]))

    def log_sd_if_measured(self, compositions: Sequence[Composition]) -> float:
        """What its `log_sd` would be, calibrated by one measurement of each of these batches, at least three.

        They are taken to be as far from what the rates explain as published ones are.
        """
        misfit = shipped_efficiencies().misfit
        works = [[self.roofline.work(c) for c in self.forwards(composition)] for composition in compositions]
        seconds = np.array([sum(map(self.roofline.seconds, forwards)) for forwards in works])
        off = misfit * np.where(np.arange(len(seconds)) % 2, 1.0, -1.0)
        return calibrated(self.roofline, works, seconds * np.exp(off), self.log_sd, misfit).log_sd


def estimated_table(
    model: str,
    hardware: Hardware,
    executor: str = "whole",
    dtype: str | None = None,
    *,
    engine: str = "eager",
    calibration: Profile | None = None,
    geometry: ModelGeometry | None = None,
    shape: ModelShape | None = None,
    efficiencies: Efficiencies | None = None,
) -> LatencyModel:
    """The seconds of ``model`` on ``hardware`` by its roofline.

    Encode and decode run whole whatever the executor, unless the calibrating profile measured them with it. Where it
    has no denoising by this executor but whole ones, these say what rates are reached, and the interval is wider.

    Args:
        dtype: the precision that the denoiser runs in, of `predictors.hardware.PRECISIONS`; by default what is usual on
            the hardware. Quantised or not, encode and decode run in 16 bits.
        engine: one of `predictors.efficiency.ENGINES`.
        calibration: measurements of this model on this hardware, with this executor or whole; stages that it has too
            few rows of stay estimated. None: nothing was measured.
        geometry: geometry of the model; by default the known one of this name.
        shape: likewise.
        efficiencies: what devices reach of their peaks; by default what ships.

    Raises:
        BadInput: unknown model or engine, a precision that the hardware cannot run, or a profile without the model.
    """
    geometry = geometry_of(model) if geometry is None else geometry
    shape = shape_of(model) if shape is None else shape
    dtype = hardware.dtype if dtype is None else dtype
    hardware.check(dtype)
    if engine not in ENGINES:
        raise BadInput(f"unknown engine {engine!r}; {did_you_mean(engine, ENGINES)}")
    known = shipped_efficiencies() if efficiencies is None else efficiencies
    costs: dict[str, RooflineCost] = {}
    for stage in ORDINARY:
        rows = None if calibration is None else _rows(calibration.select(model), executor, stage, geometry)
        runs_as = executor if STAGES[stage].by_executor else "whole"
        if rows is not None and not STAGES[stage].by_executor:
            runs_as = rows.features.executor
        setting = Setting.of_stage(
            hardware=hardware,
            engine=engine,
            precision=dtype,
            network=STAGES[stage].network,
            model=model,
            upcasts=shape.upcasts,
        )
        roofline = Roofline(shape, FeatureMap(geometry, stage, runs_as), setting, known.rates(setting))
        estimate = RooflineCost(roofline, known.log_sd(setting))
        costs[stage] = estimate if rows is None else _calibrated(estimate, rows, known.misfit)
    facts = [calibration.content_hash if calibration is not None else ""]
    facts += [f"{cost.roofline.facts()} {cost.log_sd!r}" for cost in costs.values()]
    data_hash = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return LatencyModel(model, hardware.name, executor, LATENCY_MODEL, costs, data_hash)


def _rows(profile: Profile, executor: str, stage: str, geometry: ModelGeometry) -> Measurements | None:
    """The measurements that calibrate a stage; None where there are too few."""
    for candidate in (executor, "whole"):
        mine = profile.frame[(profile.frame["executor"] == candidate) & (profile.frame["stage"] == stage)]
        if len(mine) >= LEAST_ROWS:
            return Measurements.of(Profile(mine), stage, geometry)
    return None


def _calibrated(estimate: RooflineCost, rows: Measurements, misfit: float) -> RooflineCost:
    frame, roofline = rows.frame, replace(estimate.roofline, features=rows.features)
    works = [
        [roofline.work(forward, guided, computed) for forward in forwards_of(rows.features.executor, composition)]
        for composition, guided, computed in zip(
            rows.compositions, frame["guided"].astype(float), frame["computed"], strict=True
        )
    ]
    found = calibrated(roofline, works, rows.per_step, estimate.log_sd, misfit)
    predicted = np.array([sum(map(found.roofline.seconds, forwards)) for forwards in works])
    residual = None
    if len(rows.frame) >= LEAST_LIKE and all(len(forwards) == 1 for forwards in works):
        from predictors.gaussian import ResidualProcess  # scikit-learn, which a mere estimate does not need

        places = np.array([batch_coordinates(row) for row in rows.matrix.tolist()])
        residual = ResidualProcess.of(places, np.log(rows.per_step / predicted))
        predicted *= np.exp(residual.log_ratio(places))
    as_measured = rows.features.executor == estimate.features.executor
    return RooflineCost(
        estimate.roofline.with_rates(found.roofline.rates),
        found.log_sd if as_measured else hypot(found.log_sd, OTHER_EXECUTOR),
        basis=CALIBRATED,
        measured=MeasuredRange.of(rows.compositions, roofline.features.geometry),
        noise=rows.noise(predicted),
        misfits=misfits(frame, predicted),
        residual=residual,
    )
