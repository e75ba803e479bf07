"""Which scaling policy keeps the promise for least: those that a plan names, over recorded days, beside fixed sizes.

Every candidate is simulated over the same demand, whole days drawn from those of the trace where it has two at least,
and what it costs is what its replicas are paid for. With fewer days there is one demand to be had, the recorded one,
and nothing says how another day would be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from policies.watchdog import watched
from reports.figures import value
from reports.formatting import format_interval
from reports.output_analysis import Interval, interval
from reports.progress import Tell, silent
from tilecast.scenario import Scenario
from tilecast.sections import PolicySection
from tilecast.setup import Prepared, prepare
from tilecast.simulation import run_simulation
from traces.bootstrap import DAY_S, Bootstrap
from traces.errors import BadInput

_FIGURES = ("cost", "device_h", "slo_attainment", "replicas_mean", "starts")


class ScalingChoice(NamedTuple):
    """A scaling policy with its parameters, and what became of it.

    Attributes:
        name: what people call it, with the parameters that were given.
        section: the policy, as a scenario names it.
        cost: of a day, at the price of the devices, or in device hours where none is known.
        attainment: share of the requests that finished in time.
        replicas: paid for, in the mean.
        starts: of replicas, a day.
        keeps: whether it keeps the promise, to the lower end of the interval.
    """

    name: str
    section: PolicySection
    cost: Interval
    attainment: Interval
    replicas: float
    starts: float
    keeps: bool


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
                "yes" if each.keeps else "no",
                each.name,
                format_interval(each.cost, "x"),
                format_interval(each.attainment, "%"),
                f"{each.replicas:.2f}",
                f"{each.starts:.0f}",
            )
            for each in self.choices
        ]


def plan_scaling(scenario: Scenario, progress: Tell = silent) -> ScalingPlan:
    """Simulate each policy of ``plan.scaling``, and fixed sizes from ``cluster.replicas`` down to the least that keeps
    the promise of ``plan.attainment``.

    Args:
        scenario: with the demand, deadlines and the most replicas; ``plan.seeds`` days are drawn.
        progress: told how many simulations are done.

    Raises:
        BadInput: whatever is wrong with the scenario, or ``plan.scaling`` names nothing.
    """
    if not scenario.plan.scaling:
        raise BadInput('plan.scaling names no policies; expected some, like ["queue", "slo"]')
    if scenario.pool:
        raise BadInput(
            "plan.scaling is of a cluster without [[pool]] sections: take it or them out, or sweep policies.scaling"
        )
    base = prepare(scenario.replaced({"policies.scaling": "fixed", "plan": {}}))
    bootstrap = Bootstrap(base.trace)
    if bootstrap.daily:
        per_day = math.ceil(bootstrap.rate_rps * DAY_S)
        demands = [bootstrap.draw(per_day, seed) for seed in range(scenario.plan.seeds)]
        how = f"{len(demands)} days drawn from the {bootstrap.days} whole days of the trace"
    else:
        demands, how = [base.trace], "the trace as it was recorded: less than two days, so without an interval"
    sized = {
        f"fixed, {count}": {"name": "fixed", "replicas": count} for count in range(scenario.cluster.replicas, 0, -1)
    }
    asked = dict(candidates(scenario.plan.scaling))
    total, done, found = len(demands) * (len(asked) + len(sized)), 0, []
    for name, section in [*asked.items(), *sized.items()]:
        policy = PolicySection(**section)
        runs = []
        for seed, trace in enumerate(demands):
            given = {"policies.scaling": section, "trace": {"path": trace}, "slo": {}, "seed": scenario.seed + seed}
            runs.append(_figures(prepare(scenario.replaced(given))))
            done += 1
            progress("simulating", total, done)
        columns = {figure: [run[figure] for run in runs] for figure in _FIGURES}
        cost = interval(columns["device_h" if math.isnan(columns["cost"][0]) else "cost"])
        attainment = interval(columns["slo_attainment"])
        low = attainment.low if math.isfinite(attainment.half_width) else attainment.mean
        replicas, starts = (sum(columns[each]) / len(runs) for each in ("replicas_mean", "starts"))
        keeps = low >= scenario.plan.attainment
        found.append(ScalingChoice(name, policy, cost, attainment, replicas=replicas, starts=starts, keeps=keeps))
        if name in sized and not keeps:
            break  # fewer would keep less
    return ScalingPlan(tuple(sorted(found, key=lambda each: (not each.keeps, each.cost.mean))), how)


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


def _figures(prepared: Prepared) -> Mapping[str, float]:
    with watched(prepared.scenario.policies.call_limit_s):
        run = prepared.arrays(run_simulation(prepared))
    lives = run.lives()
    device_h = float((lives.paid_s * lives.devices).sum()) / 3600
    return {"device_h": device_h, **{name: value(name, run) for name in _FIGURES if name != "device_h"}}
