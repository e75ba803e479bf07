"""Fits ``profiles/degrees.toml`` to the published measurements of several devices that ship.

    python -m tools.degrees [--published FILE] [-o FILE]

The same measurements give the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from predictors.degree_fit import assess_degrees, degree_cases, fit_degrees
from predictors.degrees import DegreeRates
from predictors.published import load_published, shipped_published
from traces.files import write_document
from traces.marks import OutputKind
from traces.output import check_file

ROOT = Path(__file__).parents[1]
DEGREES = OutputKind("degrees")
HEADER = """\
# What sharing a denoising step among devices loses, fitted by 'python -m tools.degrees' to profiles/published.csv.
# Do not edit. See predictors/degrees.py.
"""


def spelled(rates: DegreeRates) -> str:
    """As TOML."""
    lines = [HEADER, f"unshared = {rates.unshared:.4f}", f"exchange_starts = {rates.exchange_starts:.2f}"]
    lines += [f"log_sd = {rates.log_sd:.3f}", "", "[link_share]"]
    return "\n".join([*lines, *(f"{kind} = {share:.3f}" for kind, share in rates.link_share.items())]) + "\n"


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=Path, help="measurements; by default those that ship")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "profiles" / "degrees.toml")
    asked = parser.parse_args()
    check_file(asked.output, DEGREES)
    cases = degree_cases(shipped_published() if asked.published is None else load_published(asked.published))
    rates = fit_degrees([case.point for case in cases], log_sd=assess_degrees(cases).log_sd)
    write_document(DEGREES.comment(spelled(rates), ".toml"), asked.output, DEGREES)
    print(f"{len(cases)} measurements -> {asked.output}")


if __name__ == "__main__":
    main()
