"""How sure a plan may be whose seconds were not measured, or hardly: in sentences."""

from __future__ import annotations

import math
from collections import Counter

from predictors.basis import CALIBRATED
from reports.formatting import percent
from reports.plan.formatting import promised
from reports.plan.result import Plan, PossibleSpeed

_NINETY = 0.9


def certainty(plan: Plan) -> str:
    """How many replicas it takes, whatever the error of the seconds, and what would settle it; empty: it is certain."""
    speeds = plan.speeds
    if not speeds or plan.answer is None:
        return ""
    option = plan.answer.candidate
    each = f"{option.hardware} with {option.scheduler}"
    each = f"replicas of {option.devices} × {each}" if option.devices > 1 else f"× {each}"
    how = f"the times are {plan.answer.label} and may be wrong by ×/÷ {error_factor(plan):.2f} (80 %)"
    fewest, middle, most = (_replicas(speeds[at]) for at in (0, (len(speeds) - 1) // 2, -1))
    if fewest == middle < most == math.inf:
        share = percent(keeps_in(speeds, middle))
        return f"{_spell(fewest, fewest)} {each} keep {promised(plan)} in {share} of what is possible: {how}."
    if fewest == most:
        share = percent(_NINETY)
        return f"{_spell(fewest, fewest)} {each} keep {promised(plan)}, also in {share} of what is possible: {how}."
    likely = likeliest(speeds)
    sentence = f"{_spell(fewest, most)} {each}, most likely {_spell(likely, likely)}, for {promised(plan)}: {how}. "
    if math.isinf(most):
        sentence += f"None of the clusters considered keeps the promise in {percent(_NINETY)} of what is possible"
    else:
        sentence += f"{most:.0f} keep the promise in {percent(_NINETY)} of what is possible"
    return f"{sentence}; {_measuring(plan)}."


def likely_replicas(plan: Plan) -> tuple[str, str]:
    """``4 to 6``, and ``4 most likely, 6 in 90 %``; both empty where it takes as many at every speed."""
    if not plan.speeds or _replicas(plan.speeds[0]) == (most := _replicas(plan.speeds[-1])):
        return "", ""
    likely = likeliest(plan.speeds)
    hint = f"{_spell(likely, likely)} most likely"
    return replicas_in_range(plan), hint if math.isinf(most) else f"{hint}, {most:.0f} in {percent(_NINETY)}"


def replicas_in_range(plan: Plan) -> str:
    """``3 to 5``: the replicas that it takes in four of five cases."""
    return _spell(_replicas(plan.speeds[0]), _replicas(plan.speeds[-1]))


def error_factor(plan: Plan) -> float:
    """The factor by which the seconds of the answer's hardware are wrong at most, up or down, in four of five cases."""
    return plan.speeds[-1].slowdown if plan.speeds else 1.0


def likeliest(speeds: tuple[PossibleSpeed, ...]) -> float:
    """The number of replicas that the most speeds take; of several, that nearest to the best guess. Infinity: none that
    was considered."""
    counts = Counter(map(_replicas, speeds))
    guess = _replicas(speeds[(len(speeds) - 1) // 2])
    return max(counts, key=lambda replicas: (counts[replicas], replicas == guess, -replicas))


def keeps_in(speeds: tuple[PossibleSpeed, ...], replicas: float) -> float:
    """The share of what is possible in which so many replicas keep the promise, at the least: the slowest of the speeds
    at which they do, as a quantile; 0.0: at none of them."""
    return max([speed.quantile for speed in speeds if _replicas(speed) <= replicas], default=0.0)


def _measuring(plan: Plan) -> str:
    """What ten measurements would do for the answer."""
    more = "ten more measurements" if plan.answer and plan.answer.label == CALIBRATED else "ten measurements"
    middle = (len(plan.speeds) - 1) // 2
    reach = max(0, min(plan.speeds_if_measured, middle))
    fewest, most = (_replicas(plan.speeds[at]) for at in (middle - reach, middle + reach))
    if fewest == most:
        return f"{more} would settle it"
    if reach == middle:
        return f"{more} would hardly narrow it"
    return f"{more} would narrow it, to {_spell(fewest, most)} if the best guess is right"


def _replicas(speed: PossibleSpeed) -> float:
    return math.inf if speed.evaluation is None else speed.evaluation.candidate.replicas


def _spell(fewest: float, most: float) -> str:
    if math.isinf(fewest):
        return "more than were considered"
    if fewest == most:
        return f"{fewest:.0f}"
    return f"{fewest:.0f} or more than were considered" if math.isinf(most) else f"{fewest:.0f} to {most:.0f}"
