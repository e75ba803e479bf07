"""Counts at several latent shapes -> polynomials that give them back, at any shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from predictors.polynomial import TERMS, Polynomial, term_values

_NEGLIGIBLE = 1e-9
"""Share of a count below which a term is rounding of the fit."""


def fit(areas: Sequence[int], frames: Sequence[int], counts: Sequence[float]) -> tuple[Polynomial, float]:
    """The polynomial of least relative error, and its largest relative error.

    Args:
        areas: tokens of one frame, shape (n,).
        frames: shape (n,); all 1 for pictures.
        counts: what was counted, shape (n,), positive.
    """
    picture = max(frames) == 1
    names = [name for name in TERMS if not picture or name in ("constant", "tokens", "tokens_squared")]
    values = np.array([[term_values(*shape)[name] for name in names] for shape in zip(areas, frames, strict=True)])
    target = np.array(counts, dtype=np.float64)
    relative = values / target[:, None]
    for _ in names:
        scale = relative.max(axis=0)
        scaled, *_ = np.linalg.lstsq(relative / scale, np.ones(len(target)), rcond=None)
        kept = np.abs(scaled) > _NEGLIGIBLE
        if kept.all():
            break
        names = [name for name, keep in zip(names, kept, strict=True) if keep]
        relative, values = relative[:, kept], values[:, kept]
    coefficients = scaled / scale
    error = float(np.abs(values @ coefficients / target - 1).max())
    rounded = {name: float(f"{c:.12g}") for name, c in zip(names, coefficients, strict=True)}
    return Polynomial(**rounded), error
