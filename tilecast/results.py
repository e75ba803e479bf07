"""What a run comes to, in a person's hands: its tables, its figures, its plots, and runs side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from policies.controller import Controller
from policies.legs import standalone_on
from policies.pool import extrapolates_on
from policies.record import request_table, step_table
from policies.runlog import REQUEST_COLUMNS, SIMULATION, STEP_COLUMNS, Run, read_run, write_run
from reports.comparison import Comparison
from reports.waiting import Waiting
from tilecast.setup import Prepared
from traces.errors import BadInput
from traces.notes import Note
from traces.output import check_file, claim_folder

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Result:
    """A run that was simulated, replayed or read back.

    Attributes:
        log: its tables and facts; see `policies.runlog` for their columns.
        wall_s: what simulating it took, seconds; NaN: it was not simulated here.
    """

    log: Run
    wall_s: float = math.nan

    @property
    def requests(self) -> pd.DataFrame:
        """A row a request of the trace, in its order; times are seconds on the run's clock."""
        return self.log.requests

    @property
    def steps(self) -> pd.DataFrame:
        """A row a launch and stage, in order of the launches' starts."""
        return self.log.steps

    @property
    def info(self) -> dict[str, Any]:
        """``run.json``: the scenario, versions, hardware, and what was known before it ran."""
        return self.log.info

    @cached_property
    def comparison(self) -> Comparison:
        """The run alone, as reports show it."""
        return Comparison.of([self.log])

    @property
    def notes(self) -> list[Note]:
        """What must be known before the figures are believed, the gravest first."""
        return self.comparison.notes()

    @cached_property
    def waiting(self) -> Waiting:
        """Why its requests waited: ``waiting.sentences()`` says it, see `reports.waiting.Waiting`."""
        return Waiting.of(self.log)

    def summary(self) -> pd.Series:
        """Every figure of the run by name, floats in the units of `reports.figures.FIGURES`; shares are fractions."""
        return pd.Series(self.comparison.summaries[0], name=self.log.name, dtype=float)

    def table(self) -> pd.DataFrame:
        """The figures for people: label and value with its unit."""
        return _spelled(self.comparison)

    def plots(self) -> dict[str, go.Figure]:
        """The plots of the report by title."""
        return plots(self.comparison)

    def save(self, folder: Path | str) -> Path:
        """Write a simulation's run log into a folder, which is made, or holds an older one.

        Raises:
            BadInput: the folder holds anything else, or this is a replay, whose log is where it ran.
        """
        if self.info.get("kind") != SIMULATION.name:
            raise BadInput("a replay's log is where it ran; copy that folder")
        with claim_folder(Path(folder), SIMULATION) as claimed, claimed.renewed() as new:
            self.write(new)
        return Path(folder)

    def write(self, folder: Path) -> None:
        """Put the files of the run log into a folder that is nobody's yet."""
        write_run(folder, self.requests, self.steps, self.info, [])

    def report(self, path: Path | str) -> Path:
        """Write the report's HTML page.

        Raises:
            BadInput: the path holds something else, or cannot be written.
        """
        from reports.markdown import REPORT
        from reports.page import write_page

        check_file(Path(path), REPORT)
        write_page(self.comparison, Path(path))
        return Path(path)

    def _repr_html_(self) -> str:
        return _with_notes(self.comparison)


def read(folder: Path | str) -> Result:
    """A run log that simulate or replay wrote.

    Raises:
        BadInput: the folder is none, or a file of it cannot be read.
    """
    return Result(read_run(Path(folder).resolve()))


def compare(runs: Iterable[Result], names: Iterable[str] = ()) -> Comparison:
    """Runs side by side; ``names`` in the place of their folders' names.

    Raises:
        BadInput: a log breaks conservation, or there are more or fewer names than runs.
    """
    logs = [run.log for run in runs]
    compared, given = Comparison.of(logs), tuple(names)
    if not given:
        return compared
    if len(given) != len(logs):
        raise BadInput(f"{len(given)} names for {len(logs)} runs; expected as many")
    return replace(compared, names=given)


def simulated(prepared: Prepared, controller: Controller) -> Result:
    """The result of a simulation, its log in memory."""
    steps = step_table(controller, extrapolates_on(prepared.pools))
    requests = request_table(controller, prepared.asked(controller), steps, standalone_on(prepared.pools))
    path, info = Path(prepared.policy_name), prepared.simulation_info(controller)
    return Result(Run(path, requests.astype(REQUEST_COLUMNS), steps.astype(STEP_COLUMNS), info))


def plots(comparison: Comparison) -> dict[str, go.Figure]:
    """The plots of a comparison's report by title."""
    from reports.page import plots_of

    return {plot.title: plot.draw(comparison) for plot in plots_of(comparison)}


def _spelled(comparison: Comparison) -> pd.DataFrame:
    rows = comparison.rows()
    return pd.DataFrame([row.cells for row in rows], [row.label for row in rows], list(comparison.names))


def _with_notes(comparison: Comparison) -> str:
    from html import escape

    said = "".join([f"<p>{escape(str(note))}</p>" for note in comparison.notes()])
    return f"{said}<p><b>{escape(comparison.answer())}</b></p>{_spelled(comparison).to_html()}"
