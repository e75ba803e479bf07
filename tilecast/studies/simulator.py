"""The simulator that a planner asks: simulations on several processes, each kept as it finishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache, partial

from tilecast.studies.case import Case
from tilecast.studies.experiment import Experiment
from tilecast.studies.experiment_run import ExperimentRun, run_experiment
from tilecast.studies.replication import Replication
from tilecast.studies.result_store import FAILED, ResultStore, point_key, run_points
from traces.errors import BadInput

FIGURES = [figure.name for figure in fields(Replication)]
"""What an answer says; one that was kept by a Tilecast that asked for others is none."""


class Simulator:
    """Simulates experiments, on several processes; what was answered once is kept in a folder.

    Args:
        case: what is planned.
        kept: the answers.
        workers: processes.
        progress: told what is simulated, 0, as nobody knows how many simulations a plan takes, and how many are done.
    """

    def __init__(self, case: Case, kept: ResultStore, workers: int, progress: Callable[[str, int, int], None]) -> None:
        self._case = case
        self._kept = kept
        self._workers = workers
        self._progress = progress
        self._replications: dict[Experiment, Replication] = {}
        self._reference_key = lru_cache(maxsize=8)(point_key)  # of a few, asked for by every simulation

    @property
    def simulations(self) -> int:
        """How many there were, each counted once."""
        return len(self._replications)

    def __call__(self, experiments: Sequence[Experiment]) -> list[Replication]:
        """See `tilecast.studies.experiment.Evaluate`.

        Raises:
            BadInput: what is asked for cannot be simulated.
        """
        new = [experiment for experiment in dict.fromkeys(experiments) if experiment not in self._replications]
        runs = [self._case.run_of(experiment) for experiment in new]
        if runs:
            keys = [self._key(run) for run in runs]
            points = dict(zip(keys, runs, strict=True))
            results = run_points(
                run_experiment,
                points,
                self._kept,
                self._workers,
                progress=partial(self._tell, str(runs[0]), self.simulations),
            )
            for experiment, run, known in zip(new, runs, keys, strict=True):
                if FAILED in results[known]:
                    raise BadInput(f"{run}: {results[known][FAILED]}")
                self._replications[experiment] = Replication.from_dict(results[known])
        return [self._replications[experiment] for experiment in experiments]

    def _tell(self, what: str, before: int, done: int) -> None:
        self._progress(f"simulating {what}", 0, before + done)

    def _key(self, run: ExperimentRun) -> str:
        of_demand = [self._reference_key(run.reference), run.reference.plan.demand]
        return point_key(run.scenario, [of_demand, run.replication, run.requests, run.saturate, FIGURES])
