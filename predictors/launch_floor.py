"""A latency model that knows that starting kernels is a floor.

The host starts the kernels of a step while the device works on those before. So a step takes as long as the slower of
the two: small batches all take what starting takes, large ones what the work takes. A sum of both, which is what a
linear model is, cannot say so: for a model whose single image takes as long as five it has to choose which to miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from predictors.forms import SMALLEST_SECONDS
from predictors.validation import Floats, asked, cost_tags, validated

_STARTS = (1.05, 4.0)
"""Sharpnesses from which the fit sets out: a sum, almost, and a maximum, almost."""


class LaunchFloor(RegressorMixin, BaseEstimator):
    """Seconds as the smooth maximum of a floor and the work, (floor^p + work^p)^(1/p).

    Floor and work are combinations of columns of X without a negative coefficient, the floor with a constant; the
    sharpness p is at least 1, where the model is the linear one. Minimises ::

        sum h((log predicted - log y) / huber) + n sparsity sum(coefficients)

    with h the soft L1 loss, quadratic near zero and linear far from it, so that batches that took twice as long as
    their repeats do not bend the fit. A coefficient counts as the share that its column, at most, has of a measurement;
    so of columns that the measurements cannot tell apart, one gets the cost rather than all of them a part of it.

    The answer is positive and grows with every column, also outside the measured range.

    Args:
        floor: columns of X of which the floor is made, beside its constant.
        work: columns of X of which the work is made; None for all.
        sparsity: weight of the coefficients.
        huber: error of the logarithm above which a measurement pulls hardly any harder.

    Attributes:
        constant_: seconds of the floor that no column changes.
        floor_: shape (columns of X,), seconds per unit in the floor.
        work_: shape (columns of X,), seconds per unit in the work.
        sharpness_: p.
    """

    def __init__(
        self,
        floor: Sequence[int] = (),
        work: Sequence[int] | None = None,
        sparsity: float = 4e-5,
        huber: float = 0.03,
    ) -> None:
        self.floor = floor
        self.work = work
        self.sparsity = sparsity
        self.huber = huber

    def fit(self, X: Any, y: Any) -> LaunchFloor:  # noqa: N803 - scikit-learn's name
        """Fit to X of shape (n, columns), not negative, and y of shape (n,), positive."""
        features, seconds = validated(self, X, y)
        floor = list(self.floor)
        work = list(range(features.shape[1]) if self.work is None else self.work)
        columns = np.column_stack([np.ones(len(seconds)), features[:, floor + work]])
        scale = (columns / seconds[:, None]).max(axis=0)
        scale[scale == 0] = 1.0
        problem = _Problem(columns / scale, np.log(seconds), 1 + len(floor), self.sparsity, self.huber)
        coefficients, self.sharpness_ = _solved(problem)
        coefficients = coefficients / scale
        self.constant_ = float(coefficients[0])
        self.floor_, self.work_ = np.zeros(features.shape[1]), np.zeros(features.shape[1])
        np.add.at(self.floor_, floor, coefficients[1 : 1 + len(floor)])
        np.add.at(self.work_, work, coefficients[1 + len(floor) :])
        return self

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Seconds per step, shape (n,)."""
        check_is_fitted(self)
        features = asked(self, X)
        floor = np.maximum(self.constant_ + features @ self.floor_, SMALLEST_SECONDS)
        return _smooth_maximum(floor, features @ self.work_, self.sharpness_)

    def __sklearn_tags__(self) -> Any:
        return cost_tags(super().__sklearn_tags__())


class _Problem:
    """The least squares of `LaunchFloor` in scaled columns.

    The unknowns are the roots of the coefficients and of p - 1, so that none of these is negative.
    """

    def __init__(self, columns: Floats, log_y: Floats, of_floor: int, sparsity: float, huber: float) -> None:
        self.columns = columns
        self.log_y = log_y
        self.of_floor = of_floor
        self.huber = huber
        # A root times this, squared and halved, is its coefficient's share of the sum; p counts hardly at all.
        penalty = np.sqrt(2 * len(log_y) * sparsity)
        self.penalties = np.append(np.full(columns.shape[1], penalty), 3e-3 * huber * np.sqrt(len(log_y)))
        self._content = (columns.tobytes(), columns.strides, log_y.tobytes(), of_floor, sparsity, huber)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Problem) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def solved(self) -> tuple[Floats, float]:
        """The coefficients, shape (columns,), and p."""
        relative = self.columns / np.exp(self.log_y)[:, None]
        count, unknowns = relative.shape
        slightly = 1e-3 * np.eye(unknowns)
        shares, _ = nnls(np.vstack([relative, slightly]), np.repeat([1.0, 0.0], [count, unknowns]))
        roots = np.sqrt(np.maximum(shares, 0.03))
        fits = [
            least_squares(
                self._residuals,
                np.append(roots, np.sqrt(sharpness - 1)),
                self._jacobian,
                loss="soft_l1",
                f_scale=self.huber,
                max_nfev=40,
                ftol=1e-5,
                xtol=1e-4,
            )
            for sharpness in _STARTS
        ]
        best = min(fits, key=lambda fit: fit.cost).x
        return best[:-1] ** 2, float(1 + best[-1] ** 2)

    def _residuals(self, roots: Floats) -> Floats:
        log_predicted, *_ = self._parts(roots)
        return np.concatenate([log_predicted - self.log_y, self.penalties * roots])

    def _jacobian(self, roots: Floats) -> Floats:
        log_predicted, floor, work, sharpness = self._parts(roots)
        log_floor, log_work = np.log(floor), np.log(work)
        # The shares of floor^p and of work^p in their sum.
        of_floor, of_work = (np.exp(sharpness * (log - log_predicted)) for log in (log_floor, log_work))
        by = np.concatenate(
            [
                (of_floor / floor)[:, None] * self.columns[:, : self.of_floor],
                (of_work / work)[:, None] * self.columns[:, self.of_floor :],
                ((of_floor * log_floor + of_work * log_work - log_predicted) / sharpness)[:, None],
            ],
            axis=1,
        )
        return np.vstack([2 * roots * by, np.diag(self.penalties)])

    def _parts(self, roots: Floats) -> tuple[Floats, Floats, Floats, float]:
        coefficients, sharpness = roots[:-1] ** 2, float(1 + roots[-1] ** 2)
        floor = self.columns[:, : self.of_floor] @ coefficients[: self.of_floor]
        work = self.columns[:, self.of_floor :] @ coefficients[self.of_floor :]
        floor, work = (np.maximum(part, np.finfo(float).tiny) for part in (floor, work))
        return np.log(_smooth_maximum(floor, work, sharpness)), floor, work, sharpness


_solved = lru_cache(maxsize=16)(_Problem.solved)
"""Where a model is chosen, one whose base is a floor and the floor alone are fitted to the same rows, one by one."""


def _smooth_maximum(floor: Floats, work: Floats, sharpness: float) -> Floats:
    """(floor^p + work^p)^(1/p), shape (n,), of which one is positive."""
    larger, smaller = np.maximum(floor, work), np.minimum(floor, work)
    seconds: Floats = larger * (1 + (smaller / larger) ** sharpness) ** (1 / sharpness)
    return seconds
