"""Counts at several latent shapes -> polynomials that give them back, at any shape."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from predictors.polynomial import TERMS, Polynomial, term_values

_TOLERANCES = (1e-9, 1e-3, 1e-2)
"""Relative errors that a polynomial may have, if it then has fewer terms than a better one."""


def fit(areas: Sequence[int], frames: Sequence[int], counts: Sequence[float]) -> tuple[Polynomial, float]:
    """The polynomial of the fewest terms that gives the counts back, and its largest relative error.

    Args:
        areas: tokens of one frame, shape (n,).
        frames: shape (n,); where all are the same, like 1 for pictures, terms of their own are left out.
        counts: what was counted, shape (n,), positive.
    """
    fixed = len(set(frames)) == 1
    names = [name for name in TERMS if not fixed or name in ("constant", "tokens", "tokens_squared")]
    values = [term_values(*shape) for shape in zip(areas, frames, strict=True)]
    subsets = [subset for size in range(1, len(names) + 1) for subset in itertools.combinations(names, size)]
    fits = [_least_squares(subset, values, np.array(counts, dtype=np.float64)) for subset in subsets]
    best = min(fits, key=lambda found: found[1])
    for tolerance in _TOLERANCES:
        for found in fits:
            if found[1] <= tolerance:
                return found
    return best


def _least_squares(
    names: Sequence[str], values: Sequence[Mapping[str, float]], counts: npt.NDArray[np.float64]
) -> tuple[Polynomial, float]:
    terms = np.array([[row[name] for name in names] for row in values])
    relative = terms / counts[:, None]
    scale = relative.max(axis=0)
    scaled, *_ = np.linalg.lstsq(relative / scale, np.ones(len(counts)), rcond=None)
    coefficients = scaled / scale
    error = float(np.abs(terms @ coefficients / counts - 1).max())
    rounded = {name: float(f"{c:.12g}") for name, c in zip(names, coefficients, strict=True)}
    return Polynomial(**rounded), error
