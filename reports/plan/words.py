"""How a plan's values are spelled for people: clusters, shares, seconds and money, each with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterable

from predictors.basis import CALIBRATED, ESTIMATED, MEASURED
from reports.figures import spell_value
from reports.output_analysis import Interval
from reports.plan.result import Candidate, Evaluation, Plan

NONE = "–"

TRUST = {
    MEASURED: "Times come from a model fitted on measurements of this hardware with this model.",
    CALIBRATED: "Times come from a roofline of the data sheet, fitted to a few measurements of this hardware.",
    ESTIMATED: "Times come from data sheets and operation counts alone; nothing was measured. Measure before you buy.",
}
"""What each label of trust means, the most trustworthy first."""


def subject(plan: Plan) -> Evaluation | None:
    """The cluster that the load curve, what-ifs, sizes and slices of time are of: the answer, or the one that was asked
    about and does not keep the promise, which was considered beside those with a replica less. None: there is none.
    """
    if plan.answer is None and plan.load_curve:
        return max(plan.considered, key=lambda row: row.candidate.all_devices, default=None)
    return plan.answer


def cluster(candidate: Candidate) -> str:
    """What to buy: ``3 × h100``, or ``3 replicas of 2 × h100``."""
    if candidate.devices == 1:
        return f"{candidate.replicas} × {candidate.hardware}"
    replicas = "1 replica" if candidate.replicas == 1 else f"{candidate.replicas} replicas"
    return f"{replicas} of {candidate.devices} × {candidate.hardware}"


def share(value: Interval) -> str:
    """``95.2 ± 0.6 %``; without the second where one replication is all there is."""
    if math.isnan(value.mean):
        return NONE
    if not math.isfinite(value.half_width):
        return f"{100 * value.mean:.1f} %"
    return f"{100 * value.mean:.1f} ± {100 * value.half_width:.1f} %"


def percent(value: float) -> str:
    """``95 %``, ``99.9 %``: no more digits than it has."""
    return NONE if math.isnan(value) else f"{100 * value:.4g} %"


def about(value: float) -> str:
    """A share of which the order matters: ``12 %``, ``0.4 %``, ``< 0.1 %``."""
    if 0 < value < 0.001:
        return "< 0.1 %"
    return f"{100 * value:.2g} %"


def seconds(value: Interval) -> str:
    """``12.3 ± 0.4 s``, with as many decimals as the mean needs."""
    spelled = spell_value(value.mean, "s")
    if not (math.isfinite(value.half_width) and math.isfinite(value.mean)):
        return spelled
    number = spelled.removesuffix(" s")
    decimals = len(number.partition(".")[2])
    return f"{number} ± {value.half_width:,.{decimals}f} s"


def number(value: float) -> str:
    """Three digits; a dash when it is not defined."""
    return spell_value(value, "x")


def times(value: float) -> str:
    """``1.31×``."""
    return NONE if math.isnan(value) else f"{value:.2f}×"


def money(value: float) -> str:
    """``8.97``, ``0.0086``: at least two digits that say something; a dash where no price is known."""
    if math.isnan(value):
        return NONE
    decimals = 2 if value == 0 or math.isinf(value) else min(6, max(2, 1 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{decimals}f}"


def kept(keeps: bool | None) -> str:
    """Whether the promise is kept."""
    return {True: "yes", False: "no", None: "undecided"}[keeps]


def trust(plan: Plan, evaluations: Iterable[Evaluation]) -> str:
    """The least trustworthy label of evaluations, and whether a profile of theirs carries a note; nothing of none."""
    rests_on = list(evaluations)
    labels = {evaluation.label for evaluation in rests_on}
    weakest = next((label for label in reversed(TRUST) if label in labels), "")
    noted = any(evaluation.candidate.hardware in plan.noted for evaluation in rests_on)
    return f"{weakest}, with a note" if noted and weakest else weakest
