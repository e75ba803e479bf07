"""What a run log says of its requests in words: why they were lost, and what was noted of them."""

from __future__ import annotations

import re

import pandas as pd

from policies.runlog import Run

_SECONDS = r"\b(\d[\d.]*(?:e[+-]?\d+)?) s\b"


def reasons(run: Run) -> pd.DataFrame:
    """How many requests did not finish, per ``status`` and ``reason``, most frequent first.

    Reasons that differ in their seconds alone are one, with the most of them, and the least where that is not far
    smaller.
    """
    lost = run.requests[run.requests["status"] != "finished"].fillna({"reason": ""})
    alike = lost["reason"].str.replace(_SECONDS, "- s", n=1, regex=True)
    groups = lost.groupby(["status", alike.rename("alike")])["reason"]
    counted = groups.agg(requests="size", reason=_one_reason).reset_index()[["status", "reason", "requests"]]
    order = ["requests", "status", "reason"]
    return counted.sort_values(order, ascending=[False, True, True], ignore_index=True)


def remarks(run: Run) -> dict[str, int]:
    """How many requests each note is about, most frequent first, see ``note`` in the run log."""
    each = run.requests["note"].dropna().str.split("; ").explode()
    return {str(note): int(count) for note, count in each[each != ""].value_counts().items()}


def _one_reason(reasons: pd.Series) -> str:
    """One for reasons that differ in their seconds alone."""
    if reasons.nunique() == 1:
        return str(reasons.iat[0])
    seconds = reasons.str.extract(_SECONDS)[0].astype(float)
    least, most = (float(f"{end:.2g}") for end in (seconds.min(), seconds.max()))
    spread = f"up to {most:g} s" if least < most / 10 else f"{least:g} to {most:g} s"
    return re.sub(_SECONDS, spread, str(reasons.iat[0]), count=1)
