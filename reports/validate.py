"""How well a simulation foretold a real run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from policies.runlog import Run
from reports.breakdown import by_size
from reports.checks import checked
from reports.comparison import names_of
from reports.drift import drift_between
from reports.fidelity import Fidelity
from reports.figures import figure, summary
from reports.formatting import format_value
from reports.noise import Outcomes, outcomes, ranges
from reports.notes import resumings
from reports.output_analysis import quantiles
from traces.errors import BadInput
from traces.files import write_json
from traces.marks import OutputKind

VALIDATION = OutputKind("validation")

PERCENTILES = (5, 25, 50, 75, 90, 95, 99)

SAME = ("height", "width", "frames", "steps", "images")
"""Columns in which a request must be the same in both runs."""

ARRIVAL_DRIFT = 0.01
"""Share of the arrivals' span by which arrivals may differ before that is worth a caution."""

SECTIONS = ("cluster", "tiling", "policies", "slo")
"""Of the scenario: what they set should be the same in both runs."""
ONE_SIDED = frozenset(
    {"cluster.replicas", "policies.scheduling.name", "cluster.rank_timeout_s", "cluster.replica_timeout_s"}
) | {f"cluster.link_{name}" for name in ("latency_s", "bytes_per_s")}
"""Keys of them that concern one of the runs only, or that ``run.json`` names itself."""


@dataclass(frozen=True, slots=True)
class Validation:
    """A simulation held against a real run.

    Attributes:
        sim: name of the simulation.
        real: name of the real run.
        figures: see `compare_figures`.
        requests: see `per_request`.
        fidelity: whether the simulation is near enough, as far as the requests can tell.
        cautions: what weakens the comparison, in full sentences.
        parity: result of the decision-parity check, as named values; None: not checked.
    """

    sim: str
    real: str
    figures: pd.DataFrame
    requests: pd.DataFrame
    fidelity: Fidelity
    cautions: list[str] = field(default_factory=list)
    parity: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, sim: Run, real: Run, parity: Mapping[str, Any] | None = None) -> Validation:
        """Compare two runs of the same requests.

        Raises:
            BadInput: a log breaks conservation, the runs are swapped or served different requests.
        """
        if sim.info.get("kind") == "replay" and real.info.get("kind") == "simulation":
            raise BadInput(f"{sim.path} is a real run and {real.path} a simulation: name the simulation first")
        figures, requests = compare_figures(sim, real), per_request(sim, real)
        left, right = names_of([sim, real])
        shares = figures[["sim", "real"]].div(figures["unit"].map(_scale), axis=0)
        lies = ranges(*side_by_side([sim], [real]))
        fidelity = Fidelity.of(shares, lies, len(requests), drift_between(sim, real), parity)
        return cls(
            sim=left,
            real=right,
            figures=figures,
            requests=requests,
            fidelity=fidelity,
            cautions=cautions(sim, real),
            parity=parity,
        )

    @property
    def latency_errors(self) -> pd.DataFrame:
        """Mean, mean absolute and percentile errors of latencies finished in both: error_s, relative."""
        rows = {}
        for column in ("error_s", "relative"):
            values = self.requests[column].dropna().to_numpy(float)
            known = len(values) > 0
            percentiles = quantiles(values, [percent / 100 for percent in PERCENTILES])
            rows[column] = {
                "mean": float(values.mean()) if known else math.nan,
                "mean absolute": float(np.abs(values).mean()) if known else math.nan,
                **{f"P{percent}": value for percent, value in zip(PERCENTILES, percentiles, strict=True)},
            }
        return pd.DataFrame(rows)

    def agreement(self) -> str:
        """In a sentence: how many requests ended alike."""
        total, same = len(self.requests), int(self.requests["same_end"].sum())
        return f"{same:,} of {total:,} requests ended alike (same status, deadline met or missed in both)."

    def document(self) -> dict[str, Any]:
        """Everything but the requests one by one, as JSON values; what is not defined is null."""
        return {
            "sim": self.sim,
            "real": self.real,
            "verdict": self.fidelity.document(),
            "figures": {str(name): _values(row) for name, row in self.figures.iterrows()},
            "requests": {
                "total": len(self.requests),
                "ended_alike": int(self.requests["same_end"].sum()),
                "finished_in_both": int(self.requests["error_s"].notna().sum()),
                "latency_error": {str(name): _values(row) for name, row in self.latency_errors.iterrows()},
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


def compare_figures(sim: Run, real: Run) -> pd.DataFrame:
    """One row a figure of `figures_of`.

    Columns: ``label``, ``unit``, ``sim``, ``real``, ``absolute`` (sim - real) and ``relative`` (a fraction of
    real). Shares are in percent here, so that their absolute errors are percentage points.

    Raises:
        BadInput: a log breaks conservation.
    """
    left, right = figures_of(sim), figures_of(real)
    rows = {}
    for name in dict.fromkeys([*left, *right]):
        described = figure(name)
        scale = _scale(described.unit)
        foretold, measured = (scale * values.get(name, math.nan) for values in (left, right))
        error = 0.0 if foretold == measured else foretold - measured
        rows[name] = {
            "label": described.label,
            "unit": described.unit,
            "sim": foretold,
            "real": measured,
            "absolute": error,
            "relative": error / abs(measured) if measured else math.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("figure")


def per_request(sim: Run, real: Run) -> pd.DataFrame:
    """The runs joined by request id, in the real run's order.

    Columns: ``sim_s`` and ``real_s`` (latency; NaN unless finished), ``error_s`` (sim - real), ``relative``
    (error_s / real_s) and ``same_end`` (same status, and the deadline met or missed in both).

    Raises:
        BadInput: a log breaks conservation, or the runs did not serve the same requests: says how many.
    """
    left, right = _ends(sim), _ends(real)
    only_sim, only_real = len(left.index.difference(right.index)), len(right.index.difference(left.index))
    if only_sim or only_real:
        raise BadInput(
            f"{sim.path} and {real.path} served different requests: {only_sim} only in the first, "
            f"{only_real} only in the second; expected runs of the same trace"
        )
    left = left.loc[right.index]
    unlike = (left[list(SAME)] != right[list(SAME)]).any(axis=1)
    if unlike.any():
        raise BadInput(
            f"{sim.path} and {real.path}: {int(unlike.sum())} requests differ in size, steps or images, "
            f"the first is {unlike.idxmax()!r}; expected runs of the same trace"
        )
    error = left["latency_s"] - right["latency_s"]
    return pd.DataFrame(
        {
            "sim_s": left["latency_s"],
            "real_s": right["latency_s"],
            "error_s": error,
            "relative": (error / right["latency_s"]).where(right["latency_s"] > 0),
            "same_end": (left["status"] == right["status"]) & (left["met"] == right["met"]),
        }
    )


def side_by_side(sims: Sequence[Run], reals: Sequence[Run]) -> tuple[list[Outcomes], list[Outcomes]]:
    """What became of the same requests in simulated and in real runs, in the first real run's order of arrival.

    Raises:
        BadInput: a log breaks conservation.
    """
    first = reals[0].requests
    order = first.loc[first["arrival_s"].argsort(kind="stable"), "request_id"]
    of_sims, of_reals = ([outcomes(_ends(run).loc[order]) for run in runs] for runs in (sims, reals))
    return of_sims, of_reals


def format_error(name: str, row: pd.Series) -> tuple[str, str, str, str]:
    """(sim, real, absolute, relative) of a row of `compare_figures` as text."""
    unit = figure(name).unit
    scale = _scale(unit)
    sim, real, error = (format_value(row[column] / scale, unit) for column in ("sim", "real", "absolute"))
    if unit == "%":
        error = error.replace("%", "points")
    return sim, real, error, format_value(row["relative"], "%")


def figures_of(run: Run) -> dict[str, float]:
    """`reports.figures.summary`, and the SLO attainment and latencies of every size.

    Raises:
        BadInput: the log breaks conservation.
    """
    arrays = checked(run)
    whole, sizes = summary(arrays), by_size(arrays)
    of_sizes = ("slo_attainment", "latency_p50_s", "latency_p95_s")
    return whole | {f"{name}:{size}": float(value) for name in of_sizes for size, value in sizes[name].items()}


def cautions(sim: Run, real: Run) -> list[str]:
    """What weakens the comparison of a simulation and a real run of the same requests, in full sentences."""
    notes = []
    arrivals = sim.requests.set_index("request_id")["arrival_s"]
    other = real.requests.set_index("request_id")["arrival_s"]
    drift = float((arrivals - other).abs().max())
    if drift > ARRIVAL_DRIFT * float(other.max() - other.min()):
        notes.append(f"The same request arrives up to {drift:.3g} s apart in the two runs.")
    for key, label in (("scheduler", "scheduler"), ("model", "model"), ("replicas", "number of replicas")):
        if sim.info.get(key) != real.info.get(key):
            notes.append(f"The {label} differs: {sim.info.get(key)} simulated, {real.info.get(key)} real.")
    simulated, replayed = _settings(sim), _settings(real)
    for key in dict.fromkeys([*simulated, *replayed]):
        if simulated.get(key) != replayed.get(key) and key not in ONE_SIDED:
            notes.append(f"{key} differs: {simulated.get(key)} simulated, {replayed.get(key)} real.")
    if real.info.get("interrupted"):
        notes.append("The real run was interrupted before its end.")
    notes += [f"The real run was {note}" for note in resumings(real)]
    return notes


def _scale(unit: str) -> float:
    """Shares are shown in percent."""
    return 100.0 if unit == "%" else 1.0


def _ends(run: Run) -> pd.DataFrame:
    requests = checked(run).requests
    latency_s = np.where(requests.finished, requests.latency_s, math.nan)
    frame = run.requests.set_index("request_id")[[*SAME, "status"]]
    return frame.assign(latency_s=latency_s, met=requests.met, submitted=requests.submitted)


def _settings(run: Run) -> dict[str, Any]:
    """What the scenario of a run sets in `SECTIONS`, by dotted key."""
    scenario = run.info.get("scenario")
    found: dict[str, Any] = {}

    def take(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                take(f"{key}.{name}", inner)
        else:
            found[key] = value

    if isinstance(scenario, dict):
        for section in SECTIONS:
            take(section, scenario.get(section))
    return found


def _values(row: pd.Series) -> dict[str, Any]:
    return {
        str(key): None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
