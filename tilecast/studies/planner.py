"""A whole plan: the search, and everything that is to be said of its answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from predictors.basis import MEASURED
from reports.output_analysis import Interval
from reports.plan.result import (
    UNKNOWN,
    UNSTABLE,
    Candidate,
    CarriedRange,
    Demand,
    Evaluation,
    Month,
    Plan,
    PolicyCost,
    PossibleSpeed,
)
from tilecast.studies import whatif
from tilecast.studies.assess import Assessor
from tilecast.studies.experiment import AS_PLANNED, Change
from tilecast.studies.headroom import LOADS
from tilecast.studies.headroom import headroom as headroom_of
from tilecast.studies.search import Found, Option, least_cluster, search, surprises
from tilecast.studies.speeds import possible_speeds, slowdowns, within
from tilecast.studies.verdict import by_size
from traces.notes import Note, remark

HARDER = 1.1
"""Times the demand at which an answer that breaks is near its knee."""


@dataclass(frozen=True)
class Wanted:
    """What a plan shall say.

    Attributes:
        policies: schedulers of which the best is the answer.
        clusters: one for each policy, of which it is to be said what they carry; empty: search for the least ones.
        growth: growth of the demand per month, 0.1 for 10 %.
        months: months ahead whose least clusters are wanted; 0: none.
    """

    policies: tuple[str, ...]
    clusters: tuple[Candidate, ...] = ()
    growth: float = 0.0
    months: int = 0


def make_plan(assess: Assessor, wanted: Wanted, demand: Demand, slo: str) -> Plan:
    """The plan; what only the caller knows (scenario, command, version, points) is left empty.

    Args:
        assess: simulates all options, those of ``wanted.policies`` included.
    """
    target, searched = assess.target, not wanted.clusters
    if searched:
        found = _of_policies(assess, wanted.policies)
    else:
        found = {cluster.scheduler: _asked(assess(cluster)) for cluster in wanted.clusters}
    about = _best(assess, [least.answer for least in found.values() if least.answer is not None])
    if about is None and not searched:
        about = max(wanted.clusters, key=lambda cluster: assess(cluster).figures.attainment.mean)
    answer, runs, headroom = None, [], UNKNOWN
    if about is not None:
        runs, headroom = assess.replications(about), headroom_of(assess, about)
        evaluation = assess.near(about, HARDER)
        answer = evaluation if evaluation.keeps else None
    notes: tuple[Note, ...] = ()
    if searched and answer is not None:
        odd = surprises(assess.option(answer.candidate), answer, assess, target.attainment)
        notes = tuple([Note(surprise) for surprise in odd])
    if searched and answer is not None and answer.label != MEASURED:
        notes = (*notes, *map(remark, _measured(assess, _of(assess, (answer.candidate.scheduler,)))))
    confirmed = _confirmed(assess, answer)
    bought = None if answer is None else assess.option(answer.candidate)
    return Plan(
        attainment=target.attainment,
        throughput_rps=target.throughput_rps,
        least_headroom=target.headroom,
        slo=slo,
        confidence=target.confidence,
        demand=demand,
        answer=answer,
        considered=tuple([confirmed.get(said.candidate, said) for said in assess.as_planned]),
        refused=tuple([refused for least in found.values() for refused in least.refused]),
        load_curve=() if about is None else whatif.load_curve(assess, about),
        headroom=headroom,
        carried=None if about is None else _carried(assess, about, headroom),
        lost_replica=None if about is None else whatif.lost_replica(assess, about),
        sensitivity=() if about is None else whatif.sensitivity(assess, about),
        growth=_growth(assess, wanted, answer),
        policies=_policies(assess, wanted, found) if len(found) > 1 else (),
        speeds=() if answer is None else _speeds(assess, answer.candidate, searched),
        speeds_if_measured=0 if bought is None else within(bought.measured_error_ratio),
        by_size=by_size(runs),
        over_time=runs[0].windows if runs else (),
        notes=notes,
        asked_about=None if searched else about,
    )


def _of_policies(assess: Assessor, policies: Sequence[str]) -> dict[str, Found]:
    """The least cluster with each policy; what one takes is a guess of what the next one does."""
    found: dict[str, Found] = {}
    near: Candidate | None = None
    for name in policies:
        found[name] = _least(assess, _of(assess, (name,)), AS_PLANNED, near)
        if (answer := found[name].answer) is not None:
            near = answer.candidate
    return found


def _asked(evaluation: Evaluation) -> Found:
    return Found(evaluation if evaluation.keeps else None, ())


def _best(assess: Assessor, answers: Sequence[Evaluation]) -> Candidate | None:
    """The cheapest cluster; of several, the one that keeps the promise at the largest load, and the most there."""
    if not answers:
        return None

    def price(answer: Evaluation) -> tuple[float, int]:
        candidate = answer.candidate
        return assess.option(candidate).rank(candidate.replicas)[:2]

    least = min(map(price, answers))
    left = {answer.candidate: answer.figures.attainment.mean for answer in answers if price(answer) == least}
    for load in [load for load in LOADS if load > 1]:
        if len(left) == 1:
            break
        change = Change(rate_scale=load)
        evaluations = {candidate: assess.like(candidate, candidate, change) for candidate in left}
        attained = {candidate: said.figures.attainment.mean for candidate, said in evaluations.items()}
        keeping = {
            candidate: share
            for candidate, share in attained.items()
            if share >= assess.target.attainment and evaluations[candidate].state != UNSTABLE
        }
        left = keeping or attained
        if not keeping:
            break
    return max(left, key=lambda candidate: left[candidate])


def _policies(assess: Assessor, wanted: Wanted, found: Mapping[str, Found]) -> tuple[PolicyCost, ...]:
    """What was asked about with each policy; or the least cluster of each, or what came nearest."""
    if wanted.clusters:
        return tuple([PolicyCost(cluster.scheduler, assess(cluster)) for cluster in wanted.clusters])
    costs = []
    for name, least in found.items():
        tried = [evaluation for evaluation in assess.as_planned if evaluation.candidate.scheduler == name]
        nearest = max(tried, key=lambda evaluation: evaluation.figures.attainment.mean, default=None)
        costs.append(PolicyCost(name, nearest if least.answer is None else assess(least.answer.candidate)))
    return tuple(costs)


def _of(assess: Assessor, schedulers: Sequence[str]) -> list[Option]:
    return [option for option in assess.options.values() if option.scheduler in schedulers]


def _least(assess: Assessor, options: Sequence[Option], change: Change, near: Candidate | None = None) -> Found:
    """The least cluster under a demand; ``near`` is the one for a little less of it, or with another policy."""

    def guess(option: Option) -> int:
        if near is not None and (option.hardware, option.devices) == (near.hardware, near.devices):
            return near.replicas
        return math.ceil(HARDER * assess.load(option.cluster(1), assess.hardest(change)).mean)

    rate_rps = assess.target.rate_rps * assess.hardest(change).rate_scale * change.slowdown
    return search(options, rate_rps, lambda candidate: assess(candidate, change), guess, assess.target.attainment)


def _growth(assess: Assessor, wanted: Wanted, answer: Evaluation | None) -> tuple[Month, ...]:
    """The least cluster of each month; with the answer's policy, where another one would cost as much."""
    months: list[Month] = []
    near: Candidate | None = None
    for month in range(wanted.months + 1 if wanted.months else 0):
        scale = round((1 + wanted.growth) ** month, 4)
        change = Change(rate_scale=scale)
        least = _least(assess, _of(assess, wanted.policies), change, near).answer
        if least is not None and answer is not None and least.candidate.scheduler != answer.candidate.scheduler:
            same = replace(least.candidate, scheduler=answer.candidate.scheduler)
            least = alike if (alike := assess(same, change)).keeps else least
        near = None if least is None else least.candidate
        months.append(Month(month, scale, least))
    return tuple(months)


def _speeds(assess: Assessor, answer: Candidate, searched: bool) -> tuple[PossibleSpeed, ...]:
    """What the answer's hardware would be bought, or of one cluster that was asked about: whether it does."""
    bought = assess.option(answer)
    if not bought.log_sd:
        return ()

    def least(slowdown: float, fewest: int, most: int | None) -> Evaluation | None:
        change = Change(slowdown=slowdown)
        if not searched:
            evaluation = assess(answer, change)
            return evaluation if evaluation.keeps else None
        rate_rps = assess.target.rate_rps * assess.hardest(change).rate_scale
        low, high = max(fewest, bought.at_least(rate_rps * slowdown)), most or bought.max_replicas
        guess = round(answer.replicas * slowdown)
        found = least_cluster(bought, low, high, lambda candidate: assess(candidate, change), guess)
        if found is None and high < bought.max_replicas:  # the luck of the draw: what kept the promise more slowly
            found = least_cluster(
                bought, high + 1, bought.max_replicas, lambda candidate: assess(candidate, change), high + 1
            )
        return found

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


def _carried(assess: Assessor, about: Candidate, headroom: Interval) -> CarriedRange | None:
    """What the cluster carries at the slowest and the fastest of four of five speeds that its hardware may have."""
    log_sd, rate_rps = assess.option(about).log_sd, headroom.mean * assess.target.rate_rps
    if not log_sd or not 0 < rate_rps < math.inf:
        return None
    factor = slowdowns(log_sd)[-1]
    return CarriedRange(factor, rate_rps / factor, rate_rps * factor)
