"""Several simulated runs held against several real ones: the error of a forecast beside what repeats differ by.

One simulated run draws one sequence of noise, and one real run meets one state of the machine. A single difference of
two runs therefore says little; the mean of each kind, with how far the real runs lie apart, says how good a forecast is
and how good it could be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from policies.runlog import Run
from reports.comparison import names_of
from reports.drift import drift_between
from reports.fidelity import Fidelity, difference
from reports.figures import figure
from reports.formatting import Unit
from reports.noise import ranges
from reports.validate import VALIDATION, cautions, figures_of, per_request, side_by_side
from traces.errors import BadInput
from traces.files import write_json

Figures = Mapping[str, float]


def held_against(sims: Sequence[Figures], reals: Sequence[Figures]) -> pd.DataFrame:
    """One row a figure of simulated and of real runs of one trace, given by name as in `reports.figures.summary`.

    Columns: ``sim`` and ``real`` (means), ``sim_sd`` (standard deviation of one simulated run; NaN of one), ``error``
    and ``spread``. The error is sim - real; the spread is the largest minus the smallest real value, NaN of one run.
    Both are fractions of the real mean, but for shares, which are not divided; see `reports.fidelity.difference`.

    Raises:
        BadInput: no run of one kind.
    """
    if not sims or not reals:
        raise BadInput(f"{len(sims)} simulated and {len(reals)} real runs, expected at least one of each")
    rows = {}
    for name in dict.fromkeys(name for run in (*sims, *reals) for name in run):
        foretold, measured = (np.array([run.get(name, math.nan) for run in runs], float) for runs in (sims, reals))
        sim, real, unit = float(foretold.mean()), float(measured.mean()), figure(name).unit
        several = len(foretold) > 1 and np.isfinite(foretold).all()
        rows[name] = {
            "sim": sim,
            "sim_sd": float(foretold.std(ddof=1)) if several else math.nan,
            "real": real,
            "error": math.nan if math.isnan(sim + real) else difference(sim, real, unit),
            "spread": _spread(measured, unit),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("figure")


def _spread(values: npt.NDArray[np.float64], unit: Unit) -> float:
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    scale = 1.0 if unit == "%" else abs(float(values.mean()))
    return float(np.ptp(values)) / scale if scale else math.nan


@dataclass(frozen=True, slots=True)
class Repeats:
    """Simulated runs held against real runs of the same requests.

    Attributes:
        sims: names of the simulations.
        reals: names of the real runs.
        figures: see `held_against`, of every figure of `reports.validate.figures_of`.
        fidelity: whether the simulations are near enough.
        cautions: what weakens the comparison, in full sentences.
        parity: results of the decision-parity checks, as named values; None: not checked.
    """

    sims: tuple[str, ...]
    reals: tuple[str, ...]
    figures: pd.DataFrame
    fidelity: Fidelity
    cautions: list[str]
    parity: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, runs: Sequence[Run], parity: Mapping[str, Any] | None = None) -> Repeats:
        """Compare runs; which of them are simulations, their logs say.

        Raises:
            BadInput: no run of one kind, a log breaks conservation, or the runs served different requests.
        """
        names = dict(zip(map(id, runs), names_of(list(runs)), strict=True))
        sims, reals = ([run for run in runs if run.info.get("kind") == kind] for kind in ("simulation", "replay"))
        compared = held_against([figures_of(run) for run in sims], [figures_of(run) for run in reals])
        for other in (*sims[1:], *reals):
            per_request(sims[0], other)  # refuses other requests
        notes = [note for sim in sims for real in reals for note in cautions(sim, real)]
        of_sims, of_reals = (tuple(names[id(run)] for run in of_kind) for of_kind in (sims, reals))
        drifts = [drift for real in reals if not math.isnan(drift := drift_between(sims[0], real))]
        drift = sum(drifts) / len(drifts) if drifts else math.nan
        lies = ranges(*side_by_side(sims, reals))
        fidelity = Fidelity.of(compared, lies, len(reals[0].requests), drift, parity)
        return cls(of_sims, of_reals, compared, fidelity, list(dict.fromkeys(notes)), parity)

    def document(self) -> dict[str, Any]:
        """Everything as JSON values; what is not defined is null."""
        return {
            "sims": list(self.sims),
            "reals": list(self.reals),
            "verdict": self.fidelity.document(),
            "figures": {
                str(name): {str(key): value if math.isfinite(value) else None for key, value in row.items()}
                for name, row in self.figures.iterrows()
            },
            "cautions": self.cautions,
            "parity": None if self.parity is None else dict(self.parity),
        }

    def write(self, path: Path) -> None:
        """Write `document` as JSON, whole or not at all.

        Raises:
            BadInput: ``path`` cannot be written.
        """
        write_json(self.document(), path, VALIDATION)
