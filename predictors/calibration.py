"""Fits what a roofline reaches to a few measurements of one stage, and says how far to trust it then.

A rate is wrong by a factor, so the fit is in logarithms: it minimises, over the logarithms u of the times that each of
`predictors.efficiency.QUANTITIES` takes, against what was thought of them, ::

    sum h((log predicted - log measured) / noise) + u' C^-1 u

with h a loss that is quadratic near zero and linear far from it, so that a batch that took twice as long as it should
pulls no harder than one that is a little off. The prior covariance C has what all quantities share, which is what an
estimate is uncertain by (`predictors.efficiency.Spread`), and what each has of its own (`_OWN`). What the measurements
do not tell apart, like arithmetic from traffic where all batches are of one size, stays in the proportion that it has
in the prior. So three measurements are enough for an answer, and every further one is worth having.

The posterior is taken to be normal around the minimum (Laplace's approximation). A prediction is as uncertain as it is
along the directions that the measurements themselves depend on, and as the formula is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import numpy.typing as npt

from predictors.efficiency import QUANTITIES, Rates, Work, forward_seconds
from predictors.roofline import Roofline
from traces.errors import BadInput

Floats = npt.NDArray[np.float64]

_NOISE = 0.03
"""Relative error of a measurement."""

_OWN = np.array([0.4, 0.4, 0.4, 0.4, 0.4, 0.8])
"""By how much each of `QUANTITIES` is thought to differ from what all share, as logarithms."""

_FORMULA_ROWS = 6.0
"""Measurements that the formula's error elsewhere counts for beside its error here."""

LEAST_ROWS = 3
"""Measurements of a stage below which it is not calibrated."""


@dataclass(frozen=True)
class Calibration:
    """What measurements say of a roofline.

    Attributes:
        roofline: with the rates that explain them best.
        log_sd: standard deviation of the logarithm of true over predicted seconds.
    """

    roofline: Roofline
    log_sd: float


def calibrated(
    roofline: Roofline, works: Sequence[Sequence[Work]], seconds: Floats, log_sd: float, misfit: float
) -> Calibration:
    """``roofline`` with the rates that explain measurements best, given that it was thought to have its own.

    Args:
        works: the forwards of each measurement (`Roofline.work`), at least `LEAST_ROWS`.
        seconds: seconds of each, shape (n,), positive.
        log_sd: standard deviation of the logarithm of true over estimated seconds, before anything was measured.
        misfit: of what no rates explain, see `predictors.efficiency.Efficiencies`.

    Raises:
        BadInput: too few measurements.
    """
    from scipy.optimize import least_squares  # scipy takes a while to import

    if len(works) < LEAST_ROWS:
        raise BadInput(f"{len(works)} measurements cannot calibrate a stage, expected at least {LEAST_ROWS}")
    forwards = _Forwards(works)
    measured = np.log(seconds)
    root = np.linalg.cholesky(np.diag(_OWN**2) + log_sd**2)

    def residuals(whitened: Floats) -> Floats:
        predicted = forwards.log_seconds(_slowed(roofline.rates, root @ whitened))
        return np.concatenate([(predicted - measured) / _NOISE, whitened])

    found = least_squares(residuals, np.zeros(len(QUANTITIES)), loss="soft_l1")
    fitted = _slowed(roofline.rates, root @ found.x)
    off = forwards.log_seconds(fitted) - measured
    slopes = found.jac[: len(off)] * _NOISE
    used = float(_along(slopes, misfit**2).sum() / misfit**2)  # what the rates took of the measurements
    left = max(0.0, len(off) - used)
    variance = (_FORMULA_ROWS * misfit**2 + float(off @ off)) / (_FORMULA_ROWS + left)
    return Calibration(roofline.with_rates(fitted), (float(_along(slopes, variance).mean()) + variance) ** 0.5)


def _along(slopes: Floats, variance: float) -> Floats:
    """Posterior variance of each measurement's prediction, shape (n,), where measurements differ by ``variance``."""
    covariance = np.linalg.inv(slopes.T @ slopes / variance + np.eye(slopes.shape[1]))
    return np.asarray(np.einsum("ij,jk,ik->i", slopes, covariance, slopes))


class _Forwards:
    """The forwards of several measurements, as arrays."""

    def __init__(self, works: Sequence[Sequence[Work]]) -> None:
        table = np.array([astuple(work) for forwards in works for work in forwards])
        self._work = Work(*table.T)
        self._of = np.repeat(np.arange(len(works)), [len(forwards) for forwards in works])
        self._count = len(works)

    def log_seconds(self, rates: Rates) -> Floats:
        """The logarithm of the seconds of each measurement, shape (n,)."""
        seconds = np.asarray(forward_seconds(self._work, rates))
        return np.log(np.bincount(self._of, seconds, self._count))


def _slowed(rates: Rates, logarithms: Floats) -> Rates:
    """Rates where what each of `QUANTITIES` says takes exp(logarithm) times as long."""
    factors = dict(zip(QUANTITIES, np.exp(logarithms).tolist(), strict=True))
    slowed = {
        field.name: getattr(rates, field.name) * factors[field.name]
        if field.name in _TIMES
        else getattr(rates, field.name) / factors[field.name]
        for field in fields(Rates)
    }
    return Rates(**slowed)


_TIMES = ("elementwise", "launch")
"""Those of `QUANTITIES` that are times or proportional to one; the others are rates."""
