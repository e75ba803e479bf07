"""A Gaussian process on what a latency model misses, that knows how often each batch was measured.

Physics leaves things out: a kernel that is chosen by the batch, a cache that just holds it, a size that suits the
device. They show as a residual that many measurements share, or that one batch repeats. The process tells both from
noise: how far it follows the residual depends on how many measurements say so, and how much repeats of one batch
differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from predictors.forms import kernel
from predictors.launch_floor import LaunchFloor
from predictors.noise import deviations, median_share
from predictors.validation import Floats, asked, cost_tags, validated

_AMPLITUDES = (0.02, 0.05, 0.1, 0.2)
_REACHES = (0.5, 1.0, 2.0)
_OWN = (0.0, 0.02, 0.05, 0.1)
_OWN_REACH = 0.02
_NOISES = (0.005, 0.01, 0.02, 0.04, 0.08)
"""What the likelihood chooses among: as logarithms, how far the shared residual and that of one batch depart from 0,
and how noisy a measurement is when no batch was repeated."""

_FAR = 2.0
"""Standard deviations beyond which a batch that was measured once or twice is taken for a disturbed one."""
_MOST_JUDGED, _MOST_KEPT = 300, 2000
"""Batches by which the kernel is chosen, and from which it predicts: as many, evenly spread, of those there are."""


Kernel = tuple[float, float]
Chosen = tuple[Kernel, Kernel, float]


@dataclass(frozen=True, eq=False)
class ResidualProcess:
    """A Gaussian process fitted to what something misses, see `GaussianResidual`.

    Attributes:
        centres: shape (batches, coordinates), where something was measured.
        weights: shape (batches,), of each in the residual.
        wide, near: (variance, reach) of the kernels.
        noise: standard deviation of the logarithm of one measurement.
        least, most: the first coordinate's range.
    """

    centres: Floats
    weights: Floats
    wide: Kernel
    near: Kernel
    noise: float
    least: float
    most: float

    @classmethod
    def of(cls, places: Floats, residuals: Floats) -> ResidualProcess:
        """Of logarithms of measured over predicted seconds, shape (n,), at places, shape (n, coordinates)."""
        cells = _Cells.of(places, residuals)
        judged = cells.thinned(_MOST_JUDGED)
        (wide, near, noise), disturbed = judged.chosen()
        kept = cells.thinned(_MOST_KEPT)
        if len(kept.places) == len(judged.places):
            kept = judged.disturbed(disturbed)
        least, most = float(places[:, 0].min()), float(places[:, 0].max())
        weights = kept.weights(wide, near, noise)
        return cls(kept.places, weights, wide=wide, near=near, noise=noise, least=least, most=most)

    def log_ratio(self, places: Floats) -> Floats:
        """The logarithm of seconds over what misses them, shape (n,), at places, shape (n, coordinates)."""
        within = places.copy()
        within[:, 0] = np.clip(places[:, 0], self.least, self.most)
        ratios: Floats = kernel(_squared_distances(within, self.centres), self.wide, self.near) @ self.weights
        return ratios


class GaussianResidual(RegressorMixin, BaseEstimator):
    """A latency model times the exponential of a Gaussian process fitted to its log residual.

    Measurements in one place are one observation, their median, whose variance is that of a measurement over their
    number (a median's: times pi / 2 from three on). What a measurement varies by, repeats say; without repeats, the
    likelihood. The process has two kernels, one that reaches to similar batches and one that reaches only to the same
    batch again, so that where a batch was measured often its own repeats count, by their number and noise, and where
    nothing was measured the process goes to its mean, which is 0, and the model stands alone. The kernels' variances
    and the reach of the first are chosen on a grid, by their marginal likelihood times a prior of small amplitudes.

    Batches that were measured once or twice and lie far from what the others say are taken for disturbed: their
    variance is raised until they lie on the edge of what is credible.

    Along the first coordinate, the size of the batch, the residual stays what it was where the measurements end: so the
    answer grows there as the model's does.

    Args:
        base: the latency model; None for a `LaunchFloor`.
        coordinates: row of X -> its place, coordinates in which similar batches are about 1 apart; None for log(1 + x)
            of every column.

    Attributes:
        base_: the fitted model.
        process_: the `ResidualProcess`.
    """

    def __init__(
        self, base: BaseEstimator | None = None, coordinates: Callable[[list[float]], list[float]] | None = None
    ) -> None:
        self.base = base
        self.coordinates = coordinates

    def fit(self, X: Any, y: Any) -> GaussianResidual:  # noqa: N803 - scikit-learn's name
        """Fit to X of shape (n, columns), not negative, and y of shape (n,), positive."""
        features, seconds = validated(self, X, y)
        self.base_ = (LaunchFloor() if self.base is None else clone(self.base)).fit(features, seconds)
        self.process_ = ResidualProcess.of(self._places(features), np.log(seconds / self.base_.predict(features)))
        return self

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Seconds per step, shape (n,)."""
        check_is_fitted(self)
        features = asked(self, X)
        seconds: Floats = self.base_.predict(features) * np.exp(self.process_.log_ratio(self._places(features)))
        return seconds

    def _places(self, features: Floats) -> Floats:
        if self.coordinates is None:
            return np.log1p(features)
        return np.array([self.coordinates(row) for row in features.tolist()])

    def __sklearn_tags__(self) -> Any:
        return cost_tags(super().__sklearn_tags__())


@dataclass(frozen=True)
class _Cells:
    """Measurements by place: the median of each place's residuals, their number, and what is known of their noise.

    ``noise`` is the standard deviation of a measurement, None when nothing was repeated; ``variance`` that of each
    place's median, in units of noise squared.
    """

    places: Floats
    residuals: Floats
    counts: npt.NDArray[np.int64]
    noise: float | None
    variance: Floats

    @classmethod
    def of(cls, places: Floats, residuals: Floats) -> _Cells:
        centres, at = np.unique(places, axis=0, return_inverse=True)
        at = at.ravel()
        order = np.argsort(at, kind="stable")
        counts = np.bincount(at)
        groups = np.split(residuals[order], np.cumsum(counts)[:-1])
        medians = np.array([np.median(group) for group in groups])
        found = deviations(groups)
        noise, own = (None, np.ones(len(centres))) if found is None else (found[0], (found[1] / found[0]) ** 2)
        return cls(centres, medians, counts, noise, own * median_share(counts))

    def thinned(self, most: int) -> _Cells:
        """At most so many of the places, evenly spread."""
        if len(self.places) <= most:
            return self
        kept = np.linspace(0, len(self.places) - 1, most).round().astype(int)
        return _Cells(self.places[kept], self.residuals[kept], self.counts[kept], self.noise, self.variance[kept])

    def disturbed(self, times: Floats) -> _Cells:
        """With these multiples of the variances, shape (places,)."""
        return _Cells(self.places, self.residuals, self.counts, self.noise, self.variance * times)

    def chosen(self) -> tuple[Chosen, Floats]:
        """The kernels and the noise of the highest likelihood, and by what each place's variance is raised."""
        first = self._most_likely((0.0,))
        factor, solved = self._solved(*first)
        left_out = solved / np.sqrt(np.diag(cho_solve((factor, True), np.eye(len(solved)))))
        far = (np.abs(left_out) > _FAR) & (self.counts < 3)
        raised = np.where(far, (left_out / _FAR) ** 2, 1.0)
        return self.disturbed(raised)._most_likely((0.0,) if self.noise is None else _OWN), raised

    def weights(self, wide: Kernel, near: Kernel, noise: float) -> Floats:
        """Of each place in the mean of the process."""
        return self._solved(wide, near, noise)[1]

    def _most_likely(self, own: tuple[float, ...]) -> Chosen:
        noises = _NOISES if self.noise is None else (self.noise,)
        squared = _squared_distances(self.places, self.places)
        best, found = -np.inf, None
        for reach in _REACHES:
            for amplitude in _AMPLITUDES:
                for near in own:
                    for noise in noises:
                        kernels = ((amplitude**2, reach), (near**2, _OWN_REACH))
                        factor, solved = self._solved(*kernels, noise, squared)
                        likelihood = -0.5 * self.residuals @ solved - np.log(np.diag(factor)).sum()
                        likelihood -= 0.5 * np.log(amplitude / 0.05) ** 2
                        if likelihood > best + 1e-9:
                            best, found = likelihood, (*kernels, noise)
        assert found is not None
        return found

    def _solved(self, wide: Kernel, near: Kernel, noise: float, squared: Floats | None = None) -> tuple[Floats, Floats]:
        """The lower Cholesky factor of the covariance, and the covariance's solution for the residuals."""
        if squared is None:
            squared = _squared_distances(self.places, self.places)
        covariance = kernel(squared, wide, near)
        covariance[np.diag_indices_from(covariance)] += noise**2 * self.variance + 1e-9
        factor = cholesky(covariance, lower=True, check_finite=False)
        return factor, cho_solve((factor, True), self.residuals, check_finite=False)


def _squared_distances(places: Floats, others: Floats) -> Floats:
    """Shape (places, others)."""
    total = np.zeros((len(places), len(others)))
    for one, other in zip(places.T, others.T, strict=True):
        away = one[:, None] - other
        total += away * away
    return total
