"""A whole plan: the search, and everything that is to be said of its answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from predictors.basis import MEASURED
from reports.formatting import format_interval
from reports.output_analysis import Interval
from reports.plan.result import UNKNOWN, Candidate, Demand, Evaluation, Month, Plan, PolicyCost, PossibleSpeed
from tilecast.studies import whatif
from tilecast.studies.assess import Assessor
from tilecast.studies.experiment import AS_PLANNED, Change
from tilecast.studies.headroom import headroom as headroom_of
from tilecast.studies.search import Found, Option, search
from tilecast.studies.speeds import possible_speeds, within
from tilecast.studies.verdict import by_size
from traces.notes import Note, remark

HARDER = 1.1
"""Times the demand at which an answer that breaks is near its knee."""


@dataclass(frozen=True)
class Wanted:
    """What a plan shall say.

    Attributes:
        cluster: say what this one carries; None: search for the least one.
        schedulers: that the answer may use.
        policies: schedulers whose least clusters are wanted, too; empty: none.
        growth: growth of the demand per month, 0.1 for 10 %.
        months: months ahead whose least clusters are wanted; 0: none.
    """

    cluster: Candidate | None
    schedulers: tuple[str, ...]
    policies: tuple[str, ...] = ()
    growth: float = 0.0
    months: int = 0


def make_plan(assess: Assessor, wanted: Wanted, demand: Demand, slo: str) -> Plan:
    """The plan; what only the caller knows (scenario, command, version, points) is left empty.

    Args:
        assess: simulates all options, those of ``wanted.policies`` included.
    """
    target = assess.target
    if wanted.cluster is None:
        found = _least(assess, _of(assess, wanted.schedulers), AS_PLANNED)
    else:
        evaluation = assess(wanted.cluster)
        found = Found(evaluation if evaluation.keeps else None, ())
    about = wanted.cluster if found.answer is None else found.answer.candidate
    answer, runs, headroom = found.answer, [], UNKNOWN
    if about is not None:
        runs, headroom = assess.replications(about), headroom_of(assess, about)
        evaluation = assess.near(about, HARDER)
        answer = evaluation if evaluation.keeps else None
    policies = [PolicyCost(name, _least(assess, _of(assess, (name,)), AS_PLANNED).answer) for name in wanted.policies]
    notes = tuple([Note(surprise) for surprise in found.surprises])
    if wanted.cluster is not None:
        notes = (remark(_carries(assess, wanted.cluster, headroom)), *notes)
    if wanted.cluster is None and answer is not None and answer.label != MEASURED:
        notes = (*notes, *map(remark, _measured(assess, _of(assess, wanted.schedulers))))
    confirmed = _confirmed(assess, answer)
    bought = None if answer is None else assess.option(answer.candidate)
    return Plan(
        attainment=target.attainment,
        slo=slo,
        confidence=target.confidence,
        demand=demand,
        answer=answer,
        considered=tuple([confirmed.get(said.candidate, said) for said in assess.as_planned]),
        refused=found.refused,
        load_curve=() if about is None else whatif.load_curve(assess, about),
        headroom=headroom,
        lost_replica=None if about is None else whatif.lost_replica(assess, about),
        sensitivity=() if about is None else whatif.sensitivity(assess, about),
        growth=_growth(assess, wanted),
        policies=tuple(policies),
        speeds=() if answer is None else _speeds(assess, answer.candidate, wanted.cluster is None),
        speeds_if_measured=0 if bought is None else within(bought.measured_error_ratio),
        by_size=by_size(runs),
        over_time=runs[0].windows if runs else (),
        notes=notes,
    )


def _of(assess: Assessor, schedulers: Sequence[str]) -> list[Option]:
    return [option for option in assess.options.values() if option.scheduler in schedulers]


def _least(assess: Assessor, options: Sequence[Option], change: Change, near: Candidate | None = None) -> Found:
    """The least cluster under a demand; ``near`` is the one for a little less of it."""

    def guess(option: Option) -> int:
        if near is not None and option == assess.option(near):
            return near.replicas
        return math.ceil(HARDER * assess.load(option.cluster(1), change).mean)

    rate_rps = assess.target.rate_rps * change.rate_scale * change.slowdown
    return search(options, rate_rps, lambda candidate: assess(candidate, change), guess)


def _growth(assess: Assessor, wanted: Wanted) -> tuple[Month, ...]:
    months: list[Month] = []
    near: Candidate | None = None
    for month in range(wanted.months + 1 if wanted.months else 0):
        scale = round((1 + wanted.growth) ** month, 4)
        found = _least(assess, _of(assess, wanted.schedulers), Change(rate_scale=scale), near)
        near = None if found.answer is None else found.answer.candidate
        months.append(Month(month, scale, found.answer))
    return tuple(months)


def _speeds(assess: Assessor, answer: Candidate, searched: bool) -> tuple[PossibleSpeed, ...]:
    """What the answer's hardware would be bought, or of one cluster that was asked about: whether it does."""
    bought = assess.option(answer)
    if not bought.log_sd:
        return ()

    def least(slowdown: float) -> Evaluation | None:
        change = Change(slowdown=slowdown)
        if searched:
            return _least(assess, [bought], change, answer).answer
        evaluation = assess(answer, change)
        return evaluation if evaluation.keeps else None

    return possible_speeds(bought.log_sd, least)


def _confirmed(assess: Assessor, answer: Evaluation | None) -> dict[Candidate, Evaluation]:
    """The cluster of which one would ask why it does not do, with its reason confirmed: a replica less than the answer,
    or else what came nearest."""
    failing = [evaluation for evaluation in assess.as_planned if not evaluation.keeps]
    if answer is not None:
        less = replace(answer.candidate, replicas=answer.candidate.replicas - 1)
        failing = [evaluation for evaluation in failing if evaluation.candidate == less]
    if not failing:
        return {}
    nearest = max(failing, key=lambda evaluation: evaluation.figures.attainment.mean)
    return {nearest.candidate: whatif.confirmed(assess, nearest)}


def _measured(assess: Assessor, options: Sequence[Option]) -> Iterable[str]:
    """What the least cluster of measured hardware is, where the answer is of another kind."""
    measured = [option for option in options if option.label == MEASURED]
    if not measured:
        return
    found = _least(assess, measured, AS_PLANNED).answer
    if found is None:
        yield "None of the clusters of measured hardware that were considered keeps the promise."
    else:
        candidate, price = found.candidate, found.price_per_hour
        cost = "" if math.isnan(price) else f", for {price:.2f} an hour"
        yield f"The least cluster of measured hardware is {assess.option(candidate).spell(candidate.replicas)}{cost}."


def _carries(assess: Assessor, cluster: Candidate, headroom: Interval) -> str:
    rate_rps = headroom.mean * assess.target.rate_rps
    return (
        f"{assess.option(cluster).spell(cluster.replicas)} carry {rate_rps:.3g} requests/s with the promise kept, "
        f"{format_interval(headroom, 'x')} times the demand."
    )
