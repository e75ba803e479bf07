"""How much measurements of one batch differ: no predictor can remove it, a simulation should draw it."""

from __future__ import annotations

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
