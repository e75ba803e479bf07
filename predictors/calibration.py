"""Fits the few efficiencies of a roofline to a few measurements of one stage.

The efficiencies are positive and wrong by factors, so the fit is in their logarithms: it minimises, over the logarithm
e of the efficiencies, ::

    sum h((log predicted - log measured) / _NOISE) + sum h((e - prior) / _SPREAD)

with h the soft L1 loss, quadratic near zero and linear far from it, so that a batch that took twice as long as it
should pulls no harder than one that is a little off. The prior is the roofline's efficiency before the fit: what the
measurements do not tell apart, like arithmetic from traffic where all batches are of one size, stays in the proportion
that it has there. So three measurements are enough for an answer, and every further one is worth having.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import numpy.typing as npt

from predictors.roofline import Efficiency, Roofline, Work
from traces.errors import BadInput

_NOISE = 0.03
"""Relative error of a measurement."""

_SPREAD = np.array([0.5, 0.5, 1.0, 2.0])
"""By how much compute, memory, launch_s and row_s are thought to differ from the prior, as logarithms."""

LEAST_ROWS = 3
"""Measurements of a stage below which it is not calibrated."""


def calibrated(roofline: Roofline, works: Sequence[Sequence[Work]], seconds: npt.NDArray[np.float64]) -> Roofline:
    """``roofline`` with the efficiency that explains measurements best, given that it was thought to have its own.

    Args:
        works: the forwards of each measurement (`Roofline.work`), at least `LEAST_ROWS`.
        seconds: seconds of each, shape (n,), positive.

    Raises:
        BadInput: too few measurements.
    """
    from scipy.optimize import least_squares  # scipy takes a while to import

    if len(works) < LEAST_ROWS:
        raise BadInput(f"{len(works)} measurements cannot calibrate a stage, expected at least {LEAST_ROWS}")
    prior, measured = np.log(astuple(roofline.efficiency)), np.log(seconds)

    def residuals(logarithms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        trial = roofline.with_efficiency(_efficiency(logarithms))
        predicted = np.log([sum(map(trial.seconds, forwards)) for forwards in works])
        return np.concatenate([(predicted - measured) / _NOISE, (logarithms - prior) / _SPREAD])

    return roofline.with_efficiency(_efficiency(least_squares(residuals, prior, loss="soft_l1").x))


def _efficiency(logarithms: npt.NDArray[np.float64]) -> Efficiency:
    return Efficiency(*np.exp(logarithms).tolist())
