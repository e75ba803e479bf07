"""Whether a simulation is as near to real runs as we want it to be: one verdict over the figures that matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import pandas as pd

from reports.figures import figure
from reports.formatting import Unit
from reports.notes import DRIFT, format_drift

GOALS = {"latency_p50_s": 0.05, "latency_p95_s": 0.08, "latency_p99_s": 0.10, "slo_attainment": 0.02}
"""The largest error wanted, of a time as a share of it, of attainment as a difference of shares."""

REPRODUCED = "all the same"
"""How a parity check says that every decision came out the same."""

_NEAR = 0.1
"""Share of its limit by which an error has to be off the limit for a forecast of how many requests would tell."""

_SHORT = {"latency_p50_s": "P50", "latency_p95_s": "P95", "latency_p99_s": "P99", "slo_attainment": "attainment"}


class Answer(StrEnum):
    """Whether simulations are near enough to real runs."""

    FAITHFUL = "FAITHFUL"
    NOT_FAITHFUL = "NOT FAITHFUL"
    TOO_SHORT = "TOO SHORT TO TELL"


class NoiseRange(NamedTuple):
    """From ``low`` to ``high``: where the `difference` of a figure lies, noise considered."""

    low: float
    high: float


UNKNOWN = NoiseRange(-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The verdict.

    Attributes:
        answer: FAITHFUL when every figure of `GOALS` surely lies within its limit and every decision was reproduced;
            NOT FAITHFUL when one surely lies outside, or a decision came out otherwise; else TOO SHORT TO TELL.
        advice: what to do, in a sentence.
        verdict: the answer in a sentence, with the figures, their ranges, their limits and what is known of the cause.
        ranges: where the difference of each figure that was judged lies.
        wanted: about how many requests would tell; NaN: the answer is known; infinite: nobody knows.
        drift: how much longer real steps took than simulated ones, as a share; NaN: unknown.
    """

    answer: Answer
    advice: str
    verdict: str
    ranges: Mapping[str, NoiseRange]
    wanted: float
    drift: float

    @classmethod
    def of(
        cls,
        figures: pd.DataFrame,
        ranges: Mapping[str, NoiseRange],
        requests: int,
        drift: float = math.nan,
        parity: Mapping[str, Any] | None = None,
    ) -> Fidelity:
        """Judge figures.

        Args:
            figures: one row a figure, with ``sim`` and ``real`` as fractions and seconds; others than those of `GOALS`
                do not count.
            ranges: where the difference of each figure of `GOALS` lies, see `reports.noise.ranges`.
            requests: how many the figures are of.
            drift: see `reports.drift.drift_between`.
            parity: parity of the decisions, as named values.
        """
        judged: dict[str, NoiseRange] = {}
        within, missed, unsure, wanted = [], [], [], math.nan
        for name, limit in GOALS.items():
            sim, real = (float(figures[side].loc[name]) for side in ("sim", "real"))
            if math.isnan(sim) and math.isnan(real):
                continue
            unit, lies = figure(name).unit, ranges[name]
            judged[name], error = lies, difference(sim, real, unit)
            spelled = f"{_SHORT[name]} {format_difference(error, unit)}"
            known = f"{format_range(lies)}, limit {format_limit(limit, unit)}"
            if lies.low > limit or lies.high < -limit:
                missed.append(f"{spelled} ({known})")
            elif -limit <= lies.low and lies.high <= limit:
                within.append(f"{spelled} ({known})")
            else:
                unsure.append(f"{spelled} ({known})")
                wanted = max(requests_wanted(requests, error, lies, limit), 0.0 if math.isnan(wanted) else wanted)
        cause = "" if math.isnan(drift) or abs(drift) < DRIFT else _because(drift)
        if (parity or {}).get("reproduced", REPRODUCED) != REPRODUCED:
            missed.append("the policy decides otherwise when it is told the same")
        if missed:
            answer, said, wanted = Answer.NOT_FAITHFUL, missed, math.nan
            advice = f"Do not trust the simulation: {missed[0]}."
            if not math.isnan(drift) and abs(drift) >= DRIFT:
                advice = (
                    f"Do not trust the simulation: real steps took {format_drift(drift)} than it says; profile again."
                )
        elif unsure or not within:
            answer, said = Answer.TOO_SHORT, unsure or ["nothing to compare"]
            wanted = math.inf if math.isnan(wanted) else wanted
            cause += _how_to_tell(requests, wanted)
            advice = f"Not sure yet whether to trust the simulation: {_longer(wanted)} would tell."
        else:
            answer, said = Answer.FAITHFUL, within
            advice = "Trust the simulation: everything that is judged lies within its limit."
        return cls(answer, advice, f"{answer}: {', '.join(said)}{cause}.", judged, wanted, drift)

    @property
    def faithful(self) -> bool:
        """Whether the answer is FAITHFUL."""
        return self.answer is Answer.FAITHFUL

    def document(self) -> dict[str, Any]:
        """As JSON values; what is not known is null."""
        return {
            "answer": str(self.answer),
            "advice": self.advice,
            "sentence": self.verdict,
            "ranges": {name: [_finite(end) for end in lies] for name, lies in self.ranges.items()},
            "requests_wanted": _finite(self.wanted),
            "drift": _finite(self.drift),
        }


def requests_wanted(requests: int, error: float, lies: NoiseRange, limit: float) -> float:
    """About how many requests would show on which side of its limit a figure lies, were its error to stay as it is.

    Noise falls with the square root of the number of requests. Infinite: nobody knows.

    Args:
        requests: how many were compared.
        error: error of the figure, see `difference`.
        lies: where that lies, noise considered.
        limit: the largest difference wanted, in size.
    """
    noise, margin = max(lies.high - error, error - lies.low), abs(limit - abs(error))
    if not math.isfinite(noise) or margin < _NEAR * limit:
        return math.inf
    return requests * max(1.0, noise / margin) ** 2


def difference(sim: float, real: float, unit: Unit) -> float:
    """The error of a figure: a fraction of the real one, or of shares their difference; 0 where both never come.

    Infinite where only one of them is defined and finite, or the real one is 0; NaN where neither is defined.
    """
    if sim == real or (math.isnan(sim) and math.isnan(real)):
        return 0.0 if sim == real else math.nan
    if not (math.isfinite(sim) and math.isfinite(real)):
        return -math.inf if math.isinf(real) else math.inf
    if unit == "%":
        return sim - real
    return (sim - real) / abs(real) if real else math.copysign(math.inf, sim - real)


def format_difference(value: float, unit: Unit, signed: bool = True) -> str:
    """An error or a spread as text: points of a share, percent of anything else; a dash when it is not defined."""
    if math.isnan(value):
        return "–"
    number = f"{100 * value:{'+' if signed else ''}.1f}".replace("inf", "∞")
    return f"{number} {'points' if unit == '%' else '%'}"


def format_range(lies: NoiseRange) -> str:
    """``-1.2 to +3.4``, in points or percent as the difference before it."""
    low, high = (f"{100 * end:+.1f}".replace("inf", "∞") for end in lies)
    return f"{low} to {high}"


def format_limit(limit: float, unit: Unit) -> str:
    """``5 %``, ``2 points``."""
    return f"{100 * limit:g} {'points' if unit == '%' else '%'}"


def _because(drift: float) -> str:
    return f"; real steps took {format_drift(drift)} than simulated ones (drift): profile again"


def _how_to_tell(requests: int, wanted: float) -> str:
    """What would make a comparison long enough, as the end of a sentence."""
    compared = f"{requests:,} request{'s' if requests != 1 else ''} leave" + ("s" if requests == 1 else "")
    return f"; {compared} room for noise on both sides of a limit: take {_longer(wanted)}"


def _longer(wanted: float) -> str:
    """A trace that would tell."""
    if not math.isfinite(wanted):
        return "a much longer trace"
    unit = 10.0 ** max(0, math.floor(math.log10(wanted)) - 1)
    return f"a trace of about {math.ceil(wanted / unit) * unit:,.0f} requests"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
