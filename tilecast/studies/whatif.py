"""What an answer rests on: the same cluster under more and less load, with a replica less, when things are otherwise.

Every question is answered by the replications of the answer itself, seed by seed (common random numbers), so that what
differs is what was changed and not the luck of the draw. They are not decided further: near its limit a cluster is
undecided, and that is what is said. The headroom alone is decided, by as many replications as an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from reports.plan.result import Candidate, Evaluation, WhatIf
from tilecast.studies.assess import Assessor
from tilecast.studies.bottleneck import BATCH_CAP, COMPUTE, POLICY
from tilecast.studies.experiment import Change

LOADS = (0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5)
"""Of the load curve, times the demand."""

WITHIN = 0.02
"""Of the headroom that is said, the least load found not to be carried is at most so much higher."""

_LEAST_SCALE = 1e-3

_OTHERWISE = {
    "20 % more load": Change(rate_scale=1.2),
    "20 % less load": Change(rate_scale=0.8),
    "steps take 10 % longer": Change(slowdown=1.1),
    "steps take 10 % less": Change(slowdown=0.9),
    "predictions are 20 % too long": Change(error=0.2),
    "predictions are 20 % too short": Change(error=-0.2),
}


def what_if(assess: Assessor, candidate: Candidate, what: str, change: Change) -> WhatIf:
    """One row."""
    evaluation = assess.like(candidate, candidate, change)
    return WhatIf(what, evaluation.figures, evaluation.keeps)


def load_curve(assess: Assessor, candidate: Candidate) -> tuple[WhatIf, ...]:
    """The cluster under `LOADS`."""
    return tuple([what_if(assess, candidate, f"{load:g} x load", Change(rate_scale=load)) for load in LOADS])


def sensitivity(assess: Assessor, candidate: Candidate) -> tuple[WhatIf, ...]:
    """The cluster when load, step times or predictions are otherwise."""
    return tuple([what_if(assess, candidate, what, change) for what, change in _OTHERWISE.items()])


def lost_replica(assess: Assessor, candidate: Candidate) -> WhatIf | None:
    """The cluster with a replica less; None: there is only one."""
    if candidate.replicas == 1:
        return None
    evaluation = assess(replace(candidate, replicas=candidate.replicas - 1))
    return WhatIf("a replica less", evaluation.figures, evaluation.keeps)


def headroom(assess: Assessor, candidate: Candidate) -> float:
    """The largest load that the cluster carries with the promise kept, times the demand; 0.0: none worth the name."""
    return largest(lambda scale: assess(candidate, Change(rate_scale=scale)).keeps is True)


def largest(keeps: Callable[[float], bool], within: float = WITHIN) -> float:
    """The largest scale, to ``within``, at which ``keeps`` still holds, taken to fail at all larger ones.

    By galloping from 1 and bisecting the ratio; 0.0 when it fails at a thousandth, infinity when it holds at a million.
    """
    holds = keeps(1.0)
    step = 1.25 if holds else 1 / 1.25
    low = high = 1.0
    while True:
        at = round(high * step if holds else low * step, 4)
        if at < _LEAST_SCALE:
            return 0.0
        if at > 1e6:
            return math.inf
        if keeps(at) != holds:
            break
        low = high = at
        step *= step
    low, high = (high, at) if holds else (at, low)
    while high / low > 1 + within:
        middle = round(math.sqrt(low * high), 4)
        if not low < middle < high:
            break
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def confirmed(assess: Assessor, evaluation: Evaluation) -> Evaluation:
    """A cluster that does not keep the promise, with the reason held against what it would do otherwise.

    Twice the batches, if memory has room for them; and the other policies considered, on as many devices. Where those
    do not keep it either, it is no policy's fault that requests wait.
    """
    candidate, option = evaluation.candidate, assess.option(evaluation.candidate)
    if option.max_batch is not None and (option.memory is None or option.memory.max_batch >= 2 * option.max_batch):
        wider = assess.like(candidate, candidate, Change(max_batch=2 * option.max_batch))
        if wider.keeps:
            return _because(evaluation, BATCH_CAP, f"with batches of up to {2 * option.max_batch}", wider)
    others = [
        assess.like(candidate, replace(candidate, scheduler=scheduler))
        for hardware, devices, scheduler in assess.options
        if (hardware, devices) == (candidate.hardware, candidate.devices) and scheduler != candidate.scheduler
    ]
    if not others:
        return evaluation
    best = max(others, key=lambda other: other.figures.attainment.mean)
    if best.keeps:
        return _because(evaluation, POLICY, f"with {best.candidate.scheduler}", best)
    if evaluation.reason == POLICY:
        return _because(evaluation, COMPUTE, f"with {best.candidate.scheduler}, the best of the others,", best)
    return evaluation


def _because(evaluation: Evaluation, reason: str, otherwise: str, other: Evaluation) -> Evaluation:
    attains = f"{otherwise} it attains {100 * other.figures.attainment.mean:.1f} %"
    detail = f"{evaluation.detail.rstrip('.')}; {attains}." if evaluation.detail else attains[0].upper() + attains[1:]
    return replace(evaluation, reason=reason, detail=detail)
