"""How far measured launches are from what was expected of them: a slower machine, or a process that stood still.

The trap: a policy's predictions are corrected while a run goes on, so the errors of predictions in a run log are small
on a machine that is a third slower than when it was profiled. Drift is held against the profile itself, or against a
simulation by it. Launches that stood still (SIGSTOP, a suspended laptop, a neighbour that took the core) are no drift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from policies.run_arrays import RunArrays
from policies.runlog import Run

Numbers = npt.NDArray[np.float64]

STALL_TIMES, STALL_S = 4.0, 0.5
"""A launch that took so many times what launches of its run usually take of what was expected, and so many seconds
longer, stood still."""


@dataclass(frozen=True, slots=True)
class Stalls:
    """Launches that stood still.

    Attributes:
        launches: number of launches.
        times: the longest, as a multiple of what is usual.
        extra_s: seconds that all of them took longer.
    """

    launches: int
    times: float
    extra_s: float


def stalled(measured_s: Numbers, expected_s: Numbers) -> tuple[npt.NDArray[np.bool_], Numbers]:
    """Which launches stood still, and the seconds that would have been usual for each."""
    if not len(measured_s):
        return np.zeros(0, dtype=bool), measured_s
    usual_s = expected_s * float(np.median(measured_s / expected_s))
    return (measured_s > STALL_TIMES * usual_s) & (measured_s - usual_s > STALL_S), usual_s


def stalls(run: RunArrays) -> Stalls:
    """The launches of a run that stood still, held against the run's own predictions."""
    judged = run.steps.where(run.steps.predicted & (run.steps.predicted_s > 0))
    measured_s = judged.seconds
    still, usual_s = stalled(measured_s, judged.predicted_s)
    if not still.any():
        return Stalls(0, math.nan, 0.0)
    measured_s, usual_s = measured_s[still], usual_s[still]
    return Stalls(int(still.sum()), float((measured_s / usual_s).max()), float((measured_s - usual_s).sum()))


def drift(measured_s: Numbers, expected_s: Numbers) -> float:
    """How much longer launches took in all than expected, as a share of it; NaN without any."""
    known = (measured_s > 0) & (expected_s > 0)
    measured_s, expected_s = measured_s[known], expected_s[known]
    still, _ = stalled(measured_s, expected_s)
    whole_s = float(expected_s[~still].sum())
    return float(measured_s[~still].sum()) / whole_s - 1.0 if whole_s else math.nan


def drift_between(sim: Run, real: Run) -> float:
    """How much longer the steps of a real run took than the same steps in a simulation; NaN: they share none.

    Steps are the same when they are of one stage and one composition.
    """
    simulated, measured = _step_s(sim.steps), _step_s(real.steps)
    expected = simulated.groupby(["stage", "composition"])["step_s"].mean().rename("expected_s")
    both = measured.join(expected, on=["stage", "composition"], how="inner")
    steps = both["steps"].to_numpy(float)
    return drift(both["step_s"].to_numpy(float) * steps, both["expected_s"].to_numpy(float) * steps)


def _step_s(launches: pd.DataFrame) -> pd.DataFrame:
    done = launches[(launches["steps"] > 0) & (launches["requests"] > 0)]
    return done.assign(step_s=(done["end_s"] - done["start_s"]) / done["steps"])
