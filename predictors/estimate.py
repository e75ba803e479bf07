"""A latency table without measurements, or with a few: the roofline of a model on a hardware kind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from predictors.basis import CALIBRATED, ESTIMATED
from predictors.calibration import LEAST_ROWS, calibrated
from predictors.costs import RepeatNoise
from predictors.features import FeatureMap
from predictors.hardware import Hardware
from predictors.latency_model import LatencyModel, StageCost
from predictors.measured import MeasuredRange
from predictors.measurements import Measurements
from predictors.profile import Profile
from predictors.roofline import Roofline, default_efficiency
from predictors.shapes import ModelShape, shape_of
from traces.composition import Composition
from traces.geometry import ModelGeometry, geometry_of
from traces.stages import ORDINARY, STAGES

LATENCY_MODEL = "roofline"

_LOG_SD = {ESTIMATED: 0.35, CALIBRATED: 0.1}
"""How far an estimate is off, as the standard deviation of a logarithm."""


def forwards_of(executor: str, composition: Composition) -> Sequence[Composition]:
    """What runs together: stacking takes equal sizes, so whole images of several sizes take turns."""
    return [(item,) for item in composition] if executor == "whole" else [composition]


@dataclass(frozen=True)
class RooflineCost(StageCost):
    """One stage by its roofline; what `predictors.latency_model.FittedCost` is for a fitted one.

    Attributes:
        roofline: roofline of the stage.
        basis: `CALIBRATED` or `ESTIMATED`.
        measured: the range of the calibrating measurements; None: there are none.
        noise: theirs.
    """

    roofline: Roofline
    basis: str = ESTIMATED
    measured: MeasuredRange | None = None
    noise: RepeatNoise = field(default_factory=RepeatNoise)

    @property
    def features(self) -> FeatureMap:  # type: ignore[override]
        """Stage, executor and geometry."""
        return self.roofline.features

    @property
    def log_sd(self) -> float:  # type: ignore[override]
        """By how much its seconds may be off, as the standard deviation of a logarithm."""
        return _LOG_SD[self.basis]

    def forwards(self, composition: Composition) -> Sequence[Composition]:
        """See `forwards_of`."""
        return forwards_of(self.features.executor, composition)

    def of(self, composition: Composition, guided: float, computed: float, cached: bool) -> float:
        """Seconds of one step; see `FeatureMap.row`."""
        roofline = self.roofline
        return sum([roofline.seconds(roofline.work(c, guided, computed)) for c in self.forwards(composition)])


def estimated_table(
    model: str,
    hardware: Hardware,
    executor: str = "whole",
    dtype: str | None = None,
    calibration: Profile | None = None,
    geometry: ModelGeometry | None = None,
    shape: ModelShape | None = None,
) -> LatencyModel:
    """The seconds of ``model`` on ``hardware`` by its roofline.

    Encode and decode run whole whatever the executor, unless the calibrating profile measured them with it.

    Args:
        dtype: what the model runs in; by default what is usual on the hardware.
        calibration: measurements of this model on this hardware, at best with this executor; stages that it has too
            few rows of stay estimated. None: nothing was measured.
        geometry: geometry of the model; by default the known one of this name.
        shape: likewise.

    Raises:
        BadInput: unknown model, no rate for the data type, or a profile without the model.
    """
    geometry = geometry_of(model) if geometry is None else geometry
    shape = shape_of(model) if shape is None else shape
    dtype = hardware.dtype if dtype is None else dtype
    hardware.peak_flops(dtype)
    costs: dict[str, RooflineCost] = {}
    for stage in ORDINARY:
        rows = None if calibration is None else _rows(calibration.select(model), executor, stage, geometry)
        runs_as = executor if STAGES[stage].by_executor else "whole"
        features = FeatureMap(geometry, stage, runs_as) if rows is None else rows.features
        roofline = Roofline(shape, features, hardware, dtype, default_efficiency(stage, dtype))
        costs[stage] = RooflineCost(roofline) if rows is None else _calibrated(roofline, rows)
    facts = [calibration.content_hash if calibration is not None else "", *(c.roofline.facts() for c in costs.values())]
    data_hash = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return LatencyModel(model, hardware.name, executor, LATENCY_MODEL, costs, data_hash)


def _rows(profile: Profile, executor: str, stage: str, geometry: ModelGeometry) -> Measurements | None:
    """The measurements that calibrate a stage; None where there are too few."""
    for candidate in (executor,) if STAGES[stage].by_executor else (executor, "whole"):
        mine = profile.frame[(profile.frame["executor"] == candidate) & (profile.frame["stage"] == stage)]
        if len(mine) >= LEAST_ROWS:
            return Measurements.of(Profile(mine), stage, geometry)
    return None


def _calibrated(roofline: Roofline, rows: Measurements) -> RooflineCost:
    frame = rows.frame
    works = [
        [roofline.work(forward, guided, computed) for forward in forwards_of(roofline.features.executor, composition)]
        for composition, guided, computed in zip(
            rows.compositions, frame["guided"].astype(float), frame["computed"], strict=True
        )
    ]
    fitted = calibrated(roofline, works, rows.per_step)
    predicted = np.array([sum(map(fitted.seconds, forwards)) for forwards in works])
    measured = MeasuredRange.of(rows.compositions, roofline.features.geometry)
    return RooflineCost(fitted, CALIBRATED, measured, rows.noise(predicted))
