"""A plan in a sentence, the figures that go with it, and what a reader must know."""

from __future__ import annotations

import math

from predictors.basis import ESTIMATED
from reports.document import KeyFigure
from reports.formatting import NONE, about, format_interval, format_rate, format_value, percent
from reports.output_analysis import Interval
from reports.plan.certainty import certainty, keeps_in, likely_replicas
from reports.plan.formatting import cluster, demand_rate, money, promised, rejection, subject
from reports.plan.result import NEAR_KNEE, STABLE, UNSTABLE, CarriedRange, Evaluation, Plan
from traces.notes import Note, grave, ordered, remark


def answer(plan: Plan) -> str:
    """The answer in a few sentences: what was asked for, and what goes with it."""
    best = subject(plan)
    if best is None:
        return _no_answer(plan)
    plural = best.candidate.all_devices != 1
    verb = _KEEP[plural][best.keeps]
    carries = _carries(plan, best) if plan.asked_about is not None else ""
    sure = "" if carries else certainty(plan)
    sentence = f"{'They' if plural else 'It'} {verb}" if carries else f"{_who(best)} {verb}"
    sentence += " it" if sure else f" {promised(plan)}"
    if carries and plan.speeds:
        sentence += f" in {percent(keeps_in(plan.speeds, best.candidate.replicas))} of what is possible"
    if not math.isnan(best.price_per_hour):
        sentence += f" for {money(best.price_per_hour)} an hour"
        if not math.isnan(best.cost_per_1000_images):
            sentence += f" ({money(best.cost_per_1000_images)} per 1,000 images)"
    if best.keeps is not True:
        but = format_interval(best.figures.attainment, "%")
        sentence += f": {rejection(best, plan.attainment)}" if best.broken_by else f", but {but}"
    clauses = []
    if not carries and not math.isnan(plan.headroom.mean):
        they = "they carry" if plural else "it carries"
        clauses.append(f"{they} {format_interval(plan.headroom, 'x')} times this load")
    if plan.lost_replica is not None:
        less = plan.lost_replica
        but = f", but {less.broken_by}" if less.broken_by and not less.keeps else ""
        clauses.append(f"with one replica less {format_interval(less.figures.attainment, '%')} are kept{but}")
    if clauses:
        sentence += "; " + ", and ".join(clauses)
    limit = f", limited by {best.reason}" if best.reason else ""
    state = {
        STABLE: f" It is stable{limit}." if limit else "",
        NEAR_KNEE: f" It is close to its limit{limit}.",
        UNSTABLE: f" It is UNSTABLE: its queue grows{limit}.",
    }
    before = f"{sure} By the best guess, " if sure else carries
    return f"{before}{sentence}.{state[best.state]}"


def headline(plan: Plan) -> tuple[str, str]:
    """The first sentence of the answer, and what follows it."""
    first, _, rest = answer(plan).partition(". ")
    return f"{first.removesuffix('.')}.", rest


def _carries(plan: Plan, best: Evaluation) -> str:
    """What a cluster carries that was asked about, in a sentence and a space; empty: that is not known."""
    rate_rps, load = plan.demand.rate_rps, plan.headroom
    if math.isnan(load.mean):
        return ""
    carried = format_interval(Interval(load.mean * rate_rps, load.half_width * rate_rps, load.replications), "x")
    verb = "carries" if best.candidate.all_devices == 1 else "carry"
    sentence = f"{_who(best)} {verb} {carried} requests/s with {percent(plan.attainment)} of deadlines kept"
    if plan.carried is not None:
        sentence += f", and {_range(plan.carried)} if the times, {best.label}, are wrong by "
        sentence += f"×/÷ {plan.carried.error_factor:.2f} (80 %)"
    return f"{sentence}. That is {format_interval(load, 'x')} times the demand. "


def _range(carried: CarriedRange) -> str:
    """``2.62 to 4.09``."""
    return f"{format_value(carried.least_rps, 'x')} to {format_value(carried.most_rps, 'x')}"


def key_figures(plan: Plan) -> list[KeyFigure]:
    """What goes with the answer, the most asked for first; empty without one."""
    best = subject(plan)
    if best is None:
        return []
    figures = best.figures
    rate = f"{format_value(plan.headroom.mean * plan.demand.rate_rps, 'x')} requests/s"
    rate += f", {_range(plan.carried)} by the error of the times" if plan.carried is not None else ""
    thousand = money(best.cost_per_1000_images)
    less = plan.lost_replica
    shown = [
        _bought(plan, best),
        KeyFigure("Per hour", money(best.price_per_hour), "" if thousand == NONE else f"{thousand} per 1,000 images"),
        KeyFigure(
            "Deadlines kept", format_interval(figures.attainment, "%"), f"of {percent(plan.attainment)} promised"
        ),
        KeyFigure("Load it can carry", format_interval(plan.headroom, "x") + "×", rate),
        KeyFigure("Demand, of the most it can do", percent(round(best.load, 2)), _state(best)),
        KeyFigure("With one replica less", NONE if less is None else format_interval(less.figures.attainment, "%")),
        KeyFigure("Utilisation", percent(round(figures.utilisation.mean, 3))),
        KeyFigure("Latency, P95", format_interval(figures.latency_p95_s, "s")),
        KeyFigure("Requests asked for, drawn, completed, in time", _rates(plan, best)),
        KeyFigure("Chosen among", ", ".join([policy.scheduler for policy in plan.policies]) or NONE),
    ]
    return [each for each in shown if not each.value.startswith(NONE)]


def _bought(plan: Plan, best: Evaluation) -> KeyFigure:
    """What to buy: a range, where the error of the times leaves one."""
    if best is not plan.answer or plan.asked_about is not None:
        return KeyFigure("Cluster", cluster(best.candidate), best.candidate.scheduler)
    fewest_to_most, hint = likely_replicas(plan)
    if not hint:
        return KeyFigure("Buy", cluster(best.candidate), best.candidate.scheduler)
    each = f"× {best.candidate.hardware}"
    each = f"replicas of {best.candidate.devices} {each}" if best.candidate.devices > 1 else each
    return KeyFigure("Buy", f"{fewest_to_most} {each}", f"{hint}; {best.candidate.scheduler}")


def _state(best: Evaluation) -> str:
    """How the cluster goes on, in small letters."""
    return {STABLE: "stable", NEAR_KNEE: "near its limit", UNSTABLE: "its queue grows"}[best.state]


def _rates(plan: Plan, best: Evaluation) -> str:
    """What was planned for, what the replications had, and what was completed and in time, requests a second."""
    figures = best.figures
    if math.isnan(figures.drawn_rps.mean):
        return NONE
    shown = [format_value(plan.demand.rate_rps, "x")]
    shown += [format_interval(rate, "x") for rate in (figures.drawn_rps, figures.throughput_rps, figures.goodput_rps)]
    return f"{', '.join(shown)} a second"


def promise(plan: Plan) -> str:
    """What is promised, and of which demand."""
    demand = plan.demand
    images = (
        "" if demand.images_per_request == 1 else f", {format_value(demand.images_per_request, 'x')} images a request"
    )
    slo = f" ({plan.slo})" if plan.slo else ""
    kept = f"{percent(plan.attainment)} of requests meet their deadline{slo}"
    if plan.throughput_rps:
        kept += f", and {format_rate(plan.throughput_rps)} are completed"
    if plan.least_headroom:
        kept += f", at {1 + plan.least_headroom:g} times the demand, too"
    return f"The promise: {kept}. The demand: {demand.source}, {demand.model}, {demand_rate(plan)}{images}."


def notes(plan: Plan) -> list[Note]:
    """What a reader must know before staking money on it, in full sentences, the gravest first."""
    notes: list[Note] = []
    best = subject(plan)
    if best is not None and best.state == UNSTABLE:
        notes.append(grave(f"OVERLOADED: {cluster(best.candidate)} cannot keep up. {best.detail}"))
    if best is None and plan.considered and all(row.state == UNSTABLE for row in plan.considered):
        nearest = max(plan.considered, key=_attainment)
        who = cluster(nearest.candidate)
        notes.append(grave(f"OVERLOADED: no cluster considered keeps up; the best is {who}. {nearest.detail}"))
    if best is not None and best.label == ESTIMATED:
        notes.append(Note("The figures are ESTIMATED: no run of this model on this hardware was measured."))
    if best is not None and best.extrapolated > 0:
        notes.append(Note(f"{about(best.extrapolated)} of its simulated time lies outside the measured range."))
    if best is not None and KNEE <= best.load < 1:
        notes.append(Note(_close_to_the_knee(best.load)))
    undecided = sum(evaluation.keeps is None for evaluation in plan.considered)
    if undecided:
        clusters = "1 cluster" if undecided == 1 else f"{undecided} clusters"
        notes.append(
            Note(
                f"{clusters} could not be decided by the replications that were run, or by so short a trace; undecided "
                "counts as not kept."
            )
        )
    shown = [row.figures for row in plan.considered] + [row.figures for row in (*plan.load_curve, *plan.sensitivity)]
    if any(math.isinf(figures.latency_p95_s.mean) for figures in shown):
        notes.append(remark(ENDLESS))
    return ordered([*notes, *plan.notes])


ENDLESS = (
    "A latency of ∞: so many requests never finish that this percentile is one of them; or the queue grows, and every "
    "latency depends on how long one looks."
)


KNEE = 0.95
"""Load from which on a latency is no more certain than the seconds of a step, many times over."""


def _close_to_the_knee(load: float) -> str:
    """What steps that take 1 % longer do to waits, which grow as 1 / (1 - load)."""
    start = f"The demand is {percent(round(load, 3))} of what it can do at most: so close to the knee steps 1 % longer"
    if 1.01 * load >= 1:
        return f"{start} make the queue grow without end, and no latency is certain."
    return f"{start} make waits about {about((1 - load) / (1 - 1.01 * load) - 1)} longer: so uncertain is P99."


_KEEP = {
    True: {True: "keep", None: "may keep", False: "do not keep"},
    False: {True: "keeps", None: "may keep", False: "does not keep"},
}
"""By whether there are several devices, and whether the promise is kept."""


def _no_answer(plan: Plan) -> str:
    tried = [evaluation for evaluation in plan.considered if not math.isnan(evaluation.figures.attainment.mean)]
    if not tried:
        return f"No cluster is known to keep {promised(plan)}: none could be simulated."
    best = max(tried, key=_attainment)
    limit = f", limited by {best.reason}" if best.reason else ""
    reached = f"reaches {format_interval(best.figures.attainment, '%')}{limit}"
    if best.broken_by:
        reached = f"has {rejection(best, plan.attainment)}{limit}"
    if len(plan.considered) == 1:
        keeps = "is not known to keep" if best.keeps is None else "does not keep"
        return f"The one cluster considered {keeps} {promised(plan)}: {_who(best)} {reached}."
    keeps = "is known to keep" if best.keeps is None else "keeps"
    return (
        f"None of the {len(plan.considered)} clusters considered {keeps} {promised(plan)}: the best, {_who(best)}, "
        f"{reached}."
    )


def _who(evaluation: Evaluation) -> str:
    return f"{cluster(evaluation.candidate)} with {evaluation.candidate.scheduler}"


def _attainment(evaluation: Evaluation) -> float:
    return evaluation.figures.attainment.mean
