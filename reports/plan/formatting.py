"""How what a plan alone has is written for people: clusters, money, and whether to trust it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from predictors.basis import CALIBRATED, ESTIMATED, MEASURED
from reports.formatting import NONE, format_interval, format_rate, format_value, percent
from reports.plan.result import Candidate, Evaluation, Plan, WhatIf

TRUST = {
    MEASURED: "Times come from a model fitted on measurements of this hardware with this model.",
    CALIBRATED: "Times come from a roofline of the data sheet, fitted to a few measurements of this hardware.",
    ESTIMATED: "Times come from data sheets and operation counts alone; nothing was measured. Measure before you buy.",
}
"""What each label of trust means, the most trustworthy first."""


def subject(plan: Plan) -> Evaluation | None:
    """The cluster that the load curve, what-ifs, sizes and slices of time are of: the answer, or the one that was asked
    about and does not keep the promise. None: there is none.
    """
    if plan.answer is not None:
        return plan.answer
    return next((row for row in plan.considered if row.candidate == plan.asked_about), None)


def cluster(candidate: Candidate) -> str:
    """What to buy: ``3 × h100``, or ``3 replicas of 2 × h100``."""
    if candidate.devices == 1:
        return f"{candidate.replicas} × {candidate.hardware}"
    replicas = "1 replica" if candidate.replicas == 1 else f"{candidate.replicas} replicas"
    return f"{replicas} of {candidate.devices} × {candidate.hardware}"


def alike(candidate: Candidate) -> tuple[str, int, str]:
    """Equal for clusters that differ in replicas alone."""
    return candidate.hardware, candidate.devices, candidate.scheduler


def promised(plan: Plan) -> str:
    """The promise and the demand: ``95 % of deadlines at 3 requests/s``."""
    completed = f" and {format_rate(plan.throughput_rps)}" if plan.throughput_rps else ""
    room = f" with {percent(plan.least_headroom)} headroom" if plan.least_headroom else ""
    return f"{percent(plan.attainment)} of deadlines{completed} at {demand_rate(plan)}{room}"


def demand_rate(plan: Plan) -> str:
    """``3 requests/s``."""
    return f"{format_value(plan.demand.rate_rps, 'x')} requests/s"


def money(value: float) -> str:
    """``8.97``, ``0.0086``: at least two digits that say something; a dash where no price is known."""
    if math.isnan(value):
        return NONE
    decimals = 2 if value == 0 or math.isinf(value) else min(6, max(2, 1 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{decimals}f}"


def kept(of: Evaluation | WhatIf) -> str:
    """Whether the promise is kept, and what breaks it where late requests do not."""
    short = {True: "yes", False: "no", None: "undecided"}[of.keeps]
    return f"{short}: {of.broken_by}" if of.broken_by and not of.keeps else short


def rejection(of: Evaluation | WhatIf, promised: float) -> str:
    """Why the promise is not kept: ``94.2 % kept of 95 %``, ``97.1 % kept, but the queue grows``; empty: it is.

    Args:
        promised: the share of requests that must finish in time.
    """
    if of.keeps:
        return ""
    met = of.figures.attainment
    enough, open_yet = met.low >= promised, met.low < promised <= met.high
    share = format_interval(met, "%") if open_yet else _apart(met.mean, promised)
    reached = f"{share} kept" if enough else f"{share} kept of {percent(promised)}"
    if of.broken_by:
        return f"{reached}, {'but' if met.mean >= promised else 'and'} {of.broken_by}"
    return f"{reached}, undecided" if of.keeps is None else reached


def _apart(value: float, other: float) -> str:
    """A share with as many decimals as tell it from another one."""
    decimals = next((n for n in (1, 2, 3) if round(100 * value, n) != round(100 * other, n)), 1)
    return NONE if math.isnan(value) else f"{100 * value:.{decimals}f} %"


def trust(plan: Plan, evaluations: Iterable[Evaluation]) -> str:
    """The least trustworthy label of evaluations, and whether a profile of theirs carries a note; nothing of none."""
    rests_on = list(evaluations)
    labels = {evaluation.label for evaluation in rests_on}
    weakest = next((label for label in reversed(TRUST) if label in labels), "")
    noted = any(evaluation.candidate.hardware in plan.noted for evaluation in rests_on)
    return f"{weakest}, with a note" if noted and weakest else weakest
