"""The simulator that a planner asks: simulations on several processes, each kept as it finishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tilecast.studies.case import Case
from tilecast.studies.experiment import Ask
from tilecast.studies.experiment_run import Asked, answer
from tilecast.studies.replication import Replication
from tilecast.studies.result_store import FAILED, ResultStore, point_key, run_points
from traces.errors import BadInput


class Simulator:
    """Answers asks by simulation, on several processes; what was answered once is kept in a folder.

    Args:
        case: what is planned.
        kept: the answers.
        workers: processes.
        progress: told what is simulated, how many simulations that takes, and how many of them are done.
    """

    def __init__(self, case: Case, kept: ResultStore, workers: int, progress: Callable[[str, int, int], None]) -> None:
        self._case = case
        self._kept = kept
        self._workers = workers
        self._progress = progress
        self._answers: dict[Ask, Replication] = {}

    @property
    def asked(self) -> int:
        """How many simulations were asked for, each counted once."""
        return len(self._answers)

    def __call__(self, asks: Sequence[Ask]) -> list[Replication]:
        """See `tilecast.studies.experiment.Evaluate`.

        Raises:
            BadInput: what is asked for cannot be simulated.
        """
        new = [ask for ask in dict.fromkeys(asks) if ask not in self._answers]
        runs = [self._case.asked(ask) for ask in new]
        if runs:
            keys = [self._key(run) for run in runs]
            points = dict(zip(keys, runs, strict=True))
            results = run_points(
                answer, points, self._kept, self._workers, progress=partial(self._progress, str(runs[0]), len(points))
            )
            for ask, run, known in zip(new, runs, keys, strict=True):
                if FAILED in results[known]:
                    raise BadInput(f"{run}: {results[known][FAILED]}")
                self._answers[ask] = Replication.from_dict(results[known])
        return [self._answers[ask] for ask in asks]

    def _key(self, run: Asked) -> str:
        of_demand = [point_key(run.reference), run.reference.plan.demand]
        return point_key(run.scenario, [of_demand, run.replication, run.requests, run.saturate])
