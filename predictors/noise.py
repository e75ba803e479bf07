"""How much measurements of one batch differ: no predictor can remove it, a simulation should draw it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True, slots=True)
class RepeatNoise:
    """The noise of one stage.

    Attributes:
        ratios: measured over typical seconds, one for each measurement, with mean 1; ``(1.0,)`` when unknown.
        steps: steps that one measurement spanned, so how long one drawn ratio holds.
    """

    ratios: tuple[float, ...] = (1.0,)
    steps: int = 1


def repeat_noise(frame: pd.DataFrame, predicted: npt.NDArray[np.float64]) -> RepeatNoise:
    """The noise of the measurements of one stage of one model.

    A ratio is the seconds over the median of its batch's repeats. A median of n measurements lies too close
    to each of them, so the ratio's logarithm is widened by sqrt(n / (n - 1)), Bessel's correction; without it
    pairs would show 0.7 of their noise. When no batch was repeated, the ratios are measured over
    ``predicted``.

    Args:
        frame: rows of a profile.
        predicted: seconds per step of each row, shape (rows,).
    """
    per_step = frame["seconds"] / frame["steps"]
    batches = per_step.groupby([frame[name] for name in _SAME])
    repeats = batches.transform("size").to_numpy()
    again = repeats > 1
    if again.any():
        log_ratio = np.log((per_step / batches.transform("median")).to_numpy(dtype=np.float64))[again]
        ratios = np.exp(log_ratio * np.sqrt(repeats[again] / (repeats[again] - 1)))
    else:
        ratios = per_step.to_numpy(dtype=np.float64) / predicted
    centred: list[float] = (ratios / ratios.mean()).tolist()
    return RepeatNoise(tuple(centred), max(1, round(float(frame["steps"].median()))))


def repeat_difference(frame: pd.DataFrame) -> float:
    """Median over repeated batches of the mean absolute difference of two repeats, over their mean; NaN when
    none.

    A measurement and a perfect prediction differ by about 0.7 of this (normal noise: 1 / sqrt(2)).
    """
    per_step = frame["seconds"] / frame["steps"]
    differences = []
    for _, group in per_step.groupby([frame[name] for name in _SAME]):
        values = group.to_numpy()
        if len(values) > 1:
            pairs = np.abs(np.subtract.outer(values, values))[np.triu_indices(len(values), 1)]
            differences.append(pairs.mean() / values.mean())
    return float(np.median(differences)) if differences else float("nan")


_SAME = ["software", "composition", "guided"]
