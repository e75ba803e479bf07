"""The reuse model: cache signals for requests that exist only in a simulation.

A caching policy decides by how much a block's input has changed. On a device those numbers come from tensors; here
they are drawn from what `predictors.recording` recorded, so that the policy sees numbers either way. A modelled signal
is, in decimal logarithms,

    typical change of the block at that point of the run, by the age of what would be reused
    + how much livelier than typical a recorded request's unit was at that point (a *donor* of the nearest size)
    + the rest, drawn anew for every unit, block and step.

Points and ages are shares of the run, so a recording of 20 steps also says what 50 steps would do: neighbouring steps
of a longer run differ less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt
import pandas as pd

from predictors.forest import SMALLEST_CHANGE
from predictors.recording import PatchGrid, Recording
from traces.errors import BadInput
from traces.request import Request, Size
from traces.streams import stream

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Donor:
    """A recorded request: where its units lie and how lively they were.

    Attributes:
        size: (height, width) in pixels.
        place: [units, 3]: guided row or not (1, 0), and the centre of the patch as shares of height and width.
        residual: [units, steps]: log10 of the change over the typical one.
    """

    size: tuple[int, int]
    place: Floats
    residual: Floats


class SignalTrack:
    """The modelled signals of one request, at any block, step and age.

    Args:
        input_curve: [steps, blocks, ages] log10 of the typical change, ages counted in recorded steps.
        skip_curve: the same for skips; NaN for blocks without.
        base: [blocks, steps, units] what is added for each unit.
        recorded_per_step: recorded steps that a step of the request spans.
    """

    def __init__(self, input_curve: Floats, skip_curve: Floats, base: Floats, recorded_per_step: float) -> None:
        self._curves = (input_curve, skip_curve)
        self._base = base
        self._recorded_per_step = recorded_per_step

    @property
    def units(self) -> int:
        """Units of the request."""
        return int(self._base.shape[2])

    @property
    def blocks(self) -> int:
        """Blocks of the model."""
        return int(self._base.shape[0])

    def input_change(self, block: int, step: int, age: Ints) -> Floats:
        """Relative mean squared change of each unit's input over the last ``age`` steps, [units]; 0 for age 0."""
        return self._change(0, block, step, age)

    def skip_change(self, block: int, step: int, age: Ints) -> Floats:
        """The same for what comes in by skips; 0 where the block has none."""
        return self._change(1, block, step, age)

    def _change(self, kind: int, block: int, step: int, age: Ints) -> Floats:
        curve = self._curves[kind][step, block]
        if np.isnan(curve[0]):
            return np.zeros(len(age))
        by_age = np.append(-np.inf, _by_age(curve, np.arange(1, age.max(initial=0) + 1) * self._recorded_per_step))
        return 10.0 ** (by_age[age] + self._base[block, step])


@dataclass(frozen=True, eq=False)
class ReuseModel:
    """What a model's cache signals look like.

    Attributes:
        model: which model was recorded.
        grid: how an image is cut into units.
        steps: denoising steps of the recorded requests.
        block_weights: share of a step's time that each block takes.
        input_curve: [blocks, steps, ages] log10 of the typical change of the input, ages 1, 2, ...
        skip_curve: the same for skips; NaN for blocks without.
        spread: [blocks] standard deviation of what is drawn anew.
        donors: the recorded requests.
        content_hash: SHA-256 of the recording.
    """

    model: str
    grid: PatchGrid
    steps: int
    block_weights: tuple[float, ...]
    input_curve: Floats
    skip_curve: Floats
    spread: Floats
    donors: tuple[Donor, ...]
    content_hash: str

    @classmethod
    def fit(cls, recording: Recording, patch: int | None = None) -> ReuseModel:
        """The model of a recording, in milliseconds.

        Args:
            patch: how images will be cut, see `PatchGrid`; None: as they were when recorded. A larger unit changes
                like the recorded units that lie in it do on average.

        Raises:
            BadInput: it was recorded with a single age, so it does not say how change grows.
        """
        frame = recording.frame
        ages = int(frame["age"].max())
        if ages < 2:
            raise BadInput("the recording has only age 1, expected ages up to at least 2 to see how change grows")
        shape = (recording.blocks, recording.steps, ages)
        cell = (frame["block"].to_numpy(), frame["step"].to_numpy(), frame["age"].to_numpy() - 1)
        change = np.log10(np.maximum(frame["input_change"].to_numpy(np.float64), SMALLEST_CHANGE))
        skip = frame["skip_change"].to_numpy(np.float64)
        log_skip = np.where(skip > 0, np.log10(np.maximum(skip, SMALLEST_CHANGE)), np.nan)
        input_curve, skip_curve = _curve(cell, change, shape), _curve(cell, log_skip, shape)
        residual = change - input_curve[cell]
        donors, rest = [], np.empty(len(frame))
        for _, rows in frame.groupby("request_id").indices.items():
            part = frame.iloc[rows]
            units, unit = np.unique(part["unit"].to_numpy(), return_inverse=True)
            by_step = _mean_by_step(unit, part["step"].to_numpy(), residual[rows], (len(units), recording.steps))
            rest[rows] = residual[rows] - by_step[unit, part["step"].to_numpy()]
            size = (int(part["height"].to_numpy()[0]), int(part["width"].to_numpy()[0]))
            donors.append(Donor(size, _places(recording.grid.of(*size), units), by_step))
        spread = np.sqrt(pd.Series(rest**2).groupby(cell[0]).mean().to_numpy())
        digest = hashlib.sha256(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
        return cls(
            model=recording.model,
            grid=recording.grid if patch is None else PatchGrid(patch, recording.grid.floor),
            steps=recording.steps,
            block_weights=recording.block_weights,
            input_curve=input_curve,
            skip_curve=skip_curve,
            spread=spread,
            donors=tuple(donors),
            content_hash=digest.hexdigest(),
        )

    @property
    def blocks(self) -> int:
        """Blocks of the model."""
        return len(self.input_curve)

    @property
    def draws(self) -> int:
        """How many different requests of one size it can make: one a recorded request."""
        return len(self.donors)

    def draw_of(self, request_id: str, seed: int = 0) -> int:
        """Which of the draws a request is, from the named stream ``reuse/<request id>``."""
        return int(stream(seed, f"reuse/{request_id}").integers(self.draws))

    def track(self, size: Size, steps: int, rows: int, guided: bool, draw: int) -> SignalTrack:
        """The signals of a request.

        Args:
            size: (height, width, frames).
            steps: its denoising steps.
            rows: rows it has in a batch: its images, twice if guided; the first half is unguided then.
            guided: whether classifier-free guidance doubles them.
            draw: 0 to `draws` less 1; equal draws give equal signals.
        """
        height, width, _ = size
        candidates = self._nearest((height, width))
        donor = candidates[draw % len(candidates)]
        down, across = self.grid.of(height, width)
        patches = down * across
        place = _places((down, across), np.arange(rows * patches))
        row = np.arange(rows * patches) // patches
        place[:, 0] = (row >= rows / 2) if guided else 1.0
        share = _shares_of_donor(place, donor.place, (down, across))
        at = np.minimum(np.arange(steps) * (self.steps / steps), self.steps - 1.0)
        drawn = stream(0, f"reuse/{draw}/{height}x{width}/{steps}/{rows}")
        noise = drawn.standard_normal((self.blocks, steps, len(place))) * self.spread[:, None, None]
        noise *= np.sqrt((share**2).sum(axis=1))
        base = noise + _interpolated(donor.residual.T, at) @ share.T
        inputs, skips = (_interpolated(curve.swapaxes(0, 1), at) for curve in (self.input_curve, self.skip_curve))
        return SignalTrack(inputs, skips, base, self.steps / steps)

    def _nearest(self, size: tuple[int, int]) -> list[Donor]:
        def far(other: tuple[int, int]) -> float:
            return sum(abs(log(a / b)) for a, b in zip(size, other, strict=True))

        least = min(far(donor.size) for donor in self.donors)
        return [donor for donor in self.donors if far(donor.size) == least]


def rows_of(request: Request) -> int:
    """Rows of a request in a batch."""
    return request.images * (2 if request.guided else 1)


def _places(patches: tuple[int, int], units: Iterable[int]) -> Floats:
    """[units, 3]: row (as `Donor.place` counts it), centre down, centre across."""
    down, across = patches
    row, index = np.divmod(np.asarray(units), down * across)
    row_down, row_across = np.divmod(index, across)
    return np.stack([np.minimum(row, 1.0), (row_down + 0.5) / down, (row_across + 0.5) / across], axis=1)


def _shares_of_donor(place: Floats, donor: Floats, patches: tuple[int, int]) -> Floats:
    """[units, donor's units]: the mean of the donor's units that lie in each unit, or else the nearest one."""
    apart = np.abs(place[:, None] - donor[None])
    inside = (apart[:, :, 0] == 0) & (apart[:, :, 1] <= 0.5 / patches[0]) & (apart[:, :, 2] <= 0.5 / patches[1])
    distance = (apart * np.array([4.0, 1.0, 1.0])).sum(axis=2)  # another row only where there is none of its own
    nearest = np.arange(len(donor)) == distance.argmin(axis=1)[:, None]
    chosen = np.where(inside.any(axis=1)[:, None], inside, nearest)
    return chosen / chosen.sum(axis=1, keepdims=True)


def _curve(cell: tuple[Ints, Ints, Ints], value: Floats, shape: tuple[int, int, int]) -> Floats:
    """Mean of the values of each cell, [blocks, steps, ages]; cells without one take it from the nearest steps."""
    known = ~np.isnan(value)
    where = np.ravel_multi_index(tuple(index[known] for index in cell), shape)
    size = int(np.prod(shape))
    count = np.bincount(where, minlength=size)
    total = np.bincount(where, weights=value[known], minlength=size)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(shape)
    steps = np.arange(shape[1])
    for block in range(shape[0]):
        for age in range(shape[2]):
            have = ~np.isnan(mean[block, :, age])
            if have.any():
                mean[block, :, age] = np.interp(steps, steps[have], mean[block, have, age])
        unseen = np.isnan(mean[block]).any(axis=0)
        if unseen.any() and not unseen.all():
            raise BadInput(f"the recording has no row of block {block} and age {int(unseen.argmax()) + 1}")
    return mean


def _mean_by_step(unit: Ints, step: Ints, value: Floats, shape: tuple[int, int]) -> Floats:
    """Mean over blocks, [units, steps]; steps without a row take the nearest one's."""
    where = np.ravel_multi_index((unit, step), shape)
    count = np.bincount(where, minlength=shape[0] * shape[1]).reshape(shape)
    total = np.bincount(where, weights=value, minlength=shape[0] * shape[1]).reshape(shape)
    mean = total / np.maximum(count, 1)
    steps = np.arange(shape[1])
    for row in range(shape[0]):
        have = count[row] > 0
        mean[row] = np.interp(steps, steps[have], mean[row, have])
    return mean


def _interpolated(values: Floats, at: Floats) -> Floats:
    """Values [steps, ...] at fractional steps ``at``."""
    low = np.minimum(at.astype(np.int64), len(values) - 1)
    high = np.minimum(low + 1, len(values) - 1)
    share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return (1 - share) * values[low] + share * values[high]


def _by_age(curve: Floats, age: Floats) -> Floats:
    """log10 change at fractional ages, linear in the logarithm of the age, beyond the recorded ones too."""
    low = np.clip(age.astype(np.int64), 1, len(curve) - 1)
    share = np.log(age / low) / np.log((low + 1) / low)
    return (1 - share) * curve[low - 1] + share * curve[low]
