"""Fits ``profiles/efficiencies.toml`` to the published measurements that ship.

    python -m tools.efficiencies [--published FILE] [-o FILE]

Takes about a minute on one core. The same measurements give the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from predictors.efficiency import Efficiencies
from predictors.efficiency_fit import Assessment, assess, cases_of, robust_sd, spreads
from predictors.published import load_published, shipped_published

ROOT = Path(__file__).parents[1]
HEADER = """\
# generator: python -m tools.efficiencies
# What devices reach of their peaks, fitted to profiles/published.csv. Do not edit.
# Terms add up to logarithms of shares, see predictors/efficiency.py; spreads are standard deviations of the logarithm
# of true over predicted seconds, by class and by what of an estimate was never measured.
"""


def efficiencies(assessment: Assessment) -> Efficiencies:
    """What an assessment says, rounded as it is written."""
    rounded = {
        name: spread.model_copy(update={of: round(value, 3) for of, value in spread.model_dump().items()})
        for name, spread in spreads(assessment).items()
    }
    terms = {name: round(value, 3) for name, value in sorted(assessment.model.terms_.items())}
    return Efficiencies(terms=terms, spreads=rounded, misfit=round(misfit(assessment), 3))


def misfit(assessment: Assessment) -> float:
    """The standard deviation of errors among measurements of one source, device, model and way to run it."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for case, error in zip(assessment.cases, assessment.errors["fitted"].tolist(), strict=True):
        row = case.row
        key = (row.source, row.hardware, row.model, row.precision, row.engine, row.software, row.measures)
        groups.setdefault(key, []).append(error)
    within = []
    for errors in groups.values():
        if (n := len(errors)) > 1:
            within += [(error - sum(errors) / n) * (n / (n - 1)) ** 0.5 for error in errors]
    return robust_sd(np.array(within))


def spelled(found: Efficiencies) -> str:
    """As TOML."""
    lines = [HEADER, f"misfit = {found.misfit}", "", "[terms]"]
    lines += [f'"{name}" = {value}' for name, value in found.terms.items()]
    for name, spread in found.spreads.items():
        lines += ["", f'[spreads."{name}"]', *(f"{of} = {value}" for of, value in spread.model_dump().items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=Path, help="measurements; by default those that ship")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "profiles" / "efficiencies.toml")
    asked = parser.parse_args()
    rows = shipped_published() if asked.published is None else load_published(asked.published)
    cases = cases_of(rows)
    found = efficiencies(assess(cases, ("seen", "device", "generation", "model")))
    asked.output.write_text(spelled(found), encoding="utf-8")
    print(f"{len(found.terms)} terms from {len(cases)} measurements -> {asked.output}")


if __name__ == "__main__":
    main()
