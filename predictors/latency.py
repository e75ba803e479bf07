"""Latency models: scikit-learn estimators that map a batch's features to seconds per step.

X is a feature matrix of `predictors.features.FeatureMap`, shape (measurements, columns); y is seconds per
step, shape (measurements,). A latency model of your own is a factory in `LATENCY_MODELS` that makes any
regressor; add a form of it to `predictors.compiled` if its ``predict`` is slow for one row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from predictors.boosting import HuberBoosting
from predictors.choice import BestByCrossValidation
from predictors.features import FEATURES
from predictors.forms import ROWS, SMALLEST_SECONDS, batch_coordinates
from predictors.gaussian import GaussianResidual
from predictors.launch_floor import LaunchFloor
from predictors.validation import Floats, asked, cost_tags, validated
from traces.errors import BadInput, did_you_mean

PHYSICAL_PENALTIES = {
    "intercept": 0,
    "tokens": 1,
    "rows": 3,
    "sizes": 3,
    "halo": 3,
    "cached_patches": 3,
    "tokens_squared": 10,
}
"""The features of the physical model, and how reluctantly each takes a cost that others could carry as well.

Two measured sizes cannot tell rows, tokens and tokens squared apart, and where they disagree most is at the
size nobody measured. These preferences make the answer unique; held-out sizes of the published profiles chose
them.
"""
PHYSICAL_COLUMNS = tuple(map(FEATURES.index, PHYSICAL_PENALTIES))
FLOOR_FEATURES = ("launched", "sizes", "cuts")
WORK_FEATURES = ("rows", "tokens", "tokens_squared", "halo", "cached_patches", "cut_tokens")
"""The features of floor and work. What a cache does not compute it does not start either; patches of several sizes, and
so of one that suits none of them, start more. What cutting adds is in the floor and by the token as well as by the
length of the cuts, which alone would say far too much of patches that are smaller than any measured."""
_MOST_ROUNDS = 30
_PAPER_COLUMNS = (FEATURES.index("sizes"), FEATURES.index("patches"))


class NonNegativeLinear(RegressorMixin, BaseEstimator):
    """A robust fit of the *relative* error, with no negative coefficient.

    Minimises, over ``c >= 0``, ``sum(h((X c - y) / y)) + n ridge sum(p s^2 c^2)``, with h Huber's loss (square
    below ``huber``, linear above), n measurements, penalties p and s the largest entry of each column of X / y;
    iteratively reweighted least squares by Lawson-Hanson. The relative error makes small batches count as much
    as large ones; Huber's loss keeps the batches that took twice as long as their repeats, which the published
    SDXL table has, from bending the fit; non-negative costs keep the prediction positive and growing with the
    batch outside the measured range; the ridge is far too small to matter except between columns that the
    measurements cannot tell apart, where it decides for the smaller penalty.

    Args:
        columns: the columns of X to use; None for all. The coefficients of the others are 0.
        penalties: one for each of these columns; None for equal ones.
        ridge: weight of the penalties.
        huber: relative error above which a measurement pulls no harder; infinity for plain least squares.

    Attributes:
        coef_: shape (columns of X,), seconds per unit of each feature.
    """

    def __init__(
        self,
        columns: Sequence[int] | None = None,
        penalties: Sequence[float] | None = None,
        ridge: float = 1e-7,
        huber: float = 0.03,
    ) -> None:
        self.columns = columns
        self.penalties = penalties
        self.ridge = ridge
        self.huber = huber

    def fit(self, X: Any, y: Any) -> NonNegativeLinear:  # noqa: N803 - scikit-learn's name
        """Fit to X of shape (n, columns), not negative, and y of shape (n,), positive."""
        features, seconds = validated(self, X, y)
        used = list(range(features.shape[1]) if self.columns is None else self.columns)
        penalties = np.ones(len(used)) if self.penalties is None else np.asarray(self.penalties, dtype=np.float64)
        relative = features[:, used] / seconds[:, None]
        scale = relative.max(axis=0)
        scale[scale == 0] = 1.0
        relative /= scale
        ridge = np.diag(np.sqrt(len(seconds) * self.ridge * penalties))
        weight = np.ones(len(seconds))
        scaled = np.zeros(len(used))
        for _ in range(_MOST_ROUNDS):
            before, root = scaled, np.sqrt(weight)
            target = np.concatenate([root, np.zeros(len(used))])
            scaled, _ = nnls(np.vstack([relative * root[:, None], ridge]), target)
            if np.allclose(scaled, before, rtol=1e-6, atol=1e-9):
                break
            weight = np.minimum(1.0, self.huber / np.maximum(np.abs(relative @ scaled - 1), 1e-12))
        self.coef_ = np.zeros(features.shape[1])
        self.coef_[used] = scaled / scale
        return self

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Seconds per step, shape (n,)."""
        check_is_fitted(self)
        features = asked(self, X)
        seconds: Floats = features @ self.coef_
        return seconds

    def __sklearn_tags__(self) -> Any:
        return cost_tags(super().__sklearn_tags__())


class BoostedResidual(RegressorMixin, BaseEstimator):
    """`NonNegativeLinear` times the exponential of a few shallow boosted trees fitted to its log residual.

    The trees correct what physics leaves out inside the measured range (launch-bound small batches,
    saturation); outside it they are constant, so the linear model extrapolates. What they learned is about the
    measured sizes: the logarithm counts by the share of the batch's rows that have such a size. Huber's loss,
    linear for the larger half of the residuals, keeps outlying measurements from bending the correction.

    Args:
        columns: the columns of X that both parts use; None for all.
        penalties: penalties of the linear part.
        sizes_from: the first of the columns that count the rows of one size each, up to the last of X; None
            when there are none.
        trees: number of trees.
        depth: depth of each tree.
        learning_rate: weight of each tree.
        min_samples_leaf: measurements a leaf needs; fewer (but 3) when there are few measurements.
        random_state: seed.

    Attributes:
        linear_: the fitted `NonNegativeLinear`.
        trees_: the fitted `HuberBoosting` of log(measured / linear).
        columns_: the columns the trees see.
        sizes_: the columns of measured sizes; None without ``sizes_from``.
    """

    def __init__(
        self,
        columns: Sequence[int] | None = None,
        penalties: Sequence[float] | None = None,
        sizes_from: int | None = None,
        trees: int = 30,
        depth: int = 2,
        learning_rate: float = 0.1,
        min_samples_leaf: int = 15,
        random_state: int = 0,
    ) -> None:
        self.columns = columns
        self.penalties = penalties
        self.sizes_from = sizes_from
        self.trees = trees
        self.depth = depth
        self.learning_rate = learning_rate
        self.min_samples_leaf = min_samples_leaf
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> BoostedResidual:  # noqa: N803
        """Fit to X of shape (n, columns), not negative, and y of shape (n,), positive."""
        features, seconds = validated(self, X, y)
        self.columns_ = list(range(features.shape[1]) if self.columns is None else self.columns)
        self.sizes_: list[int] | None = None
        if self.sizes_from is not None:
            measured = features[:, self.sizes_from :].any(axis=0)
            self.sizes_ = (self.sizes_from + np.flatnonzero(measured)).tolist()
        self.linear_ = NonNegativeLinear(self.columns_, self.penalties).fit(features, seconds)
        self.trees_ = HuberBoosting(
            trees=self.trees,
            depth=self.depth,
            learning_rate=self.learning_rate,
            min_samples_leaf=min(self.min_samples_leaf, max(3, len(seconds) // 8)),
            random_state=self.random_state,
        )
        self.trees_.fit(features[:, self.columns_], np.log(seconds / self._linear_part(features)))
        return self

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Seconds per step, shape (n,)."""
        check_is_fitted(self)
        features = asked(self, X)
        log_ratio = self.trees_.predict(features[:, self.columns_])
        if self.sizes_ is not None:
            log_ratio *= features[:, self.sizes_].sum(axis=1) / np.maximum(features[:, ROWS], 1e-12)
        seconds: Floats = self._linear_part(features) * np.exp(log_ratio)
        return seconds

    def _linear_part(self, features: Floats) -> Floats:
        return np.maximum(features @ self.linear_.coef_, SMALLEST_SECONDS)

    def __sklearn_tags__(self) -> Any:
        return cost_tags(super().__sklearn_tags__())


def paper_mlp() -> Pipeline:
    """PatchedServe's predictor (section 4): an MLP (32, 32, 16) over requests per resolution, sizes and
    patches.

    The target is the logarithm of the seconds, so that errors are relative.
    """
    return Pipeline(
        [
            ("features", ColumnTransformer([("paper", StandardScaler(), _paper_columns)])),
            (
                "mlp",
                TransformedTargetRegressor(
                    MLPRegressor(
                        hidden_layer_sizes=(32, 32, 16),
                        learning_rate_init=0.01,
                        max_iter=2000,
                        random_state=0,
                    ),
                    func=np.log,
                    inverse_func=np.exp,
                ),
            ),
        ]
    )


def linear() -> NonNegativeLinear:
    """The physical linear model, over the features of `PHYSICAL_PENALTIES`."""
    return NonNegativeLinear(PHYSICAL_COLUMNS, tuple(PHYSICAL_PENALTIES.values()))


def boosted() -> BoostedResidual:
    """The physical linear model with boosted trees on its residual.

    Held-out compositions of the published profiles chose the loss, the number of trees and the size of a leaf, among a
    dozen that lie within 0.5 points of each other; held-out sizes were looked at afterwards.
    """
    return BoostedResidual(PHYSICAL_COLUMNS, tuple(PHYSICAL_PENALTIES.values()), len(FEATURES))


def floor() -> LaunchFloor:
    """The smooth maximum of starting kernels and work."""
    return LaunchFloor(tuple(map(FEATURES.index, FLOOR_FEATURES)), tuple(map(FEATURES.index, WORK_FEATURES)))


def floor_gaussian() -> GaussianResidual:
    """`floor` with a Gaussian process on its residual.

    Held-out compositions, sizes and repeats of SD3's published measurements and of those of tiny-image that ship chose
    the coordinates and the grids; SDXL's were looked at afterwards.
    """
    return GaussianResidual(floor(), batch_coordinates)


def auto() -> BestByCrossValidation:
    """That of `CANDIDATES` which best predicts held-out batches, held-out sizes and the rows it was fitted to."""
    return BestByCrossValidation([(name, LATENCY_MODELS[name]()) for name in CANDIDATES], images_of_sizes)


def images_of_sizes(X: Floats) -> Floats:  # noqa: N803
    """Images of each measured size, shape (n, sizes), of a matrix of `predictors.features.FeatureMap`."""
    rows_per_image = X[:, ROWS] / X[:, FEATURES.index("images")]
    images: Floats = X[:, len(FEATURES) :] / rows_per_image[:, None]
    return images


def paper_linear() -> Pipeline:
    """Least squares of the relative error over the features of PatchedServe's predictor, see `paper_mlp`.

    Where the measurements do not decide between a request's resolution and its patches, the ridge does, so an
    unmeasured resolution is charged by its patches.
    """
    paper = ColumnTransformer([("paper", "passthrough", _paper_linear_columns)])
    return Pipeline([("features", paper), ("linear", NonNegativeLinear(huber=np.inf))])


LATENCY_MODELS: dict[str, Callable[[], Any]] = {
    "auto": auto,
    "floor-gaussian": floor_gaussian,
    "floor": floor,
    "boosted": boosted,
    "linear": linear,
    "paper-linear": paper_linear,
    "mlp": paper_mlp,
}
"""Name -> factory of an unfitted estimator."""
CANDIDATES = ("floor-gaussian", "floor", "boosted", "linear")
"""What ``auto`` chooses from, the one that is taken in doubt first."""


def fitted(latency_model: str, X: Floats, y: Floats) -> Any:  # noqa: N803
    """The latency model of this name fitted to X of shape (n, columns) and y of shape (n,), seconds per step.

    Raises:
        BadInput: there is no such model.
    """
    try:
        estimator = LATENCY_MODELS[latency_model]()
    except KeyError:
        raise BadInput(
            f"unknown latency model {latency_model!r}; {did_you_mean(latency_model, LATENCY_MODELS)}"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of passes is part of the model
        return estimator.fit(X, y)


def _paper_linear_columns(X: Floats) -> list[int]:  # noqa: N803
    return [FEATURES.index("intercept"), *_paper_columns(X)]


def _paper_columns(X: Floats) -> list[int]:  # noqa: N803
    return [*_PAPER_COLUMNS, *range(len(FEATURES), X.shape[1])]
