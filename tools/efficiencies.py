"""Fits ``profiles/efficiencies.toml`` to the published measurements that ship.

    python -m tools.efficiencies [--published FILE] [-o FILE]

Takes about a minute on one core. The same measurements give the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from predictors.efficiency import Efficiencies, error_class
from predictors.efficiency_fit import ALIKE, Assessment, assess, cases_of, spreads
from predictors.published import load_published, shipped_published
from traces.files import write_document
from traces.marks import OutputKind
from traces.output import check_file

ROOT = Path(__file__).parents[1]
EFFICIENCIES = OutputKind("efficiencies")
FIGURES = ("seen", "source", "device", "generation", "model")
HEADER = """\
# What devices reach of their peaks, fitted by 'python -m tools.efficiencies' to profiles/published.csv.
# Do not edit.
# Terms add up to logarithms of shares, see predictors/efficiency.py; spreads are standard deviations of the logarithm
# of true over predicted seconds, by class and by what of an estimate was never measured.
"""


def efficiencies(assessment: Assessment) -> Efficiencies:
    """What an assessment says, rounded as it is written."""
    rounded = {
        name: spread.model_copy(update={of: round(getattr(spread, of), 3) for of in FIGURES})
        for name, spread in spreads(assessment).items()
    }
    terms = {name: round(value, 3) for name, value in sorted(assessment.model.terms_.items())}
    return Efficiencies(terms=terms, spreads=rounded, misfit=round(misfit(assessment), 3))


def misfit(assessment: Assessment) -> float:
    """The standard deviation of errors among measurements of one source, device, model and way to run it."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for case, error in zip(assessment.cases, assessment.errors["fitted"].tolist(), strict=True):
        if error_class(case.setting) not in ALIKE:
            continue
        row = case.row
        key = (row.source, row.hardware, row.model, row.precision, row.engine, row.software, row.measures)
        groups.setdefault(key, []).append(error)
    several = [np.array(errors) for errors in groups.values() if len(errors) > 1]
    squares = sum([float(((errors - errors.mean()) ** 2).sum()) for errors in several])
    return float((squares / sum([len(errors) - 1 for errors in several])) ** 0.5)


def spelled(found: Efficiencies) -> str:
    """As TOML."""
    lines = [HEADER, f"misfit = {found.misfit}", "", "[terms]"]
    lines += [f'"{name}" = {value}' for name, value in found.terms.items()]
    for name, spread in found.spreads.items():
        lines += ["", f'[spreads."{name}"]', *(f"{of} = {getattr(spread, of)}" for of in FIGURES)]
        for of in ("sources", "devices", "generations", "models"):
            lines += [f"{of} = [", *(f'  "{each}",' for each in getattr(spread, of)), "]"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=Path, help="measurements; by default those that ship")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "profiles" / "efficiencies.toml")
    asked = parser.parse_args()
    check_file(asked.output, EFFICIENCIES)
    rows = shipped_published() if asked.published is None else load_published(asked.published)
    cases = cases_of(rows)
    found = efficiencies(assess(cases))
    write_document(EFFICIENCIES.comment(spelled(found), ".toml"), asked.output, EFFICIENCIES)
    print(f"{len(found.terms)} terms from {len(cases)} measurements -> {asked.output}")


if __name__ == "__main__":
    main()
