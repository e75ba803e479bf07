"""Several simulated runs held against several real ones: the error of a forecast beside what repeats differ by.

One simulated run draws one sequence of noise, and one real run meets one state of the machine. A single difference of
two runs therefore says little; the mean of each kind, with how far the real runs lie apart, says how good a forecast is
and how good it could be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from reports.figures import Unit, figure, spell_value
from traces.errors import BadInput

FIGURES = ("latency_p50_s", "latency_p95_s", "latency_p99_s", "slo_attainment")
Summary = Mapping[str, float]


def held_against(sims: Sequence[Summary], reals: Sequence[Summary], figures: Sequence[str] = FIGURES) -> pd.DataFrame:
    """One row a figure, of summaries (`reports.metrics.summary`) of simulated and of real runs of one trace.

    Columns: ``sim`` and ``real`` (means), ``sim_sd`` (standard deviation of one simulated run; NaN of one), ``error``
    and ``spread``. The error is sim - real; the spread is the largest minus the smallest real value, NaN of one run.
    Both are fractions of the real mean, but for shares, which are not divided.

    Raises:
        BadInput: no run of one kind.
    """
    if not sims or not reals:
        raise BadInput(f"{len(sims)} simulated and {len(reals)} real runs, expected at least one of each")
    rows = {}
    for name in figures:
        foretold, measured = (np.array([run.get(name, math.nan) for run in runs], float) for runs in (sims, reals))
        sim, real = float(foretold.mean()), float(measured.mean())
        spread = float(np.ptp(measured)) if len(measured) > 1 else math.nan
        scale = 1.0 if figure(name).unit == "%" else real
        rows[name] = {
            "sim": sim,
            "sim_sd": float(foretold.std(ddof=1)) if len(foretold) > 1 else math.nan,
            "real": real,
            "error": (sim - real) / scale if scale else math.nan,
            "spread": spread / scale if scale else math.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("figure")


def spell_difference(value: float, unit: Unit, signed: bool = True) -> str:
    """An error or a spread of `held_against` as text: points of a share, percent of anything else."""
    if math.isnan(value):
        return spell_value(value, unit)
    return f"{100 * value:{'+' if signed else ''}.1f} {'points' if unit == '%' else '%'}"
