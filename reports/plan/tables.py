"""The tables of a plan, spelled for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from reports.formatting import NONE, about, format_interval, format_value, percent, times
from reports.plan.engines import AS_ENGINES_DECIDE, EngineCommand, engine_commands
from reports.plan.formatting import alike, cluster, kept, money, rejection, subject, trust
from reports.plan.result import (
    DegreeFigures,
    Evaluation,
    Memory,
    Month,
    Plan,
    PolicyCost,
    PossibleSpeed,
    Refused,
    SizeFigures,
    WhatIf,
    Window,
)
from reports.table import Column, Table


def considered(plan: Plan) -> Table:
    """Every cluster that was simulated, in the plan's order."""
    return _clusters(plan, "Clusters considered", plan.considered)


def least(plan: Plan) -> Table:
    """Of clusters that differ in replicas alone, the first that keeps the promise, or else the one that comes nearest,
    in the plan's order."""
    found: dict[tuple[str, int, str], Evaluation] = {}
    for row in plan.considered:
        before = found.get(alike(row.candidate))
        if before is None or (not before.keeps and (row.keeps or _met(row) > _met(before))):
            found[alike(row.candidate)] = row
    return _clusters(plan, "The least of each kind", [row for row in plan.considered if row in found.values()])


def _clusters(plan: Plan, title: str, rows: Iterable[Evaluation]) -> Table:
    columns = (
        Column[Evaluation]("Cluster", lambda row: cluster(row.candidate), "text"),
        Column[Evaluation]("Policy", lambda row: row.candidate.scheduler, "text"),
        Column[Evaluation]("Keeps its promise", kept, "text"),
        Column[Evaluation]("Deadlines kept", lambda row: format_interval(row.figures.attainment, "%")),
        Column[Evaluation]("Per hour", lambda row: money(row.price_per_hour)),
        Column[Evaluation]("Per 1,000 images", lambda row: money(row.cost_per_1000_images), brief=False),
        Column[Evaluation]("Stable, and its limit", _state, "text"),
        Column[Evaluation]("Why not", lambda row: rejection(row, plan.attainment), "text", brief=False),
        Column[Evaluation]("P95 latency", lambda row: format_interval(row.figures.latency_p95_s, "s"), brief=False),
        Column[Evaluation]("Trust", lambda row: trust(plan, [row]), "text"),
    )
    best = subject(plan)
    return Table.of(
        title,
        columns,
        rows,
        lambda row: best is not None and row.candidate == best.candidate,
    )


def reasons(plan: Plan) -> Table:
    """Why each cluster that was simulated is in its state."""
    columns = (
        Column[Evaluation]("Cluster", lambda row: cluster(row.candidate), "text"),
        Column[Evaluation]("Policy", lambda row: row.candidate.scheduler, "text"),
        Column[Evaluation]("State", lambda row: row.state, "text"),
        Column[Evaluation]("Demand, of its throughput with full batches", _load),
        Column[Evaluation]("Extrapolated", _extrapolated),
        Column[Evaluation]("Why", lambda row: row.detail, "sentence"),
    )
    return Table.of("Why each is in its state, and how much of it is extrapolated", columns, plan.considered)


def refused(plan: Plan) -> Table:
    """What was not simulated, and why."""
    columns = (
        Column[Refused]("Hardware", lambda row: row.hardware, "text"),
        Column[Refused]("Devices a replica", lambda row: str(row.devices)),
        Column[Refused]("Policy", lambda row: row.scheduler, "text"),
        Column[Refused]("Why not", lambda row: row.why, "sentence"),
    )
    return Table.of("Not simulated, and why", columns, plan.refused)


def memory(plan: Plan) -> Table:
    """Whether the model fits on a device, once for each kind and number of devices a replica."""
    known = {(row.candidate.hardware, row.candidate.devices): row.memory for row in plan.considered if row.memory}
    columns = (
        Column[_Fit]("Hardware", lambda row: row[0][0], "text"),
        Column[_Fit]("Devices a replica", lambda row: str(row[0][1])),
        Column[_Fit]("A device has", lambda row: _gigabytes(row[1].device_bytes)),
        Column[_Fit]("Needed", lambda row: _gigabytes(row[1].needed_bytes)),
        Column[_Fit]("Largest batch that fits", lambda row: str(row[1].max_batch) if row[1].max_batch else "none"),
        Column[_Fit]("Trust", lambda row: row[1].label, "text"),
    )
    return Table.of("Does the model fit", columns, known.items())


def load_curve(plan: Plan) -> Table:
    """The answer's cluster under less and more load."""
    columns = (
        Column[WhatIf]("Load", lambda row: times(row.figures.rate_scale), "text"),
        Column[WhatIf]("Requests/s", lambda row: format_value(row.figures.rate_rps, "x")),
        *_WHAT_IF,
        _UTILISATION,
        Column[WhatIf]("Batch", lambda row: format_value(row.figures.batch.mean, "x"), brief=False),
    )
    return Table.of("Attainment against load", columns, plan.load_curve, lambda row: row.figures.rate_scale == 1)


def what_if(plan: Plan) -> Table:
    """The answer's cluster as planned, with a replica less, and when something is otherwise."""
    columns = (
        Column[WhatIf]("If", lambda row: row.what, "text"),
        *_WHAT_IF,
        Column[WhatIf]("P99 latency", lambda row: format_interval(row.figures.latency_p99_s, "s"), brief=False),
        _UTILISATION,
        Column[WhatIf]("Dropped", lambda row: format_interval(row.figures.dropped, "%"), brief=False),
    )
    return Table.of("What if", columns, cases(plan), lambda row: row.what == AS_PLANNED)


AS_PLANNED = "as planned"


def cases(plan: Plan) -> list[WhatIf]:
    """What `what_if` and its chart show, in order."""
    best = subject(plan)
    otherwise = [*([plan.lost_replica] if plan.lost_replica else []), *plan.sensitivity]
    return [WhatIf(AS_PLANNED, best.figures, best.keeps), *otherwise] if best is not None and otherwise else []


def policies(plan: Plan) -> Table:
    """The least cluster with each policy, what it costs more than the cheapest, and its verdict; of one with which none
    keeps the promise, what came nearest."""
    known = [row.evaluation.price_per_hour for row in plan.policies if row.evaluation and row.evaluation.keeps]
    cheapest = min((price for price in known if not math.isnan(price)), default=math.nan)

    def least(row: PolicyCost) -> str:
        if row.evaluation is None:
            return "none was simulated"
        return cluster(row.evaluation.candidate) if row.evaluation.keeps else "none of those considered"

    def verdict(row: PolicyCost) -> str:
        if row.evaluation is None or row.evaluation.keeps:
            return _of(row.evaluation, _state)
        return f"{cluster(row.evaluation.candidate)}: {rejection(row.evaluation, plan.attainment)}"

    def keeping(row: PolicyCost, spell: Callable[[Evaluation], str]) -> str:
        return spell(row.evaluation) if row.evaluation is not None and row.evaluation.keeps else NONE

    def more(evaluation: Evaluation) -> str:
        extra = evaluation.price_per_hour - cheapest
        return NONE if not extra > 0 else f"+{money(extra)} (+{percent_more(extra)})"

    def percent_more(extra: float) -> str:
        return about(extra / cheapest) if cheapest > 0 else NONE

    columns = (
        Column[PolicyCost]("Policy", lambda row: row.scheduler, "text"),
        Column[PolicyCost]("Least cluster", least, "text"),
        Column[PolicyCost]("Per hour", lambda row: keeping(row, lambda e: money(e.price_per_hour))),
        Column[PolicyCost]("More than the least", lambda row: keeping(row, more)),
        Column[PolicyCost](
            "Per 1,000 images", lambda row: keeping(row, lambda e: money(e.cost_per_1000_images)), brief=False
        ),
        Column[PolicyCost](
            "Deadlines kept", lambda row: _of(row.evaluation, lambda e: format_interval(e.figures.attainment, "%"))
        ),
        Column[PolicyCost]("Verdict", verdict, "text"),
        Column[PolicyCost](
            "P95 latency",
            lambda row: _of(row.evaluation, lambda e: format_interval(e.figures.latency_p95_s, "s")),
            brief=False,
        ),
        Column[PolicyCost]("Trust", lambda row: _of(row.evaluation, lambda e: trust(plan, [e])), "text"),
        Column[PolicyCost]("Extrapolated", lambda row: _of(row.evaluation, _extrapolated), brief=False),
    )
    used = plan.answer.candidate.scheduler if plan.answer else None
    return Table.of("What each policy needs", columns, plan.policies, lambda row: row.scheduler == used)


def growth(plan: Plan) -> Table:
    """The least cluster, month by month."""
    columns = (
        Column[Month]("Month", lambda row: str(row.month), "text"),
        Column[Month]("Load", lambda row: times(row.rate_scale)),
        Column[Month]("Requests/s", lambda row: format_value(row.rate_scale * plan.demand.rate_rps, "x"), brief=False),
        Column[Month]("Least cluster", lambda row: _cluster(row.evaluation), "text"),
        Column[Month]("Policy", lambda row: _of(row.evaluation, lambda e: e.candidate.scheduler), "text", brief=False),
        Column[Month]("Per hour", lambda row: _of(row.evaluation, lambda e: money(e.price_per_hour))),
        Column[Month](
            "Deadlines kept", lambda row: _of(row.evaluation, lambda e: format_interval(e.figures.attainment, "%"))
        ),
        Column[Month]("State", lambda row: _of(row.evaluation, lambda e: e.state), "text", brief=False),
    )
    return Table.of("Month by month", columns, plan.growth)


START = "To start it in your engine"


def engines(plan: Plan) -> Table:
    """What starts the answer's cluster; how often, also if an engine decides for itself, see `as_engines_decide`."""
    if plan.answer is None:
        return Table.plain(START, (), ())
    best = plan.answer.candidate
    plain = {
        row.evaluation.candidate
        for row in plan.policies
        if row.scheduler == AS_ENGINES_DECIDE != best.scheduler and row.evaluation and row.evaluation.keeps
    }
    like = [str(other.replicas) for other in plain if alike(other)[:2] == alike(best)[:2]]
    columns = (
        Column[EngineCommand]("Engine", lambda row: row.engine, "text"),
        Column[EngineCommand](f"Times, with {best.scheduler}", lambda row: str(best.replicas)),
        Column[EngineCommand](f"as it is ({AS_ENGINES_DECIDE})", lambda row: like[0] if like else NONE),
        Column[EngineCommand]("Command", lambda row: row.command, "sentence"),
    )
    return Table.of(START, columns, engine_commands(plan))


WHEN_IT_PAYS = "When does parallelism, when does batching pay here"


def by_degree(plan: Plan) -> Table:
    """Latency and throughput of a replica by degree and batch for each size; the best of each size is marked."""
    columns = (
        Column[DegreeFigures]("Size", lambda row: row.size, "text"),
        Column[DegreeFigures]("Devices", lambda row: str(row.devices)),
        Column[DegreeFigures]("Parallel", lambda row: row.parallel or NONE, "text", brief=False),
        Column[DegreeFigures]("Batch", lambda row: str(row.images)),
        Column[DegreeFigures]("Step", lambda row: format_value(row.step_s, "s"), brief=False),
        Column[DegreeFigures]("Latency", lambda row: format_value(row.whole_s, "s")),
        Column[DegreeFigures]("Images/s a device", lambda row: format_value(row.images_per_s_device, "x")),
        Column[DegreeFigures]("a replica", lambda row: format_value(row.images_per_s_replica, "x")),
        Column[DegreeFigures]("Best for", lambda row: row.best_for, "text"),
    )
    return Table.of(WHEN_IT_PAYS, columns, plan.by_degree, lambda row: bool(row.best_for))


def by_degree_alone(plan: Plan) -> Table:
    """The same for one image at every degree, and for what is best."""
    return by_degree(replace(plan, by_degree=tuple([r for r in plan.by_degree if r.images == 1 or r.best_for])))


def speeds(plan: Plan) -> Table:
    """The least cluster of the answer's hardware for each speed that it may have."""
    columns = (
        Column[PossibleSpeed]("If the times are", lambda row: f"{times(row.slowdown)} the best guess", "text"),
        Column[PossibleSpeed]("Faster than that", lambda row: percent(row.quantile)),
        Column[PossibleSpeed]("Least cluster", lambda row: _cluster(row.evaluation), "text"),
        Column[PossibleSpeed]("Per hour", lambda row: _of(row.evaluation, lambda e: money(e.price_per_hour))),
        Column[PossibleSpeed](
            "Deadlines kept", lambda row: _of(row.evaluation, lambda e: format_interval(e.figures.attainment, "%"))
        ),
        Column[PossibleSpeed]("State", lambda row: _of(row.evaluation, lambda e: e.state), "text", brief=False),
    )
    return Table.of("How sure it is", columns, plan.speeds, lambda row: row.slowdown == 1)


def by_size(plan: Plan, most: int | None = None) -> Table:
    """Requests of each size on the answer's cluster, the smallest first; of many, the ``most`` that are frequent."""
    columns = (
        Column[SizeFigures]("Size", lambda row: row.size, "text"),
        Column[SizeFigures]("Requests", lambda row: f"{row.requests:,}"),
        Column[SizeFigures]("Deadlines kept", lambda row: format_value(row.attainment, "%")),
        Column[SizeFigures]("P50", lambda row: format_value(row.latency_s[2], "s")),
        Column[SizeFigures]("P75", lambda row: format_value(row.latency_s[3], "s"), brief=False),
        Column[SizeFigures]("P95", lambda row: format_value(row.latency_s[4], "s")),
        Column[SizeFigures]("P99", lambda row: format_value(row.latency_s[5], "s")),
    )
    return Table.of("By size", columns, sized(sorted(plan.by_size, key=lambda row: -row.requests)[:most]))


def sized(rows: Iterable[SizeFigures]) -> list[SizeFigures]:
    """Sizes in their order, the smallest first."""

    def pixels(row: SizeFigures) -> tuple[float, str]:
        sides = [float(side) for side in row.size.split("x") if side.isdecimal()]
        return math.prod(sides), row.size

    return sorted(rows, key=pixels)


def over_time(plan: Plan) -> Table:
    """One replication of the answer's cluster, slice by slice."""
    columns = (
        Column[Window]("From", lambda row: format_value(row.start_s, "s"), "text"),
        Column[Window]("To", lambda row: format_value(row.end_s, "s")),
        Column[Window]("Arrived", lambda row: f"{row.arrived:,}"),
        Column[Window]("Waiting", lambda row: format_value(row.waiting, "x")),
        Column[Window]("Running", lambda row: format_value(row.running, "x")),
        Column[Window]("Utilisation", lambda row: format_value(row.utilisation, "%")),
    )
    return Table.of("Over time", columns, plan.over_time)


_Fit = tuple[tuple[str, int], Memory]

_WHAT_IF = (
    Column[WhatIf]("Kept?", kept, "text"),
    Column[WhatIf]("Deadlines kept", lambda row: format_interval(row.figures.attainment, "%")),
    Column[WhatIf]("P50 latency", lambda row: format_interval(row.figures.latency_p50_s, "s"), brief=False),
    Column[WhatIf]("P95 latency", lambda row: format_interval(row.figures.latency_p95_s, "s")),
)
_UTILISATION = Column[WhatIf]("Utilisation", lambda row: format_value(row.figures.utilisation.mean, "%"))


def _of(evaluation: Evaluation | None, spell: Callable[[Evaluation], str]) -> str:
    return NONE if evaluation is None else spell(evaluation)


def _cluster(evaluation: Evaluation | None) -> str:
    return "none of those considered" if evaluation is None else cluster(evaluation.candidate)


def _load(evaluation: Evaluation) -> str:
    return NONE if math.isnan(evaluation.load) else f"{100 * evaluation.load:.0f} %"


def _state(evaluation: Evaluation) -> str:
    return evaluation.state + (f": {evaluation.reason}" if evaluation.reason else "")


def _extrapolated(evaluation: Evaluation) -> str:
    return about(evaluation.extrapolated) if evaluation.extrapolated > 0 else NONE


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.3g} GB"


def _met(evaluation: Evaluation) -> float:
    mean = evaluation.figures.attainment.mean
    return -1.0 if math.isnan(mean) else mean
