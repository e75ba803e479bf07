"""Which latency model suits a profile: the one that best predicts the profile's own rows that it did not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import check_is_fitted

from predictors.forms import SMALLEST_SECONDS
from predictors.launch_floor import LaunchFloor
from predictors.validation import Floats, asked, cost_tags, validated

LEAST_BATCHES, LEAST_SIZES = 5, 3
"""Distinct compositions, and sizes, below which none is held out: too few would be left."""
MOST_SIZES = 4
"""Sizes that are held out, one at a time, from the smallest to the largest."""
BANDS = ((1, 1), (2, 4), (5, None))
"""Images of a batch, least and most, that count alike, however many rows each has: deadlines hang on single images."""

Fold = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


class BestByCrossValidation(RegressorMixin, BaseEstimator):
    """The candidate with the least error on held-out batches, on held-out sizes, and on what it was fitted to.

    An error is the mean absolute logarithm of predicted over measured, of each of `BANDS` that the rows reach into, and
    then their mean; a candidate's is its mean over these three questions. The last counts as much because measured
    batches are what is mostly asked about; alone it would choose whatever follows noise. The first candidate is taken
    unless another's error is smaller by more than ``margin``, and where there is too little to hold out.

    Args:
        candidates: (name, estimator) pairs, the one that is taken in doubt first; None for a `LaunchFloor` alone.
        composition: X -> images of each measured size, shape (n, sizes); None: a row of X is a composition, and sizes
            are not held out.
        folds: parts that compositions are held out in.
        margin: share by which another candidate must be better than the first.

    Attributes:
        chosen_: name of the candidate.
        estimator_: it, fitted.
        errors_: name -> what was held out, ``composition``, ``size`` or ``nothing`` -> error.
    """

    def __init__(
        self,
        candidates: Sequence[tuple[str, BaseEstimator]] | None = None,
        composition: Callable[[Floats], Floats] | None = None,
        folds: int = 5,
        margin: float = 0.05,
    ) -> None:
        self.candidates = candidates
        self.composition = composition
        self.folds = folds
        self.margin = margin

    def fit(self, X: Any, y: Any) -> BestByCrossValidation:  # noqa: N803 - scikit-learn's name
        """Fit to X of shape (n, columns), not negative, and y of shape (n,), positive."""
        features, seconds = validated(self, X, y)
        candidates = dict(self.candidates or [("floor", LaunchFloor())])
        images = features if self.composition is None else self.composition(features)
        bands = [self._band(images, least, most) for least, most in BANDS]

        def error(absolute: Floats, rows: npt.NDArray[np.intp]) -> float:
            reached = [absolute[band[rows]] for band in bands if band[rows].any()]
            return float(np.mean([of_band.mean() for of_band in reached]))

        held_out = dict(self._ways(images)) if len(candidates) > 1 else {}
        names = list(candidates) if held_out else list(candidates)[:1]
        fitted = {name: clone(candidates[name]).fit(features, seconds) for name in names}
        self.errors_: dict[str, dict[str, float]] = {}
        for name in names if held_out else ():
            errors = {way: error(*_errors(candidates[name], features, seconds, held_out[way])) for way in held_out}
            own = _logarithm(fitted[name].predict(features), seconds)
            self.errors_[name] = {**errors, "nothing": error(own, np.arange(len(seconds)))}
        self.chosen_ = self._best(names)
        self.estimator_ = fitted[self.chosen_]
        return self

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Seconds per step, shape (n,)."""
        check_is_fitted(self)
        seconds: Floats = self.estimator_.predict(asked(self, X))
        return seconds

    def _band(self, images: Floats, least: int, most: int | None) -> npt.NDArray[np.bool_]:
        if self.composition is None:
            return np.ones(len(images), dtype=bool)
        total = images.sum(axis=1).round()
        return (total >= least) & (total <= (np.inf if most is None else most))

    def _ways(self, images: Floats) -> Iterator[tuple[str, list[Fold]]]:
        _, batch = np.unique(images.round(6), axis=0, return_inverse=True)
        batch = batch.ravel()
        if len(np.unique(batch)) >= LEAST_BATCHES:
            yield "composition", list(GroupKFold(self.folds).split(images, groups=batch))
        if self.composition is None:
            return
        sizes = np.flatnonzero(images.any(axis=0))
        if len(sizes) >= LEAST_SIZES:
            spread = np.linspace(0, len(sizes) - 1, min(MOST_SIZES, len(sizes))).round().astype(int)
            held_out = [images[:, size] > 0 for size in sizes[spread]]
            folds = [(np.flatnonzero(~out), np.flatnonzero(out)) for out in held_out if not out.all()]
            if folds:
                yield "size", folds

    def _best(self, names: list[str]) -> str:
        def error(name: str) -> float:
            return float(np.mean(list(self.errors_[name].values())))

        first = names[0]
        if not self.errors_:
            return first
        best = min(names, key=error)
        return best if error(best) < (1 - self.margin) * error(first) else first

    def __sklearn_tags__(self) -> Any:
        return cost_tags(super().__sklearn_tags__())


def _errors(
    candidate: BaseEstimator, features: Floats, seconds: Floats, folds: Sequence[Fold]
) -> tuple[Floats, npt.NDArray[np.intp]]:
    """The absolute logarithm of predicted over measured of every row that was held out, and which row it is."""
    errors, rows = [], []
    for train, test in folds:
        predicted = clone(candidate).fit(features[train], seconds[train]).predict(features[test])
        errors.append(_logarithm(predicted, seconds[test]))
        rows.append(test)
    return np.concatenate(errors), np.concatenate(rows)


def _logarithm(predicted: Floats, seconds: Floats) -> Floats:
    absolute: Floats = np.abs(np.log(np.maximum(predicted, SMALLEST_SECONDS) / seconds))
    return absolute
