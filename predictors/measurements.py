"""The measurements of one model, executor and stage, as a learner sees them: X and y."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from predictors.costs import RepeatNoise
from predictors.features import FeatureMap, sizes_in
from predictors.noise import repeat_noise
from predictors.profile import Profile
from traces.composition import Composition, parse
from traces.geometry import ModelGeometry


@dataclass(frozen=True)
class Measurements:
    """The rows of one model, executor and stage, as X and y."""

    frame: pd.DataFrame
    features: FeatureMap

    @cached_property
    def compositions(self) -> list[Composition]:
        """What each row measured."""
        return [parse(text) for text in self.frame["composition"]]

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        """Features, shape (rows, columns)."""
        shares = (self.frame[name].tolist() for name in ("guided", "computed", "cached"))
        return self.features.matrix(self.compositions, *shares)

    @cached_property
    def per_step(self) -> npt.NDArray[np.float64]:
        """Seconds per step, shape (rows,)."""
        return (self.frame["seconds"] / self.frame["steps"]).to_numpy(dtype=np.float64)

    @classmethod
    def of(cls, profile: Profile, stage: str, geometry: ModelGeometry) -> Measurements:
        """The rows of ``stage`` in a profile of one model and one executor."""
        frame = profile.frame[profile.frame["stage"] == stage].reset_index(drop=True)
        sizes = sizes_in(parse(text) for text in frame["composition"].unique())
        return cls(frame, FeatureMap(geometry, stage, str(profile.frame["executor"].iat[0]), sizes))

    def noise(self, predicted: npt.NDArray[np.float64]) -> RepeatNoise:
        """The noise of these rows, given the fitted model's seconds per step for each."""
        return repeat_noise(self.frame, predicted)
