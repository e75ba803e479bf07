"""How much the published cache reused: fitted on the times without redistribution, tested on those with it.

Without redistribution a step is as long as the device with the most computed tiles. How long that is depends on the
reuse rate and on which tiles are reused together: a device's tiles are neighbours in a row of the grid, and neighbours
show the same region, sky or ground or crowd. So tiles of a row are drawn alike to a degree, one for both models.

The published warm-up is as long as the part of the schedule that refinement leaves out, and the paper does not say from
where it counts: from the first refinement step, or from the schedule's, so that it is over when refinement begins. The
times without redistribution cannot tell; both are fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from benchmarks.refinement.published import CACHED_S, FIRST_STEP, GRIDS, MODELS, STEPS, UNCACHED_S, WARM_UP
from benchmarks.refinement.simulate import drawn
from policies.placement import Contiguous, TileWork

ALIKE = tuple(np.linspace(0, 1, 11).round(1).tolist())
WARM_UPS = (WARM_UP, max(1, WARM_UP - FIRST_STEP))
"""Refinement steps of the warm-up, counted from the first of them and from the first of the schedule."""

TILES = GRIDS["4K"]
COUNT = TILES[0] * TILES[1]
SEEDS = 40
"""Draws that the times are means of."""


@dataclass(frozen=True)
class Fit:
    """What the times without redistribution say.

    Attributes:
        warm_up: see `drawn`.
        alike: see `drawn`.
        reuse: probability of reuse after the warm-up, by model.
        error: root mean square of the relative errors of the six times fitted.
    """

    warm_up: int
    alike: float
    reuse: Mapping[str, float]
    error: float


def rounds(reuse: float, alike: float, warm_up: int, devices: int) -> float:
    """Rounds of tiles that refinement takes without redistribution, over those without a cache; mean over draws."""
    device = np.array(Contiguous().assign([TileWork(i, 1.0, 0) for i in range(COUNT)], devices))
    of_device = device[:, None] == np.arange(devices)
    computed = np.stack([drawn(reuse, alike, TILES, seed, warm_up) for seed in range(SEEDS)])
    return float((computed @ of_device.astype(float)).max(-1).sum(1).mean() / (of_device.sum(0).max() * STEPS))


def fit(alike: float, warm_up: int) -> Fit:
    """One rate a model, by least squares of the relative errors of its three times."""
    rates, errors = {}, []
    for model in MODELS:

        def misses(reuse: float, model: str = model) -> list[float]:
            whole = UNCACHED_S[model, "4K"]
            return [whole[n] * rounds(reuse, alike, warm_up, n) / times[0] - 1 for n, times in CACHED_S[model].items()]

        found = minimize_scalar(lambda r: sum(e * e for e in misses(r)), bounds=(0.01, 0.9), method="bounded",
                                options={"xatol": 1e-3})  # fmt: skip
        rates[model] = float(found.x)
        errors += misses(rates[model])
    return Fit(warm_up, alike, rates, float(np.sqrt(np.mean(np.square(errors)))))


def best_fit(warm_up: int) -> Fit:
    """Of all degrees to which a row's tiles are reused together the one that explains the six times best."""
    return min((fit(alike, warm_up) for alike in ALIKE), key=lambda found: found.error)
