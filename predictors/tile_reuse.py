"""The reuse model of tiles: cache signals for tiled requests that exist only in a simulation.

A modelled request answers like a recorded one of the nearest size, its *donor*: a tile like the donor's tile that lay
nearest at that point of the run. Points and ages are shares of the run, so a recording of 18 steps also says what 45
would do; between recorded steps and ages, and beyond the oldest, magnitudes are interpolated in their logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from predictors.tile_recording import TileRecording
from traces.errors import BadInput
from traces.request import Size
from traces.streams import stream

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_KINDS = ("input_change", "input_shift", "output_level", "output_shift")
_SMALLEST = 1e-12


class Magnitudes(NamedTuple):
    """Means over windows for what is so many steps old, each [tiles, ages]; see `tile_recording.COLUMNS`."""

    input_change: Floats
    input_shift: Floats
    output_level: Floats
    output_shift: Floats


@dataclass(frozen=True, eq=False)
class TileDonor:
    """A recorded request.

    Attributes:
        size: (height, width, frames).
        place: [steps, tiles, 2]: centre of each tile as shares of height and width; NaN where it is missing.
        logs: [steps, tiles, 4, ages]: log10 of the magnitudes, in the order of `Magnitudes`.
    """

    size: Size
    place: Floats
    logs: Floats


class TileTrack:
    """What the tiles of one request would show, at any step and age.

    Args:
        donor: whom it is like.
        steps: its refinement steps.
    """

    def __init__(self, donor: TileDonor, steps: int) -> None:
        self._donor = donor
        self._recorded_per_step = len(donor.logs) / steps

    def magnitudes(self, step: int, place: Floats, ages: Ints) -> Magnitudes:
        """At ``step`` of refinement, for tiles with these centres (as `TileDonor.place`, [tiles, 2])."""
        at = min(step * self._recorded_per_step, len(self._donor.logs) - 1.0)
        low = int(at)
        curves = self._nearest(low, place)
        if at > low:
            curves = (low + 1 - at) * curves + (at - low) * self._nearest(low + 1, place)
        logs = _by_age(curves, (ages * self._recorded_per_step).astype(np.float64))
        return Magnitudes(*(10.0**logs).swapaxes(0, 1))

    def _nearest(self, step: int, place: Floats) -> Floats:
        """[tiles, 4, ages] of the donor's tiles that lie nearest."""
        distance = np.abs(place[:, None] - self._donor.place[step][None]).sum(axis=2)
        return self._donor.logs[step][np.nan_to_num(distance, nan=np.inf).argmin(axis=1)]


@dataclass(frozen=True, eq=False)
class TileReuse:
    """What the signals of a model's tiles look like.

    Attributes:
        model: which model was recorded.
        latent_factor: pixels a latent pixel.
        steps: refinement steps of the recorded requests.
        donors: the recorded requests.
    """

    model: str
    latent_factor: int
    steps: int
    donors: tuple[TileDonor, ...]

    @classmethod
    def fit(cls, recording: TileRecording) -> TileReuse:
        """The model of a recording, in milliseconds.

        Raises:
            BadInput: it was recorded with a single age, so it does not say how change grows.
        """
        frame = recording.frame
        ages = int(frame["age"].max())
        if ages < 2:
            raise BadInput("the recording has only age 1, expected ages up to at least 2 to see how change grows")
        donors = tuple(_donor(rows, recording.steps, ages) for _, rows in frame.groupby("request_id"))
        return cls(recording.model, recording.latent_factor, recording.steps, donors)

    @property
    def draws(self) -> int:
        """How many different requests of one size it can make at most: one a recorded request."""
        return len(self.donors)

    def draw_of(self, request_id: str, seed: int = 0) -> int:
        """Which of the draws a request is, from the named stream ``reuse/<request id>``."""
        return int(stream(seed, f"reuse/{request_id}").integers(self.draws))

    def track(self, size: Size, steps: int, draw: int) -> TileTrack:
        """The signals of a request of this size and number of refinement steps; equal draws give equal signals."""

        def far(donor: TileDonor) -> float:
            return sum(abs(log(a / b)) for a, b in zip(size, donor.size, strict=True))

        least = min(map(far, self.donors))
        candidates = [donor for donor in self.donors if far(donor) == least]
        return TileTrack(candidates[draw % len(candidates)], steps)


def _donor(rows: pd.DataFrame, steps: int, ages: int) -> TileDonor:
    tiles, tile = np.unique(rows["tile"].to_numpy(), return_inverse=True)
    step = rows["step"].to_numpy()
    logs = np.full((steps, len(tiles), len(_KINDS), ages), np.nan)
    for index, kind in enumerate(_KINDS):
        value = np.maximum(rows[kind].to_numpy(np.float64), _SMALLEST)
        logs[step, tile, index, rows["age"].to_numpy() - 1] = np.log10(value)
    place = np.full((steps, len(tiles), 2), np.nan)
    place[step, tile] = rows[["down", "across"]].to_numpy(np.float64)
    place[0] = np.where(np.isnan(place[0]), place[1], place[0])
    for column in logs.reshape(steps, -1).T:  # views: a tile's magnitude at one age, over the steps
        have = np.flatnonzero(~np.isnan(column))
        if len(have):
            column[:] = np.interp(np.arange(steps), have, column[have])
    if np.isnan(logs).all(axis=1).any():
        raise BadInput(f"request {rows['request_id'].iat[0]!r} has no rows of some age up to {ages}")
    logs = np.where(np.isnan(logs), np.nanmean(logs, axis=1, keepdims=True), logs)
    first = rows.iloc[0]
    return TileDonor((int(first["height"]), int(first["width"]), int(first["frames"])), place, logs)


def _by_age(curves: Floats, age: Floats) -> Floats:
    """[tiles, 4, wanted ages]: at fractional ages, linear in the logarithm of the age, beyond the recorded ones too."""
    low = np.clip(age.astype(np.int64), 1, curves.shape[2] - 1)
    share = np.log(age / low) / np.log((low + 1) / low)
    return (1 - share) * curves[:, :, low - 1] + share * curves[:, :, low]
