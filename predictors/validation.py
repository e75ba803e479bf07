"""What every estimator of seconds asks of its data, in scikit-learn's terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_non_negative, validate_data

Floats = npt.NDArray[np.float64]


def validated(estimator: BaseEstimator, X: Any, y: Any) -> tuple[Floats, Floats]:  # noqa: N803 - scikit-learn's name
    """Features of shape (n, columns) and seconds of shape (n,), to fit to.

    Raises:
        ValueError: a feature is negative, or seconds are not above 0.
    """
    name = type(estimator).__name__
    features, seconds = validate_data(estimator, X, y, y_numeric=True, dtype=np.float64)
    check_non_negative(features, name)
    if not (seconds > 0).all():
        raise ValueError(f"{name} needs positive seconds, got a least value of {seconds.min()}")
    return features, np.asarray(seconds, dtype=np.float64)


def asked(estimator: BaseEstimator, X: Any) -> Floats:  # noqa: N803
    """Features of shape (n, columns), to predict the seconds of.

    Raises:
        ValueError: a feature is negative, or there are not as many as were fitted to.
    """
    features: Floats = validate_data(estimator, X, reset=False, ensure_non_negative=True, dtype=np.float64)
    return features


def cost_tags(tags: Any) -> Any:
    """Nothing here is negative; costs that must not be cannot fit arbitrary data well."""
    tags.input_tags.positive_only = True
    tags.target_tags.positive_only = True
    tags.regressor_tags.poor_score = True
    return tags
