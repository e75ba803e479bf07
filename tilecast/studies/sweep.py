"""What a sweep does with its points: simulate one, put all into a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from policies.runlog import SIMULATION
from reports.figures import FIGURES, summary
from reports.overload import backlogs
from tilecast.setup import prepare
from tilecast.simulation import run_simulation
from tilecast.studies.grid import Grid, SweepPoint
from tilecast.studies.result_store import FAILED, FILE, Result, point_key
from traces.marks import OutputKind
from traces.output import claim_folder

SWEEP = OutputKind(
    "sweep",
    columns=("basis", "notes", "point", "error"),
    files=dict.fromkeys((FILE, "sweep.parquet", "sweep.csv", "sweep.html"), "sweep"),
    folders={"runs": ""},
)


@dataclass(frozen=True)
class SweepTask:
    """A point to simulate; ``log``: the folder for its run log, None: no log is written."""

    point: SweepPoint
    log: Path | None = None

    def __str__(self) -> str:
        return str(self.point)


def tasks(points: Iterable[SweepPoint], logs: Path | None) -> dict[str, SweepTask]:
    """The points by their keys, each once; with their logs in ``logs``, named by the beginning of the key."""
    found: dict[str, SweepTask] = {}
    for point in points:
        key = point_key(point.scenario, "summary" if logs is None else "summary and log")
        found.setdefault(key, SweepTask(point, logs and logs / point_name(key)))
    return found


def point_name(key: str) -> str:
    """What people call a point."""
    return key[:12]


def simulate_point(task: SweepTask) -> Result:
    """Every figure of a point's simulation (`reports.figures.summary`), ``basis`` (how far to trust them, see
    `predictors.basis`), ``notes`` (what a reader must know, a list of sentences) and ``overload`` (how many times as
    fast requests arrived as they were served, where the queue never drains; NaN: it does).

    Raises:
        BadInput: whatever is wrong with the scenario.
    """
    prepared = prepare(task.point.scenario)
    controller = run_simulation(prepared)
    if task.log is not None:
        with claim_folder(task.log, SIMULATION) as claimed, claimed.renewed() as folder:
            prepared.write(folder, controller, prepared.simulation_info(controller), [])
    run = prepared.arrays(controller)
    loads = [left.load for left in backlogs(run, prepared.served).values() if left.grows]
    trust = {"basis": prepared.table.basis, "notes": [note.text for note in prepared.notes]}
    return {**summary(run), **trust, "overload": max(loads, default=math.nan)}


def points_table(grid: Grid, todo: Mapping[str, SweepTask], results: Mapping[str, Result]) -> pd.DataFrame:
    """One row a point in the grid's order.

    Columns: ``case`` if there are any, the grid's keys (what the point's scenario has there), the figures,
    ``overload``, ``basis`` and ``notes`` (see `simulate_point`), ``point`` (the beginning of its key) and ``error``
    (why it has no figures; empty: it has).
    """
    setup: dict[str, list[Any]] = {"case": []} if list(grid.cases) != [""] else {}
    setup |= {key: [] for key in grid.keys}
    for task in todo.values():
        facts = task.point.scenario.model_dump(mode="json")
        for key, column in setup.items():
            column.append(task.point.case if key == "case" else _spelled(_at(facts, key)))
    frame = pd.DataFrame({key: _of_one_kind(column) for key, column in setup.items()}, index=list(todo))
    figures = pd.DataFrame.from_dict(dict(results), orient="index")
    order = {name: at for at, name in enumerate(FIGURES)}
    named = [name for name in map(str, figures) if name.partition(":")[0] in order]
    names = sorted(named, key=lambda name: (order[name.partition(":")[0]], name))
    frame = frame.join(figures.reindex(columns=names))
    frame["overload"] = [float(results[key].get("overload", math.nan)) for key in todo]
    frame["basis"] = [results[key].get("basis", "") for key in todo]
    frame["notes"] = ["; ".join(results[key].get("notes", [])) for key in todo]
    frame["point"] = [point_name(key) for key in todo]
    frame["error"] = [results[key].get(FAILED, "") for key in todo]
    return frame.reset_index(drop=True)


def _at(facts: Any, key: str) -> Any:
    for part in key.split("."):
        facts = facts.get(part) if isinstance(facts, dict) else None
    return facts


def _spelled(value: Any) -> Any:
    """A policy by its name and parameters; other tables and lists as they print."""
    if isinstance(value, dict) and "name" in value:
        parameters = [f"{key}={inner}" for key, inner in value.items() if key != "name"]
        return " ".join([str(value["name"]), *parameters])
    return str(value) if isinstance(value, dict | list) else value


def _of_one_kind(values: list[Any]) -> list[Any]:
    """The values as they are if all are numbers, all are truth values or all are text; else as text."""
    kinds = {type(value) for value in values if value is not None}
    return values if kinds <= {int, float} or len(kinds) < 2 else [None if v is None else str(v) for v in values]
