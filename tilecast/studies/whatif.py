"""What an answer rests on: the same cluster under more and less load, with a replica less, when things are otherwise.

Every question is answered by the replications of the answer itself, seed by seed (common random numbers), so that what
differs is what was changed and not the luck of the draw. They are not decided further: near its limit a cluster is
undecided, and that is what is said.
"""

from __future__ import annotations

from dataclasses import replace

from reports.plan.result import Candidate, Evaluation, WhatIf
from tilecast.studies.assess import Assessor
from tilecast.studies.bottleneck import BATCH_CAP, COMPUTE, POLICY
from tilecast.studies.experiment import Change
from tilecast.studies.headroom import LOADS

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
    return WhatIf(what, evaluation.figures, evaluation.keeps, evaluation.broken_by)


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
    return WhatIf("a replica less", evaluation.figures, evaluation.keeps, evaluation.broken_by)


def confirmed(assess: Assessor, evaluation: Evaluation) -> Evaluation:
    """A cluster that does not keep the promise, with the reason held against what it would do otherwise.

    Twice the batches, if memory has room for them; and the other policies considered, on as many devices. Where those
    do not keep it either, it is no policy's fault that requests wait; what is known to fail, even on more devices, is
    not simulated for it.
    """
    candidate, option = evaluation.candidate, assess.option(evaluation.candidate)
    load = assess.hardest()
    if option.max_batch is not None and (option.memory is None or option.memory.max_batch >= 2 * option.max_batch):
        wider = assess.like(candidate, candidate, replace(load, max_batch=2 * option.max_batch))
        if wider.keeps:
            return _because(evaluation, BATCH_CAP, f"with batches of up to {2 * option.max_batch}", wider)
    rivals = [
        replace(candidate, scheduler=scheduler)
        for hardware, devices, scheduler in assess.options
        if (hardware, devices) == (candidate.hardware, candidate.devices) and scheduler != candidate.scheduler
    ]
    others = [assess.failing(rival) or assess.like(candidate, rival, load) for rival in rivals]
    if not others:
        return evaluation
    best = max(others, key=lambda other: other.figures.attainment.mean)
    if best.keeps:
        return _because(evaluation, POLICY, f"with {best.candidate.scheduler}", best)
    if evaluation.reason == POLICY:
        on = best.candidate.replicas
        many = "" if on == candidate.replicas else f" on {on} replicas"
        return _because(evaluation, COMPUTE, f"with {best.candidate.scheduler}{many}, the best of the others,", best)
    return evaluation


def _because(evaluation: Evaluation, reason: str, otherwise: str, other: Evaluation) -> Evaluation:
    at = "" if other.figures.rate_scale == 1 else f" at {other.figures.rate_scale:g} times the load"
    attains = f"{otherwise} it attains {100 * other.figures.attainment.mean:.1f} %{at}"
    detail = f"{evaluation.detail.rstrip('.')}; {attains}." if evaluation.detail else attains[0].upper() + attains[1:]
    return replace(evaluation, reason=reason, detail=detail)
