"""A plan in a sentence, the figures that go with it, and what a reader must know."""

from __future__ import annotations

import math

from reports.plan.words import about, cluster, money, number, percent, share, times
from sim.planning.result import ESTIMATED, NEAR_KNEE, UNSTABLE, Evaluation, Plan


def answer(plan: Plan) -> str:
    """The answer in a sentence."""
    if plan.answer is None:
        return _no_answer(plan)
    best = plan.answer
    buy = best.candidate
    plural = buy.all_devices != 1
    keep = {True: "keep", None: "may keep", False: "do not keep"} if plural else _SINGULAR
    promised = f"{percent(plan.attainment)} of deadlines at {_demand(plan)}"
    sentence = f"{cluster(buy)} with {buy.scheduler} {keep[best.keeps]} {promised}"
    if not math.isnan(best.price_per_hour):
        sentence += f" for {money(best.price_per_hour)} an hour"
        if not math.isnan(best.cost_per_1000_images):
            sentence += f" ({money(best.cost_per_1000_images)} per 1,000 images)"
    clauses = []
    if not math.isnan(plan.headroom):
        they = "they carry" if plural else "it carries"
        clauses.append(f"{they} {number(plan.headroom)} times this load")
    if plan.lost_replica is not None:
        clauses.append(f"with one replica less {share(plan.lost_replica.figures.attainment)} are kept")
    if clauses:
        sentence += "; " + ", and ".join(clauses)
    sentence += "."
    if best.state in (NEAR_KNEE, UNSTABLE):
        limit = f": its limit is {best.reason}" if best.reason else ""
        said = "close to the edge" if best.state == NEAR_KNEE else "UNSTABLE: its queue grows"
        sentence += f" This cluster is {said}{limit}."
    return sentence


def key_figures(plan: Plan) -> list[tuple[str, str]]:
    """What goes with the answer, as (label, value); empty without one."""
    best = plan.answer
    if best is None:
        return []
    pairs = [
        ("Buy", cluster(best.candidate)),
        ("Run it with", best.candidate.scheduler),
        ("Per hour", money(best.price_per_hour)),
        ("Per 1,000 images", money(best.cost_per_1000_images)),
        ("Deadlines kept", share(best.figures.attainment)),
        ("Utilisation", percent(round(best.figures.utilisation.mean, 3))),
        ("Load it can carry", times(plan.headroom)),
    ]
    if plan.lost_replica is not None:
        pairs.append(("With one replica less", share(plan.lost_replica.figures.attainment)))
    return [(label, value) for label, value in pairs if not value.startswith("–")]


def promise(plan: Plan) -> str:
    """What is promised, and of which demand."""
    demand = plan.demand
    images = "" if demand.images_per_request == 1 else f", {number(demand.images_per_request)} images a request"
    slo = f" ({plan.slo})" if plan.slo else ""
    return (
        f"The promise: {percent(plan.attainment)} of requests meet their deadline{slo}. The demand: {demand.source}, "
        f"{demand.model}, {_demand(plan)}{images}."
    )


def cautions(plan: Plan) -> list[str]:
    """What a reader must know before staking money on it, in full sentences."""
    notes = []
    best = plan.answer
    if best is not None and best.label == ESTIMATED:
        notes.append("The answer is ESTIMATED: no run of this model on this hardware was measured.")
    if best is not None and best.extrapolated > 0:
        notes.append(f"{about(best.extrapolated)} of the answer's simulated time lies outside the measured range.")
    undecided = sum(evaluation.keeps is None for evaluation in plan.considered)
    if undecided:
        clusters = "1 cluster" if undecided == 1 else f"{undecided} clusters"
        notes.append(
            f"{clusters} could not be decided by the replications that were run; undecided counts as not kept."
        )
    return [*notes, *plan.notes]


_SINGULAR = {True: "keeps", None: "may keep", False: "does not keep"}


def _no_answer(plan: Plan) -> str:
    kept = f"{percent(plan.attainment)} of deadlines at {_demand(plan)}"
    tried = [evaluation for evaluation in plan.considered if not math.isnan(evaluation.figures.attainment.mean)]
    if not tried:
        return f"No cluster is known to keep {kept}: none could be simulated."
    best = max(tried, key=_attainment)
    several = f"None of the {len(plan.considered)} clusters" if len(plan.considered) > 1 else "The one cluster"
    keeps = "keeps" if len(plan.considered) > 1 else "does not keep"
    if best.keeps is None:
        keeps = "is known to keep" if len(plan.considered) > 1 else "is not known to keep"
    limit = f", limited by {best.reason}" if best.reason else ""
    who = f"{cluster(best.candidate)} with {best.candidate.scheduler}"
    the_best = f"the best, {who}, reaches" if len(plan.considered) > 1 else f"{who} reaches"
    return f"{several} considered {keeps} {kept}: {the_best} {share(best.figures.attainment)}{limit}."


def _attainment(evaluation: Evaluation) -> float:
    return evaluation.figures.attainment.mean


def _demand(plan: Plan) -> str:
    return f"{number(plan.demand.rate_rps)} requests/s"
