"""Boosted trees with Huber's loss: scikit-learn's trees, without what its own booster does besides.

A latency model is chosen by fits on every fold of a profile, hundreds of trees on some hundred rows each. The booster
of scikit-learn spends nine tenths of that on weights, checks and array namespaces that nothing here needs. This one
grows the same trees with the same leaves, to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils.validation import check_is_fitted, validate_data

from predictors.validation import Floats

_LEAF = -1


class HuberBoosting(RegressorMixin, BaseEstimator):
    """What `sklearn.ensemble.GradientBoostingRegressor` with ``loss="huber"`` fits, rows counting alike.

    J. H. Friedman, Greedy function approximation, Annals of Statistics 29 (2001), algorithm 4: each tree is grown on
    residuals that are cut off where the share ``alpha`` of them lies below, and each of its leaves moves its rows by
    their median residual plus the mean of what is left, cut off in the same way.

    Args:
        trees: number of trees.
        depth: depth of each.
        learning_rate: weight of each.
        min_samples_leaf: rows that a leaf needs.
        alpha: share of the residuals that count by their squares.
        random_state: seed, of the order in which splits that are equally good are tried.

    Attributes:
        start_: the median of what was fitted to, where the trees begin.
        trees_: the fitted `sklearn.tree.DecisionTreeRegressor`s; what a leaf holds is not yet weighted.
    """

    def __init__(
        self,
        trees: int = 30,
        depth: int = 2,
        learning_rate: float = 0.1,
        min_samples_leaf: int = 15,
        alpha: float = 0.5,
        random_state: int = 0,
    ) -> None:
        self.trees = trees
        self.depth = depth
        self.learning_rate = learning_rate
        self.min_samples_leaf = min_samples_leaf
        self.alpha = alpha
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> HuberBoosting:  # noqa: N803 - scikit-learn's name
        """Fit to X of shape (n, columns) and y of shape (n,)."""
        rows, target = validate_data(self, X, y, dtype=np.float32, order="C", y_numeric=True)
        target = np.asarray(target, dtype=np.float64)
        random = np.random.RandomState(self.random_state)
        self.start_ = float(np.percentile(target, 50))
        self.trees_: list[DecisionTreeRegressor] = []
        predicted = np.full(len(target), self.start_)
        with sklearn.config_context(skip_parameter_validation=True):
            for _ in range(self.trees):
                residual = target - predicted
                delta = _share_below(np.abs(residual), self.alpha)
                tree = DecisionTreeRegressor(
                    max_depth=self.depth, min_samples_leaf=self.min_samples_leaf, random_state=random
                )
                tree.fit(rows, np.clip(residual, -delta, delta), check_input=False)
                grown = tree.tree_
                leaves = grown.apply(rows)
                for leaf in np.flatnonzero(grown.children_left == _LEAF):
                    grown.value[leaf, 0, 0] = _moved(residual[leaves == leaf], delta)
                predicted += self.learning_rate * grown.value[leaves, 0, 0]
                self.trees_.append(tree)
        return self

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """The target, shape (n,)."""
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float32, order="C")
        predicted = np.full(len(rows), self.start_)
        for tree in self.trees_:
            grown = tree.tree_
            predicted += self.learning_rate * grown.value[grown.apply(rows), 0, 0]
        return predicted


def _share_below(values: Floats, share: float) -> float:
    """The least of some values that at least this share of them does not exceed."""
    place = int(np.searchsorted(np.arange(1, len(values) + 1, dtype=np.float64), share * len(values)))
    return float(np.sort(values)[min(place, len(values) - 1)])


def _moved(residual: Floats, delta: float) -> float:
    """By how much a leaf moves its rows: the median, and the mean of what is left, no more than ``delta`` of each."""
    median = _share_below(residual, 0.5)
    left = residual - median
    return float(median + np.mean(np.sign(left) * np.minimum(delta, np.abs(left))))
