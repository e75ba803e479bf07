"""How wrong is a roofline that was fitted to ten measurements, against a model fitted to all of them?

    python -m benchmarks.calibration [--rows 10] [--seeds 20] [--data ../shared/data]

On the measurements published with MixFusion (SDXL and SD3 on an H100). Two questions: an unmeasured *size* (every
batch that contains it is held out, the rows are chosen from the others) and an unmeasured *composition* (rows from all
sizes; tested on all batches that are not among them). Ten rows are chosen as a user could, evenly spread over the
tokens of a batch; and at random, to see how much the choice matters. SDXL's mixed batches were taken with a patch cache
that saved an unknown share of the work, so what is estimated for them is too long.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from predictors.estimate import RooflineCost, estimated_table
from predictors.hardware import find_hardware
from predictors.importers.mixfusion import import_mixfusion
from predictors.latency import fitted
from predictors.measurements import Measurements
from predictors.profile import Profile
from traces.geometry import geometry_of
from traces.streams import stream

ROOT = Path(__file__).parents[1]
HARDWARE, DTYPE = "h100-sxm", "float16"
CASES = (
    ("sdxl", "whole", "denoise"),
    ("sd3", "whole", "denoise"),
    ("sdxl", "patched", "denoise"),
    ("sd3", "patched", "denoise"),
    ("sdxl", "whole", "decode"),
    ("sd3", "whole", "decode"),
)
FULL = ("boosted", "linear")

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Errors:
    """Mean absolute percentage errors on what was held out, in %.

    Attributes:
        estimated: nothing measured.
        spread: calibrated by rows evenly spread over the tokens of a batch.
        random, worst: calibrated by random rows: mean and worst over seeds.
        every: calibrated by all rows that were not held out.
        full: by the models of `FULL`, fitted to the same.
    """

    estimated: float
    spread: float
    random: float
    worst: float
    every: float
    full: tuple[float, ...]


class Case:
    """The measurements of one model, executor and stage."""

    def __init__(self, profile: Profile, model: str, executor: str, stage: str) -> None:
        self.model, self.executor, self.stage = model, executor, stage
        self.data = Measurements.of(profile.select(model, executor), stage, geometry_of(model))
        geometry = self.data.features.geometry
        self.tokens = np.array([sum(n * geometry.tokens(size) for size, n in c) for c in self.data.compositions])

    def sizes(self) -> list[tuple[str, Rows, Rows]]:
        """(held-out size, rows without it, rows with it)."""
        splits = []
        for size in self.data.features.sizes:
            has = np.array([any(size == s for s, _ in c) for c in self.data.compositions])
            splits.append((f"{size[0]} px", np.flatnonzero(~has), np.flatnonzero(has)))
        return splits

    def held_out(self, train: Rows, test: Rows, rows: int, seeds: int) -> Errors:
        """The errors on ``test`` of what was fitted to ``train``, or to few of its rows."""
        random = []
        for seed in range(seeds):
            few = stream(seed, "calibration").choice(train, rows, replace=False)
            random.append(self._error(self._calibrated(few), test))
        full = []
        for name in FULL:
            estimator = fitted(name, self.data.matrix[train], self.data.per_step[train])
            full.append(self._mape(estimator.predict(self.data.matrix[test]), test))
        return Errors(
            self._error(self._calibrated(train[:0]), test),
            self._error(self._calibrated(self.spread(train, rows)), test),
            float(np.mean(random)),
            max(random),
            self._error(self._calibrated(train), test),
            tuple(full),
        )

    def compositions(self, rows: int, seeds: int) -> Errors:
        """The errors on compositions that are not among few rows; the full models', cross-validated."""
        every = np.arange(len(self.data.frame))

        def few(chosen: Rows) -> float:
            return self._error(self._calibrated(chosen), self._others(chosen))

        random = [few(stream(seed, "calibration").choice(every, rows, replace=False)) for seed in range(seeds)]
        folds = list(GroupKFold(5).split(every, groups=self.data.frame["composition"]))
        of_all = [self._error(self._calibrated(train), test) for train, test in folds]
        full = []
        for name in FULL:
            errors = []
            for train, test in folds:
                estimator = fitted(name, self.data.matrix[train], self.data.per_step[train])
                errors.append(self._mape(estimator.predict(self.data.matrix[test]), test))
            full.append(float(np.mean(errors)))
        return Errors(
            self._error(self._calibrated(every[:0]), every),
            few(self.spread(every, rows)),
            float(np.mean(random)),
            max(random),
            float(np.mean(of_all)),
            tuple(full),
        )

    def spread(self, train: Rows, rows: int) -> Rows:
        """Rows of ``train`` evenly spread over the order of tokens in a batch."""
        order = train[np.argsort(self.tokens[train], kind="stable")]
        return order[np.linspace(0, len(order) - 1, rows).round().astype(int)]

    def efficiency(self) -> str:
        """What all rows say is reached of the peaks."""
        e = self._calibrated(np.arange(len(self.data.frame))).roofline.efficiency
        shares = f"compute {e.compute:.2f}, memory {e.memory:.2f}"
        return f"{shares}, {1e6 * e.launch_s:.0f} us a kernel, {1e3 * e.row_s:.2f} ms a row"

    def _others(self, chosen: Rows) -> Rows:
        names = self.data.frame["composition"]
        return np.flatnonzero(~names.isin(names.iloc[chosen]).to_numpy())

    def _calibrated(self, rows: Rows) -> RooflineCost:
        calibration = Profile(self.data.frame.iloc[rows]) if len(rows) else None
        table = estimated_table(self.model, find_hardware(HARDWARE), self.executor, DTYPE, calibration)
        cost = table.costs[self.stage]
        assert isinstance(cost, RooflineCost)
        return cost

    def _error(self, cost: RooflineCost, test: Rows) -> float:
        predicted = [cost.of(self.data.compositions[row], 1.0, 1.0, False) for row in test]
        return self._mape(np.array(predicted), test)

    def _mape(self, predicted: npt.NDArray[np.float64], test: Rows) -> float:
        return 100 * float(np.mean(np.abs(predicted / self.data.per_step[test] - 1)))


def line(what: Sequence[str], errors: Errors) -> str:
    """A row of the table."""
    few = f"{errors.spread:8.1f} {errors.random:8.1f} {errors.worst:8.1f} {errors.every:8.1f}"
    return f"{what[0]:5} {what[1]:8} {what[2]:8} {what[3]:12} {errors.estimated:9.1f} {few}   " + " ".join(
        f"{value:8.1f}" for value in errors.full
    )


def main() -> None:
    """Print the errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10, help="measurements to calibrate with")
    parser.add_argument("--seeds", type=int, default=20, help="random choices of them")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    asked = parser.parse_args()
    files = sorted((asked.data / "mixfusion" / "profile").glob("*.csv"))
    if not files:
        print(f"no measurements in {asked.data}; --data names the folder that has mixfusion/profile", file=sys.stderr)
        sys.exit(2)
    profile = import_mixfusion(files)
    print(
        f"Error in %, of what was held out. Calibrated by {asked.rows} measurements, or by all that were not held out."
    )
    few = f"{'spread':>8} {'random':>8} {'worst':>8} {'all':>8}"
    full = " ".join(f"{name:>8}" for name in FULL)
    print(f"{'model':5} {'run':8} {'stage':8} {'held out':12} {'estimated':>9} {few}   {full}")
    means: dict[str, list[Errors]] = {}
    explained = []
    for model, executor, stage in CASES:
        case = Case(profile, model, executor, stage)
        for name, train, test in case.sizes():
            errors = case.held_out(train, test, asked.rows, asked.seeds)
            means.setdefault(f"{stage}, sizes", []).append(errors)
            print(line((model, executor, stage, name), errors), flush=True)
        errors = case.compositions(asked.rows, asked.seeds)
        means.setdefault(f"{stage}, compositions", []).append(errors)
        print(line((model, executor, stage, "compositions"), errors), flush=True)
        explained.append(f"{model:5} {executor:8} {stage:8} {case.efficiency()}")
    for name, many in means.items():
        mean = Errors(
            *(
                float(np.mean([getattr(e, part) for e in many]))
                for part in ("estimated", "spread", "random", "worst", "every")
            ),
            tuple(np.mean([e.full for e in many], axis=0).tolist()),
        )
        print(line(("mean", "", "", name), mean))
    print(f"\nWhat all measurements say is reached of the peaks of {HARDWARE}:")
    print("\n".join(explained))


if __name__ == "__main__":
    main()
