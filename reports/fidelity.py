"""Whether a simulation is as near to real runs as we want it to be: one verdict over the figures that matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.figures import Unit, figure
from reports.notes import DRIFT, spell_drift

GOALS = {"latency_p50_s": 0.05, "latency_p95_s": 0.08, "latency_p99_s": 0.10, "slo_attainment": 0.02}
"""The largest error wanted, of a time as a share of it, of attainment as a difference of shares."""

REPRODUCED = "all the same"
"""How a parity check says that every decision came out the same."""

_SHORT = {"latency_p50_s": "P50", "latency_p95_s": "P95", "latency_p99_s": "P99", "slo_attainment": "attainment"}


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The verdict.

    Attributes:
        faithful: whether every figure of `GOALS` is within its limit and every decision was reproduced.
        verdict: the same in a sentence, with the figures, their limits and what is known of the cause.
        drift: how much longer real steps took than simulated ones, as a share; NaN: unknown.
    """

    faithful: bool
    verdict: str
    drift: float

    @classmethod
    def of(cls, figures: pd.DataFrame, drift: float = math.nan, parity: Mapping[str, Any] | None = None) -> Fidelity:
        """Judge figures.

        Args:
            figures: one row a figure, with ``sim`` and ``real`` as fractions and seconds; others than those of `GOALS`
                do not count.
            drift: see `reports.drift.drift_between`.
            parity: of the decisions, as named values.
        """
        said, missed = [], []
        for name, limit in GOALS.items():
            sim, real = (float(figures[side].loc[name]) for side in ("sim", "real"))
            if math.isnan(sim) and math.isnan(real):
                continue
            unit = figure(name).unit
            error = difference(sim, real, unit)
            spelled = f"{_SHORT[name]} {spell_difference(error, unit)}"
            said.append(spelled)
            if not abs(error) <= limit:
                missed.append(f"{spelled} (limit {spell_limit(limit, unit)})")
        known = "" if math.isnan(drift) or abs(drift) < DRIFT else _because(drift)
        decided = (parity or {}).get("reproduced", REPRODUCED)
        if decided != REPRODUCED:
            missed.append("the policy decides otherwise when it is told the same")
        if missed:
            return cls(False, f"NOT FAITHFUL: {', '.join(missed)}{known}.", drift)
        limits = ", ".join([spell_limit(limit, figure(name).unit) for name, limit in GOALS.items()])
        return cls(True, f"FAITHFUL: {', '.join(said) or 'nothing to compare'}; limits {limits}{known}.", drift)

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        drift = self.drift if math.isfinite(self.drift) else None
        return {"faithful": self.faithful, "sentence": self.verdict, "drift": drift}


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


def spell_difference(value: float, unit: Unit, signed: bool = True) -> str:
    """An error or a spread as text: points of a share, percent of anything else; a dash when it is not defined."""
    if math.isnan(value):
        return "–"
    number = f"{100 * value:{'+' if signed else ''}.1f}".replace("inf", "∞")
    return f"{number} {'points' if unit == '%' else '%'}"


def spell_limit(limit: float, unit: Unit) -> str:
    """``5 %``, ``2 points``."""
    return f"{100 * limit:g} {'points' if unit == '%' else '%'}"


def _because(drift: float) -> str:
    return f"; real steps took {spell_drift(drift)} than simulated ones (drift): profile again"
