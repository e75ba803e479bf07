"""Where a fit misses the very measurements that it was fitted to, by more than their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from predictors.noise import deviations, median_share
from predictors.profile import SAME

LEAST = 0.05
"""A miss below this share is none."""
SHOWN = 3
"""Batches that are named."""
CREDIBLE = 3.0
"""Standard deviations of a batch's median that noise may explain."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A measured batch that a fit misses.

    Attributes:
        batch: its composition as a profile spells it, and what a cache computed of it, where there was one.
        error: predicted over the median of what was measured, minus 1.
        noise: the share by which measurements of one batch differ, a standard deviation; where none was repeated, the
            share by which the fit misses an ordinary batch.
        repeated: whether that is known from repeats.
        times: how often it was measured.
    """

    batch: str
    error: float
    noise: float
    repeated: bool
    times: int

    def __str__(self) -> str:
        once = " (measured once)" if self.times == 1 and self.repeated else ""
        return f"{self.batch} by {100 * self.error:+.0f} %{once}"


@dataclass(frozen=True, slots=True)
class Misfits:
    """The batches that a fit misses by more than their noise: the worst of them, the worst first, and how many they are
    of how many.
    """

    worst: tuple[Misfit, ...] = ()
    missed: int = 0
    measured: int = 0

    def sentence(self, stage: str) -> str | None:
        """What a reader must know of the fit of this stage; None where nothing is missed."""
        if not self.worst:
            return None
        each = ", ".join(map(str, self.worst))
        than = "repeats of a batch differ by" if self.worst[0].repeated else "none was repeated; others are missed by"
        return (
            f"{stage}: the fit misses {self.missed} of the {self.measured} batches it was fitted to by more than "
            f"noise{', most of all' if self.missed > len(self.worst) else ''}: {each}; {than} "
            f"{100 * self.worst[0].noise:.0f} %"
        )


def misfits(frame: pd.DataFrame, predicted: npt.NDArray[np.float64]) -> Misfits:
    """The batches of one stage that a fit misses.

    A batch is missed when the logarithm of predicted over its median is larger than `CREDIBLE` standard deviations of
    that median, and than `LEAST`. What a measurement varies by is in `predictors.noise.deviations`; where nothing was
    repeated, it is taken from how far the fit misses an ordinary batch.

    Args:
        frame: rows of a profile.
        predicted: seconds per step of each row, shape (rows,).
    """
    rows = frame[SAME].assign(log=np.log(frame["seconds"] / frame["steps"]), predicted=np.log(predicted))
    groups = list(rows.groupby(SAME, sort=False))
    counts = np.array([len(group) for _, group in groups])
    misses = np.array([group["predicted"].to_numpy()[0] - np.median(group["log"]) for _, group in groups], dtype=float)
    found = deviations([group["log"].to_numpy(dtype=np.float64) for _, group in groups])
    ordinary = 1.4826 * float(np.median(np.abs(misses)))
    noise, each = (ordinary, np.full(len(groups), ordinary)) if found is None else found
    credible = CREDIBLE * each * np.sqrt(median_share(counts))
    far = np.flatnonzero(np.abs(misses) > np.maximum(credible, LEAST))
    worst = far[np.argsort(-np.abs(misses[far]), kind="stable")]
    share = float(np.expm1(noise))
    named = [
        Misfit(
            batch=_spell(groups[at][0]),
            error=float(np.expm1(misses[at])),
            noise=share,
            repeated=found is not None,
            times=int(counts[at]),
        )
        for at in worst[:SHOWN]
    ]
    return Misfits(tuple(named), len(worst), len(groups))


def _spell(batch: Sequence[object]) -> str:
    named = dict(zip(SAME, batch, strict=True))
    computed = f" with {100 * float(str(named['computed'])):.0f} % computed" if named["cached"] else ""
    return f"{named['composition']}{computed}"
