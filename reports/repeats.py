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
import pandas as pd

from policies.runlog import Run
from reports.comparison import names_of
from reports.figures import Unit, figure, spell_value
from reports.validate import VALIDATION, cautions, figures_of, per_request
from traces.errors import BadInput
from traces.files import write_json

Figures = Mapping[str, float]


def held_against(sims: Sequence[Figures], reals: Sequence[Figures]) -> pd.DataFrame:
    """One row a figure of simulated and of real runs of one trace, given by name as in `reports.metrics.summary`.

    Columns: ``sim`` and ``real`` (means), ``sim_sd`` (standard deviation of one simulated run; NaN of one), ``error``
    and ``spread``. The error is sim - real; the spread is the largest minus the smallest real value, NaN of one run.
    Both are fractions of the real mean, but for shares, which are not divided.

    Raises:
        BadInput: no run of one kind.
    """
    if not sims or not reals:
        raise BadInput(f"{len(sims)} simulated and {len(reals)} real runs, expected at least one of each")
    rows = {}
    for name in dict.fromkeys(name for run in (*sims, *reals) for name in run):
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


@dataclass(frozen=True, slots=True)
class Repeats:
    """Simulated runs held against real runs of the same requests.

    Attributes:
        sims: names of the simulations.
        reals: names of the real runs.
        figures: see `held_against`, of every figure of `reports.validate.figures_of`.
        cautions: what weakens the comparison, in full sentences.
        parity: results of the decision-parity checks, as named values; None: not checked.
    """

    sims: tuple[str, ...]
    reals: tuple[str, ...]
    figures: pd.DataFrame
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
        return cls(of_sims, of_reals, compared, list(dict.fromkeys(notes)), parity)

    def document(self) -> dict[str, Any]:
        """Everything as JSON values; what is not defined is null."""
        return {
            "sims": list(self.sims),
            "reals": list(self.reals),
            "figures": {
                str(name): {str(key): None if math.isnan(value) else value for key, value in row.items()}
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
