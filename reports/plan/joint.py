"""A plan for pools that share models: what it says, and how it is written for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import field

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from reports.formatting import NONE, format_interval, format_rate, percent
from reports.markdown import line, text
from reports.output_analysis import Interval
from reports.plan.formatting import money
from reports.plan.result import UNKNOWN

SHOWN = 12
"""Rows of clusters in a terminal."""

_STRICT = ConfigDict(extra="forbid", ser_json_inf_nan="constants")
_KEPT = {True: "yes", False: "no", None: "undecided"}


@checked(frozen=True, config=_STRICT)
class JointEvaluation:
    """Pools of so many replicas that were simulated together.

    Attributes:
        replicas: of each pool, by its name; 0: the pool is left out.
        price_per_hour: of all of them; NaN: no price is known.
        keeps: whether the promise is kept for every model; None: not decided by so many replications.
        attainment: by model, the share of the requests that finished in time.
        latency_p95_s: by model, of all requests; infinite where too many did not finish, or the queue grows.
        utilisation: by pool, busy share of its devices.
        broken_by: what breaks the promise, half a sentence; empty: nothing does.
    """

    replicas: dict[str, int]
    price_per_hour: float
    keeps: bool | None
    attainment: dict[str, Interval]
    latency_p95_s: dict[str, Interval]
    utilisation: dict[str, float]
    broken_by: str = ""

    @property
    def spelled(self) -> str:
        """``3 of large, 20 of small``."""
        return spell(self.replicas)


@checked(frozen=True, config=_STRICT)
class JointPlan:
    """The whole answer for pools that share models.

    Attributes:
        rates_rps: by model, requests a second planned for.
        attainment: the promise: the share of each model's requests that must finish in time.
        throughput_rps: the promise, too: requests a second of all that must be completed; 0: none was made.
        headroom: the promise must be kept at so much more than the demand, as a share of it.
        slo: the deadlines in words.
        confidence: confidence of all intervals.
        how: how replications of the demand were drawn, a sentence.
        answer: the cheapest that keeps the promise, by the draws that it was searched with; None: none does.
        checked: the same with draws that the search has not seen; None: there is no answer.
        considered: all that were simulated, the cheapest first; where no prices are known, the fewest devices.
        refused: what was not simulated, and why, in sentences.
        labels: by pool, how far to trust its seconds, of `predictors.basis`.
        error_factors: by pool, by which seconds that were not measured are wrong at most, up or down, in four of five
            cases.
        unfit: what does not fit on the devices of a pool, in sentences.
        least_price: of the pools that could do the work if nobody ever waited; NaN: no price is known, or none could.
        scenario: TOML, to run it again.
        command: likewise.
        tilecast: version.
        points: simulations run.
    """

    rates_rps: dict[str, float]
    attainment: float
    throughput_rps: float
    headroom: float
    slo: str
    confidence: float
    how: str
    answer: JointEvaluation | None
    checked: JointEvaluation | None
    considered: tuple[JointEvaluation, ...]
    refused: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    error_factors: dict[str, float] = field(default_factory=dict)
    unfit: tuple[str, ...] = ()
    least_price: float = math.nan
    scenario: str = ""
    command: str = ""
    tilecast: str = ""
    points: int = 0

    @property
    def promised(self) -> str:
        """``95 % of deadlines of flux at 2,000/h and wan-1.3b at 500/h``."""
        rates = " and ".join([f"{model} at {format_rate(rate)}" for model, rate in self.rates_rps.items()])
        completed = f", {format_rate(self.throughput_rps)} completed" if self.throughput_rps else ""
        room = f", with {percent(self.headroom)} headroom" if self.headroom else ""
        return f"{percent(self.attainment)} of deadlines of {rates}{completed}{room}"

    @property
    def sentence(self) -> str:
        """The answer."""
        if self.answer is None or self.checked is None:
            nearest = max(self.considered, key=lambda each: _least(each.attainment), default=None)
            if nearest is None:
                return f"No cluster keeps {self.promised}: {'; '.join(self.refused)}."
            keeps = "is known to keep" if any(each.keeps is None for each in self.considered) else "keeps"
            why = f"the nearest, {nearest.spelled}, has {nearest.broken_by}"
            return f"None of the {len(self.considered)} clusters simulated {keeps} {self.promised}: {why}."
        price = "" if math.isnan(self.answer.price_per_hour) else f" for {money(self.answer.price_per_hour)} an hour"
        checked = ", ".join([f"{model} {format_interval(met, '%')}" for model, met in self.checked.attainment.items()])
        return f"{self.answer.spelled} keep {self.promised}{price}. With draws not searched with: {checked}."

    @property
    def trust(self) -> str:
        """How far to trust the seconds of each pool: ``large ESTIMATED, small MEASURED``."""
        return ", ".join([f"{pool} {label}" for pool, label in self.labels.items()])

    @property
    def caution(self) -> str:
        """What does not fit; how far off times may be that were not measured, and how it is asked what then; empty: all
        fits and was measured."""
        return " ".join([*self.unfit, *([self._uncertain] if self.error_factors else [])])

    @property
    def _uncertain(self) -> str:
        factors = ", ".join([f"×/÷ {factor:.2f} on {pool}" for pool, factor in self.error_factors.items()])
        most = max(self.error_factors.values())
        return (
            f"Times that were not measured may be wrong by {factors} (80 %), and the answer is for the best guess; "
            f"with --set world.slowdown={most:.2f} it is for times that are as much longer."
        )

    @property
    def priced(self) -> bool:
        """Whether prices are known."""
        return any(not math.isnan(each.price_per_hour) for each in self.considered)

    @property
    def order(self) -> str:
        """In which the clusters stand."""
        return "the cheapest first" if self.priced else "the fewest devices first"

    @property
    def heads(self) -> list[str]:
        """Of the columns of `rows`: those that a terminal has room for come first, see `narrow`."""
        models, pools = list(self.rates_rps), list(self.labels)
        return [
            *pools,
            *(["an hour"] if self.priced else []),
            "kept",
            *[f"{model} in time" for model in models],
            *[f"{model} P95" for model in models],
            *[f"{pool} busy" for pool in pools],
        ]

    @property
    def narrow(self) -> int:
        """How many columns a terminal has room for."""
        return len(self.labels) + 1 + self.priced + len(self.rates_rps)

    def rows(self) -> list[list[str]]:
        """The clusters that were simulated: replicas of each pool, price, whether the promise is kept, attainment and
        P95 of each model, busy share of each pool."""
        models, pools = list(self.rates_rps), list(self.labels)
        return [
            [
                *[str(each.replicas[pool]) for pool in pools],
                *([money(each.price_per_hour)] if self.priced else []),
                _KEPT[each.keeps],
                *[format_interval(each.attainment.get(model, UNKNOWN), "%") for model in models],
                *[format_interval(each.latency_p95_s.get(model, UNKNOWN), "s") for model in models],
                *[percent(round(each.utilisation[pool], 2)) if pool in each.utilisation else NONE for pool in pools],
            ]
            for each in self.considered
        ]

    def nearest(self) -> list[int]:
        """Of `rows`, those that a terminal has room for: about the answer, or what came nearest."""
        at = [number for number, each in enumerate(self.considered) if each == self.answer]
        middle = at[0] if at else len(self.considered)
        first = max(0, min(middle - SHOWN // 2, len(self.considered) - SHOWN))
        return list(range(first, min(first + SHOWN, len(self.considered))))

    def to_json(self) -> str:
        """The plan as JSON text, NaN and infinity included."""
        return _PLAN.dump_json(self, indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str) -> JointPlan:
        """The plan in a ``plan.json``, or in the text of `to_json`.

        Raises:
            pydantic.ValidationError: it is not one.
        """
        values = json.loads(text)
        values.pop("generator", None)
        return _PLAN.validate_python(values)


_PLAN = TypeAdapter(JointPlan)


def spell(replicas: Mapping[str, int]) -> str:
    """``3 of large, 20 of small``; pools that are left out are not named."""
    return ", ".join([f"{count} of {pool}" for pool, count in replicas.items() if count])


def markdown(plan: JointPlan) -> str:
    """The answer, the promise, every cluster that was simulated, and how to run it again."""
    heads = ["", *plan.heads]
    rows = [
        line(["→" if each == plan.answer else "", *row]) for each, row in zip(plan.considered, plan.rows(), strict=True)
    ]
    parts = [f"# {text(plan.sentence)}", f"Deadlines: {text(plan.slo)}. Demand: {text(plan.how)}."]
    parts.append(f"Trust: {text(plan.trust)}. {text(plan.caution)}".strip())
    if not math.isnan(plan.least_price):
        parts.append(f"Work alone, if nobody ever waited, takes {money(plan.least_price)} an hour.")
    parts += [f"- {text(why)}" for why in plan.refused]
    parts.append("## Clusters simulated\n\n" + "\n".join([line(heads), "|:--|" + "--:|" * len(plan.heads), *rows]))
    if plan.command or plan.scenario:
        code = "\n".join([f"    {each}" for each in [*plan.command.splitlines(), "", *plan.scenario.splitlines()]])
        parts.append(f"## To run it again\n\n{code}")
    return "\n\n".join(parts) + "\n"


def _least(attainment: Mapping[str, Interval]) -> float:
    known = [met.mean for met in attainment.values() if not math.isnan(met.mean)]
    return min(known, default=-1.0)
