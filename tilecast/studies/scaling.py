"""Which scaling policy keeps the promise for least: those that a plan names, over recorded days, beside fixed sizes.

Every candidate is simulated over the same demand, whole days drawn from those of the trace where it has two at least,
and what it costs is what its replicas are paid for. With fewer days there is one demand to be had, the recorded one,
and nothing says how another day would be.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from policies.watchdog import watched
from reports.figures import value
from reports.formatting import format_interval
from reports.output_analysis import Interval, interval, share, share_ends
from reports.plan.page import PLAN
from reports.progress import Tell, silent
from tilecast.demand import check_open
from tilecast.scenario import Scenario
from tilecast.sections import PolicySection
from tilecast.setup import Prepared, prepare
from tilecast.simulation import run_simulation
from tilecast.studies.result_store import FAILED, ResultStore, kept_in, point_key, run_points
from traces.bootstrap import DAY_S, Bootstrap, draws_at
from traces.errors import BadInput
from traces.trace import Trace

_FIGURES = ("cost", "device_h", "slo_attainment", "replicas_mean", "starts", "requests")

Section = dict[str, Any]
"""A scaling policy, as a scenario names it."""
Figures = dict[str, float]


class ScalingChoice(NamedTuple):
    """A scaling policy with its parameters, and what became of it.

    Attributes:
        name: what people call it, with the parameters that were given.
        section: the policy, as a scenario names it.
        cost: of a day, at the price of the devices, or in device hours where none is known.
        attainment: share of the requests that finished in time.
        replicas: paid for, in the mean.
        starts: of replicas, a day.
        keeps: whether it keeps the promise, to the lower end of the interval; None: that is open.
    """

    name: str
    section: PolicySection
    cost: Interval
    attainment: Interval
    replicas: float
    starts: float
    keeps: bool | None


class ScalingPlan(NamedTuple):
    """The candidates, the cheapest that keeps the promise first, then the others; ``how`` says what they met."""

    choices: tuple[ScalingChoice, ...]
    how: str

    @property
    def answer(self) -> ScalingChoice | None:
        """The cheapest that keeps the promise; None: none does."""
        return self.choices[0] if self.choices and self.choices[0].keeps else None

    def rows(self) -> list[tuple[str, ...]]:
        """For people: whether each keeps the promise, its name, cost, attainment, replicas in the mean, starts."""
        return [
            (
                {True: "yes", False: "no", None: "undecided"}[each.keeps],
                each.name,
                format_interval(each.cost, "x"),
                format_interval(each.attainment, "%"),
                f"{each.replicas:.2f}",
                f"{each.starts:.0f}",
            )
            for each in self.choices
        ]


@dataclass(frozen=True)
class ScalingRun:
    """A simulation.

    Attributes:
        what: what it is, for people.
        scenario: under the scaling policy; its trace is the recorded one.
        rate_rps: requests a second in the mean of all days.
        day: number of the day that is drawn; None: the trace as it was recorded.
    """

    what: str
    scenario: Scenario
    rate_rps: float
    day: int | None

    def __str__(self) -> str:
        return self.what


def plan_scaling(
    scenario: Scenario,
    output: Path | str | None = None,
    *,
    rate_rps: float | None = None,
    workers: int | None = None,
    progress: Tell = silent,
) -> ScalingPlan:
    """Simulate each policy of ``plan.scaling``, and fixed sizes from ``cluster.replicas`` down to the least that keeps
    the promise of ``plan.attainment``.

    A promise is kept where the lower end of the interval of the attainment is at least what is promised; a policy of
    which that is open is simulated over more days, up to ``plan.max_seeds``.

    Args:
        scenario: with the demand, deadlines and the most replicas; ``plan.seeds`` days are drawn.
        output: folder in which every simulation is kept, which may be that of a plan; None: nothing is kept.
        rate_rps: requests a second to plan for, in the mean of all days; None: those of the trace, times
            ``trace.rate_scale``.
        workers: processes; None: one a core.
        progress: told what is simulated.

    Raises:
        BadInput: whatever is wrong with the scenario, or ``plan.scaling`` names nothing.
        Interrupted: Ctrl-C; what finished is kept in ``output``.
    """
    check_open(scenario)
    plan = scenario.plan
    if not plan.scaling:
        raise BadInput('plan.scaling names no policies; expected some, like ["queue", "slo"]')
    if scenario.pool:
        raise BadInput("the scenario has pools, of which each has replicas of its own: ask plan_pool_scaling")
    recorded = Bootstrap(_base(scenario).trace)
    rate_rps = rate_rps or recorded.rate_rps * scenario.trace.rate_scale
    how = "the trace as it was recorded: less than two days, so without an interval"
    if recorded.daily:
        how = f"days drawn from the {recorded.days} whole days of the trace"
    sizes = {
        f"fixed, {count}": {"name": "fixed", "replicas": count} for count in range(scenario.cluster.replicas, 0, -1)
    }
    asked = dict(candidates(plan.scaling))
    with kept_in(output, PLAN) as store:
        look = _Look(scenario, recorded, rate_rps, _running(store, workers or os.cpu_count() or 1, progress))
        found = look(asked)
        for name, section in sizes.items():
            found += look({name: section})
            if not found[-1].keeps:
                break  # fewer would keep less
    if recorded.daily:
        how = f"{max([each.attainment.replications for each in found])} {how}"
    return ScalingPlan(tuple(sorted(found, key=lambda each: (not each.keeps, each.cost.mean))), how)


def _running(store: ResultStore, workers: int, progress: Tell) -> Callable[[dict[str, ScalingRun]], dict[str, Figures]]:
    """What runs simulations by their keys, on several processes; what ran once is kept."""

    def run(points: dict[str, ScalingRun]) -> dict[str, Figures]:
        names = list(dict.fromkeys([point.what for point in points.values()]))
        what = names[0] if len(names) == 1 else f"{len(names)} scaling policies"
        results = run_points(run_scaling, points, store, workers, progress=partial(progress, what, len(points)))
        for key, point in points.items():
            if FAILED in results[key]:
                raise BadInput(f"{point}: {results[key][FAILED]}")
        return results

    return run


class _Look:
    """Simulates policies over the same days."""

    def __init__(
        self,
        scenario: Scenario,
        recorded: Bootstrap,
        rate_rps: float,
        run: Callable[[dict[str, ScalingRun]], dict[str, Figures]],
    ) -> None:
        self._scenario = scenario
        self._recorded = recorded
        self._rate_rps = rate_rps
        self._run = run

    def __call__(self, sections: Mapping[str, Section]) -> list[ScalingChoice]:
        """What became of each policy, by what people call it."""
        plan, days = self._scenario.plan, self._recorded.daily
        found: dict[str, ScalingChoice] = {}
        left, count = dict(sections), plan.seeds if days else 1
        while left:
            drawn: Sequence[int | None] = list(range(count)) if days else [None]
            runs = self._runs(left, drawn)
            found |= {name: self._choice(name, left[name], runs[name]) for name in left}
            open_yet = [name for name in left if found[name].keeps is None]
            if not days or count >= plan.max_seeds:
                break
            left, count = {name: left[name] for name in open_yet}, min(2 * count, plan.max_seeds)
        return [found[name] for name in sections]

    def _runs(self, sections: Mapping[str, Section], days: Sequence[int | None]) -> dict[str, list[Figures]]:
        keys: dict[str, list[str]] = {}
        points: dict[str, ScalingRun] = {}
        for name, section in sections.items():
            scenario = self._scenario.replaced({"policies.scaling": section})
            own = [ScalingRun(name, scenario, self._rate_rps, day) for day in days]
            keys[name] = [point_key(scenario, ["scaling", run.day, run.rate_rps, _FIGURES]) for run in own]
            points |= dict(zip(keys[name], own, strict=True))
        results = self._run(points)
        return {name: [results[key] for key in own] for name, own in keys.items()}

    def _choice(self, name: str, section: Section, runs: Sequence[Figures]) -> ScalingChoice:
        plan, columns = self._scenario.plan, {figure: [run[figure] for run in runs] for figure in _FIGURES}
        shares, counts = columns["slo_attainment"], [round(run["requests"]) for run in runs]
        days, recorded = self._recorded.daily, self._recorded.recorded
        low = high = shares[0]
        if days:
            low, high = share_ends(shares, counts, plan.confidence, recorded)
        return ScalingChoice(
            name=name,
            section=PolicySection(**section),
            cost=interval(columns["device_h" if math.isnan(columns["cost"][0]) else "cost"], plan.confidence),
            attainment=share(shares, counts, plan.confidence, recorded) if days else interval(shares),
            replicas=sum(columns["replicas_mean"]) / len(runs),
            starts=sum(columns["starts"]) / len(runs),
            keeps=True if low >= plan.attainment else False if high < plan.attainment else None,
        )


def run_scaling(run: ScalingRun) -> Figures:
    """The figures of a simulation.

    Raises:
        BadInput: the scenario cannot be simulated.
    """
    base = _base(run.scenario)
    ready = base.running(run.scenario.replaced({"seed": run.scenario.seed + (run.day or 0)}), _day(base.scenario, run))
    with watched(run.scenario.policies.call_limit_s):
        arrays = ready.arrays(run_simulation(ready))
    lives = arrays.lives()
    device_h = float((lives.paid_s * lives.devices).sum()) / 3600
    return {"device_h": device_h, **{name: value(name, arrays) for name in _FIGURES if name != "device_h"}}


def _base(scenario: Scenario) -> Prepared:
    """The scenario prepared, whatever its scaling policy, seed and rate."""
    return _prepared(scenario.replaced({"policies.scaling": "fixed", "plan": {}, "seed": 0, "trace.rate_scale": 1.0}))


@lru_cache(maxsize=4)
def _prepared(scenario: Scenario) -> Prepared:
    return prepare(scenario)


def _day(base: Scenario, run: ScalingRun) -> Trace:
    """The requests of a run, the same for every policy."""
    return _drawn(base, run.day, run.rate_rps)


@lru_cache(maxsize=32)
def _drawn(base: Scenario, day: int | None, rate_rps: float) -> Trace:
    recorded = Bootstrap(_prepared(base).trace)
    if day is None:
        return recorded.trace.scale_rate(rate_rps / recorded.rate_rps)
    first, *others = draws_at(recorded, rate_rps, DAY_S, day)
    return first.merge(*others) if others else first


def candidates(named: Sequence[PolicySection]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every policy with every combination of its parameters, where a list stands for several values."""
    for section in named:
        grid = {
            key: values if isinstance(values, list | tuple) else [values] for key, values in section.parameters.items()
        }
        for values in product(*grid.values()):
            parameters = dict(zip(grid, values, strict=True))
            spelled = [
                f"{key} {each:g}" if isinstance(each, float) else f"{key} {each}" for key, each in parameters.items()
            ]
            yield ", ".join([section.name, *spelled]), {"name": section.name, **parameters}
