"""Boosted trees: those of scikit-learn, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.utils.estimator_checks import check_estimator

from predictors.boosting import HuberBoosting


def test_follows_the_scikit_learn_contract() -> None:
    check_estimator(HuberBoosting(), on_skip=None)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("rows", "columns", "alpha"), [(8, 1, 0.5), (40, 3, 0.9), (301, 7, 0.5)])
def test_predicts_what_the_booster_of_scikit_learn_does(rows: int, columns: int, alpha: float, ties: bool) -> None:
    rng = np.random.default_rng(rows)
    features, target = rng.uniform(0, 50, (rows, columns)), rng.normal(0, 0.3, rows)
    if ties:
        features, target = features.round(-1), target.round(1)
    least = max(1, rows // 20)
    ours = HuberBoosting(trees=12, depth=3, learning_rate=0.2, min_samples_leaf=least, alpha=alpha, random_state=3)
    theirs = GradientBoostingRegressor(
        loss="huber",
        alpha=alpha,
        n_estimators=12,
        max_depth=3,
        learning_rate=0.2,
        min_samples_leaf=least,
        random_state=3,
    )
    asked = np.concatenate([features, rng.uniform(-10, 60, (30, columns))])
    found = ours.fit(features, target).predict(asked)
    assert len(np.unique(found)) > 1
    np.testing.assert_array_equal(found, theirs.fit(features, target).predict(asked))
