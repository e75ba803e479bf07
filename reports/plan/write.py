"""The files of a plan."""

from __future__ import annotations

from pathlib import Path

from reports.plan.frames import frames
from reports.plan.markdown import markdown
from reports.plan.page import page
from sim.planning.result import Plan
from traces.atomic import whole_file
from traces.text import write_text


def write_plan(plan: Plan, folder: Path) -> list[Path]:
    """Write ``plan.html``, ``plan.md`` and a Parquet file for each table of `reports.plan.frames.frames`.

    Returns:
        what was written, the page first.

    Raises:
        BadInput: the folder cannot be written to.
    """
    written = []
    for name, text in (("plan.html", page(plan)), ("plan.md", markdown(plan))):
        written.append(folder / name)
        with whole_file(written[-1]) as temporary:
            write_text(temporary, text)
    for name, frame in frames(plan).items():
        written.append(folder / f"{name}.parquet")
        with whole_file(written[-1]) as temporary:
            frame.to_parquet(temporary, index=False)
    return written
