"""How much measurements of one batch differ: no predictor can remove it, a simulation should draw it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from predictors.costs import RepeatNoise
from predictors.profile import SAME


def repeat_noise(frame: pd.DataFrame, predicted: npt.NDArray[np.float64]) -> RepeatNoise:
    """The noise of the measurements of one stage of one model.

    A ratio is the seconds over the median of its batch's repeats. A median of n measurements lies too close
    to each of them, so the ratio's logarithm is widened by sqrt(n / (n - 1)), Bessel's correction; without it
    pairs would show 0.7 of their noise. When no batch was repeated, the ratios are measured over
    ``predicted``. In any case they are scaled to the mean of measured over ``predicted``: a robust model predicts the
    typical second, and a world that drew around it would be faster than what was measured.

    Rows with a patch cache are single steps whose work differs: they are looked at only where there are no others.

    Args:
        frame: rows of a profile.
        predicted: seconds per step of each row, shape (rows,).
    """
    plain = ~frame["cached"].to_numpy(dtype=bool)
    if plain.any():
        frame, predicted = frame[plain], predicted[plain]
    per_step = frame["seconds"] / frame["steps"]
    batches = per_step.groupby([frame[name] for name in SAME])
    repeats = batches.transform("size").to_numpy()
    again = repeats > 1
    ratios = to_predicted = per_step.to_numpy(dtype=np.float64) / predicted
    steps = max(1, round(float(frame["steps"].median())))
    if again.any():
        log_ratio = np.log((per_step / batches.transform("median")).to_numpy(dtype=np.float64))[again]
        ratios = np.exp(log_ratio * np.sqrt(repeats[again] / (repeats[again] - 1)))
    if len(ratios) == 1:
        return RepeatNoise(steps=steps)
    scaled: list[float] = (ratios * (to_predicted.mean() / ratios.mean())).tolist()
    return RepeatNoise(tuple(scaled), steps)


LEAST_REPEATS = 5
"""Measurements beyond the first of their batch that say how noisy one is."""


POOLED = 8.0
"""A batch's own noise counts by its repeats, that of all batches as if by so many."""


def deviations(groups: Sequence[npt.NDArray[np.float64]]) -> tuple[float, npt.NDArray[np.float64]] | None:
    """The standard deviation of a value within groups of repeats, of all and of each group, shape (groups,); None with
    fewer than `LEAST_REPEATS`.

    That of all is from the mean distance between two values of a group, 2 / sqrt(pi) standard deviations of normal
    values, which few outliers change little; a group of n counts n - 1 times. A group's own is shrunk towards it.
    """
    total, beyond = 0.0, 0
    for values in groups:
        n = len(values)
        if n > 1:
            distances = 2 * np.sum((2 * np.arange(n) - n + 1) * np.sort(values))
            total += float(distances) / n
            beyond += n - 1
    if beyond < LEAST_REPEATS:
        return None
    pooled = max(total / beyond * np.sqrt(np.pi) / 2, 1e-4)
    squares = np.array([len(values) * np.var(values) for values in groups])
    counts = np.array([len(values) for values in groups])
    return pooled, np.sqrt((POOLED * pooled**2 + squares) / (POOLED + counts - 1))


def median_share(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The variance of a median of so many normal values, over that of one value."""
    return np.where(counts > 2, np.pi / 2, 1.0) / counts


def perfect_mape(frame: pd.DataFrame) -> float:
    """The mean absolute percentage error, as a fraction, of a predictor that knew every batch's true seconds; NaN
    when no batch was repeated.

    The mean over repeated measurements of how far the other repeats of the batch lie from them, relative to
    them, over sqrt(2): two measurements of normal noise differ by sqrt(2) times what one differs from the truth.
    (The factor is larger, up to 2, where few outliers make the noise, so there the truth is a little lower.)
    """
    per_step = frame["seconds"] / frame["steps"]
    differences = [np.empty(0)]
    for _, group in per_step.groupby([frame[name] for name in SAME]):
        values = group.to_numpy(dtype=np.float64)
        if len(values) > 1:
            from_others = np.abs(np.subtract.outer(values, values)).sum(axis=1) / (len(values) - 1)
            differences.append(from_others / values)
    every = np.concatenate(differences)
    return float(every.mean() / np.sqrt(2)) if len(every) else float("nan")


def attainable_mape(frame: pd.DataFrame) -> float:
    """The mean absolute percentage error, as a fraction, that the batches' own repeats leave whoever predicts one of
    them; NaN when no batch was repeated.

    How far each repeated measurement lies from the median of the other repeats of its batch. That median of n is noisy
    itself, which makes the distance sqrt(1 + `median_share`) times as long as it is to the truth. Where few
    measurements are far slower than the others it is less than `perfect_mape`, which takes noise for normal.
    """
    per_step = frame["seconds"] / frame["steps"]
    errors = [np.empty(0)]
    for _, group in per_step.groupby([frame[name] for name in SAME]):
        values = group.to_numpy(dtype=np.float64)
        if len(values) > 1:
            others = np.array([np.median(np.delete(values, at)) for at in range(len(values))])
            noisy = np.sqrt(1 + median_share(np.array([len(values) - 1])))
            errors.append(np.abs(others / values - 1) / noisy)
    every = np.concatenate(errors)
    return float(every.mean()) if len(every) else float("nan")
