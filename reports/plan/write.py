"""The files of a plan."""

from __future__ import annotations

from pathlib import Path

from reports.document import render
from reports.plan import joint, joint_page
from reports.plan.frames import frames
from reports.plan.joint import JointPlan
from reports.plan.markdown import markdown
from reports.plan.page import PLAN, page
from reports.plan.result import Plan
from traces.files import write_document, write_frame


def write_plan(plan: Plan, folder: Path) -> list[Path]:
    """Write ``plan.html``, ``plan.md``, a Parquet file for each table of `reports.plan.frames.frames`, ``plan.json``.

    Returns:
        what was written, the page first.

    Raises:
        BadInput: the folder cannot be written to, or something else is in the place of a file.
    """
    texts = {"plan.html": page(plan), "plan.md": PLAN.comment(markdown(plan), ".md")}
    tables = {f"{name}.parquet": frame for name, frame in frames(plan).items()}
    for name, text in texts.items():
        write_document(text, folder / name, PLAN)
    for name, frame in tables.items():
        write_frame(frame, folder / name, PLAN)
    write_document(PLAN.json(plan.to_json()), folder / "plan.json", PLAN)
    return [folder / name for name in (*texts, *tables)]


def write_joint_plan(plan: JointPlan, folder: Path) -> list[Path]:
    """Write ``plan.html``, ``plan.md`` and ``plan.json`` of pools that share models.

    Returns:
        what was written, the page first.

    Raises:
        BadInput: the folder cannot be written to, or something else is in the place of a file.
    """
    texts = {
        "plan.html": render(joint_page.document(plan), PLAN),
        "plan.md": PLAN.comment(joint.markdown(plan), ".md"),
        "plan.json": PLAN.json(plan.to_json()),
    }
    for name, text in texts.items():
        write_document(text, folder / name, PLAN)
    return [folder / name for name in texts]
