"""Chooses structure and priors of the fit of efficiencies on half of the sources, and says what that is worth on the
other half, from which nothing was learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from predictors.efficiency import AUTOTUNED, Prior, error_class
from predictors.efficiency_fit import (
    ALIKE,
    SPLITS,
    EfficiencyModel,
    Floats,
    PublishedCase,
    assess,
    spreads,
)

SHIPPED = "as shipped"

_NONE = Prior(0.0, 1e-3)
VARIANTS: Mapping[str, Mapping[str, Prior]] = {
    SHIPPED: {},
    "without tuned kernels": {f"products {AUTOTUNED}": _NONE},
    "without data sheets": {"flops a watt": _NONE, "flops a byte": _NONE, "multiprocessors": _NONE},
    "without generations": {"generation": _NONE},
    "without hosts": {"host": _NONE},
    "without models": {"model": _NONE},
    "models half as different": {"model": Prior(0.0, 0.07)},
    "devices twice as different": {"device": Prior(0.0, 0.1)},
    "generations half as different": {"generation": Prior(0.0, 0.1)},
}
"""What is chosen from: the priors that stand in place of others, see `predictors.efficiency.prior`; a term whose prior
is zero, almost for certain, is none."""

_LEAST = 5
"""Measurements of a class below which it has no say in the choice."""


@dataclass(frozen=True)
class HalfReport:
    """What was chosen on one half of the sources, and what it is worth on the other.

    Attributes:
        chosen: one of `VARIANTS`.
        scores: by variant, mean over classes of the mean absolute error in %, of devices left out, on the half that
            chose.
        other: the cases of the other half.
        shipped, left_out: log of predicted over measured seconds of these, shape (n,), by everything but the device, as
            shipped and as chosen.
        alone: likewise, by the half that chose alone, as chosen.
        log_sds: standard deviations for ``alone`` that the half that chose says, shape (n,); NaN for a class that it
            does not have.
    """

    chosen: str
    scores: Mapping[str, float]
    other: Sequence[PublishedCase]
    shipped: Floats
    left_out: Floats
    alone: Floats
    log_sds: Floats


def halves(cases: Sequence[PublishedCase]) -> npt.NDArray[np.bool_]:
    """Whether each case is of the first half, shape (n,): sources are whole, the largest first, each put where fewer
    measurements are."""
    counts = Counter(case.row.repository for case in cases)
    totals, first = [0, 0], dict[str, bool]()
    for source in sorted(counts, key=lambda name: (-counts[name], name)):
        half = int(totals[1] < totals[0])
        first[source] = half == 0
        totals[half] += counts[source]
    return np.array([first[case.row.repository] for case in cases])


def held_out_halves(
    cases: Sequence[PublishedCase], variants: Mapping[str, Mapping[str, Prior]] = VARIANTS
) -> list[HalfReport]:
    """Each half's choice, and its worth on the other."""
    first = halves(cases)
    found = []
    without_device: dict[str, Floats] = {}
    for choosing in (first, ~first):
        own = [case for case, chooses in zip(cases, choosing, strict=True) if chooses]
        other = [case for case, chooses in zip(cases, choosing, strict=True) if not chooses]
        scores = {name: _score(own, priors) for name, priors in variants.items()}
        chosen = min(scores, key=lambda name: scores[name])
        for name in (SHIPPED, chosen):
            if name not in without_device:
                unfitted = EfficiencyModel(priors=variants[name])
                without_device[name] = assess(cases, ["device"], unfitted).errors["device"]
        known = assess(own, tuple(SPLITS), EfficiencyModel(priors=variants[chosen]))
        measured = np.array([case.row.seconds for case in other])
        of_class = spreads(known)
        settings = [case.setting for case in other]
        found.append(
            HalfReport(
                chosen=chosen,
                scores=scores,
                other=other,
                shipped=without_device[SHIPPED][~choosing],
                left_out=without_device[chosen][~choosing],
                alone=np.log(known.model.predict(other) / measured),
                log_sds=np.array(
                    [
                        of_class[error_class(setting)].log_sd(setting) if error_class(setting) in of_class else np.nan
                        for setting in settings
                    ]
                ),
            )
        )
    return found


def _score(cases: Sequence[PublishedCase], priors: Mapping[str, Prior]) -> float:
    assessed = assess(cases, ["device"], EfficiencyModel(priors=priors))
    errors = np.abs(np.expm1(assessed.errors["device"]))
    of_classes = [errors[assessed.classes == name] for name in ALIKE]
    return 100 * float(np.mean([each.mean() for each in of_classes if len(each) >= _LEAST]))
