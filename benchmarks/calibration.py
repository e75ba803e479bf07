"""How wrong is a roofline that was fitted to ten measurements, against a model fitted to all of them?

    python -m benchmarks.calibration [--rows 10] [--seeds 20] [--data ../shared/data]

On the measurements published with MixFusion (SDXL and SD3 on an H100), and on those of ``tiny-image`` on one CPU core
that ship with Tilecast. Two questions: an unmeasured *size* (every
batch that contains it is held out, the rows are chosen from the others) and an unmeasured *composition* (rows from all
sizes; tested on all batches that are not among them). Ten rows are chosen as a user could, evenly spread over the
tokens of a batch; and at random, to see how much the choice matters. SDXL's mixed batches were taken with a patch cache
that saved an unknown share of the work, so what is estimated for them is too long.

Then, whether mixed batches need measurements of their own: their error, and how many of them lie in the 80 % interval
of the estimate, calibrated by random rows of mixed batches, tested on the other compositions, and by whole rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from predictors.efficiency import COMPUTING
from predictors.estimate import RooflineCost, estimated_table
from predictors.hardware import find_hardware
from predictors.importers.mixfusion import import_mixfusion
from predictors.latency import fitted
from predictors.measurements import Measurements
from predictors.profile import Profile
from predictors.shipped import find
from traces.geometry import geometry_of
from traces.streams import stream

ROOT = Path(__file__).parents[1]
PUBLISHED = (
    ("sdxl", "whole", "denoise"),
    ("sd3", "whole", "denoise"),
    ("sdxl", "patched", "denoise"),
    ("sd3", "patched", "denoise"),
    ("sdxl", "whole", "decode"),
    ("sd3", "whole", "decode"),
)
SHIPPED = (("tiny-image", "whole", "denoise"), ("tiny-image", "patched", "denoise"), ("tiny-image", "whole", "decode"))
FULL = ("floor-gaussian", "boosted", "linear")
INTERVAL_ROWS = (3, 10, 30)
TO_THE_END = 1.2816
"""Standard deviations from the middle of an 80 % interval to its ends."""

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
    """The measurements of one model, executor and stage on a hardware kind."""

    def __init__(self, profile: Profile, hardware: str, dtype: str, model: str, executor: str, stage: str) -> None:
        self.model, self.executor, self.stage = model, executor, stage
        self.hardware, self.dtype = find_hardware(hardware), dtype
        self.data = Measurements.of(profile.select(model, executor), stage, geometry_of(model))
        geometry = self.data.features.geometry
        self.tokens = np.array([sum(n * geometry.tokens(size) for size, n in c) for c in self.data.compositions])

    def sizes(self) -> list[tuple[str, Rows, Rows]]:
        """(held-out size, rows without it, rows with it)."""
        splits = []
        for size in self.data.features.sizes:
            has = np.array([any(size == s for s, _ in c) for c in self.data.compositions])
            splits.append(("x".join(map(str, size[:2])), np.flatnonzero(~has), np.flatnonzero(has)))
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

    def interval(self, source: Case, rows: int, seeds: int) -> tuple[float, float, float]:
        """Calibrated by so many random rows of ``source``, means over seeds, in %: the error on batches that are not
        among them, the share of these in the 80 % interval, and how far its upper end is.
        """
        found = []
        for seed in range(seeds):
            chosen = stream(seed, "calibration").choice(len(source.data.frame), rows, replace=False)
            cost = self._calibrated(chosen, source)
            test = self._others(chosen) if source is self else np.arange(len(self.data.frame))
            end = TO_THE_END * cost.log_sd
            off = np.log(self._predicted(cost, test) / self.data.per_step[test])
            found.append((np.abs(np.expm1(off)).mean(), (np.abs(off) <= end).mean(), np.expm1(end)))
        error, inside, width = (100 * np.mean(found, axis=0)).tolist()
        return error, inside, width

    def spread(self, train: Rows, rows: int) -> Rows:
        """Rows of ``train`` evenly spread over the order of tokens in a batch."""
        order = train[np.argsort(self.tokens[train], kind="stable")]
        return order[np.linspace(0, len(order) - 1, rows).round().astype(int)]

    def efficiency(self) -> str:
        """What all rows say is reached of the peaks."""
        roofline = self._calibrated(np.arange(len(self.data.frame))).roofline
        rates, setting = roofline.rates, roofline.setting
        shares = [f"{kind} {getattr(rates, kind) / setting.peak(kind):.2f}" for kind in COMPUTING]
        memory = rates.memory / setting.hardware.memory_bytes_per_s
        return f"{', '.join(shares)}, memory {memory:.2f}, {1e6 * rates.launch:.0f} us a kernel"

    def _others(self, chosen: Rows) -> Rows:
        names = self.data.frame["composition"]
        return np.flatnonzero(~names.isin(names.iloc[chosen]).to_numpy())

    def _calibrated(self, rows: Rows, source: Case | None = None) -> RooflineCost:
        frame = (self if source is None else source).data.frame
        calibration = Profile(frame.iloc[rows]) if len(rows) else None
        table = estimated_table(self.model, self.hardware, self.executor, self.dtype, calibration=calibration)
        cost = table.costs[self.stage]
        assert isinstance(cost, RooflineCost)
        return cost

    def _error(self, cost: RooflineCost, test: Rows) -> float:
        return self._mape(self._predicted(cost, test), test)

    def _predicted(self, cost: RooflineCost, test: Rows) -> npt.NDArray[np.float64]:
        return np.array([cost.of(self.data.compositions[row], 1.0, 1.0, False) for row in test])

    def _mape(self, predicted: npt.NDArray[np.float64], test: Rows) -> float:
        return 100 * float(np.mean(np.abs(predicted / self.data.per_step[test] - 1)))


def line(what: Sequence[str], errors: Errors) -> str:
    """A row of the table."""
    few = f"{errors.spread:8.1f} {errors.random:8.1f} {errors.worst:8.1f} {errors.every:8.1f}"
    name = f"{what[0]:10} {what[1]:7} {what[2]:7} {what[3]:12}"
    full = " ".join(f"{value:{len(model)}.1f}" for model, value in zip(FULL, errors.full, strict=True))
    return f"{name} {errors.estimated:9.1f} {few}   {full}"


def main() -> None:
    """Print the errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10, help="measurements to calibrate with")
    parser.add_argument("--seeds", type=int, default=20, help="random choices of them")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    asked = parser.parse_args()
    files = sorted((asked.data / "mixfusion" / "profile").glob("*.csv"))
    print(
        f"Error in %, of what was held out. Calibrated by {asked.rows} measurements, or by all that were not held out."
    )
    few = f"{'spread':>8} {'random':>8} {'worst':>8} {'all':>8}"
    full = " ".join(FULL)
    print(f"{'model':10} {'run':7} {'stage':7} {'held out':12} {'estimated':>9} {few}   {full}")
    if files:
        published = import_mixfusion(files)
        for text in study(published, "h100-sxm", "float16", PUBLISHED, asked.rows, asked.seeds):
            print(text, flush=True)
        print(INTERVALS)
        for text in intervals(published, "h100-sxm", "float16", ("sdxl", "sd3"), asked.seeds):
            print(text, flush=True)
    else:
        print(f"no published measurements in {asked.data}; --data names the folder that has mixfusion/profile")
    shipped = Profile.load(find("cpu-1core"))
    exact = Profile(shipped.frame[~shipped.frame["cached"]], shipped.metadata)
    for text in study(exact, "cpu-1core", "float32", SHIPPED, asked.rows, asked.seeds):
        print(text, flush=True)
    print(INTERVALS)
    for text in intervals(exact, "cpu-1core", "float32", ("tiny-image",), asked.seeds):
        print(text, flush=True)


def study(
    profile: Profile, hardware: str, dtype: str, cases: Iterable[tuple[str, str, str]], rows: int, seeds: int
) -> Iterator[str]:
    """The lines of one hardware kind: errors, their means, and what of its peaks is reached."""
    many: dict[tuple[str, str], list[Errors]] = {}
    explained = []
    for of in cases:
        case = Case(profile, hardware, dtype, *of)
        for name, train, test in case.sizes():
            errors = case.held_out(train, test, rows, seeds)
            many.setdefault((of[2], "sizes"), []).append(errors)
            yield line((*of, name), errors)
        errors = case.compositions(rows, seeds)
        many.setdefault((of[2], "compositions"), []).append(errors)
        yield line((*of, "compositions"), errors)
        explained.append(f"{' '.join(of)}: {case.efficiency()}")
    for (stage, name), each in many.items():
        values = np.mean([[*astuple(errors)[:-1], *errors.full] for errors in each], axis=0).tolist()
        yield line(("mean", "", stage, name), Errors(*values[:5], tuple(values[5:])))
    yield f"What all measurements say is reached of the peaks of {hardware}:"
    yield from explained
    yield ""


INTERVALS = f"{'mixed batches':13} {'by rows of':>10} {'rows':>5} {'error':>7} {'in 80 %':>8} {'upper end':>10}"


def intervals(profile: Profile, hardware: str, dtype: str, models: Iterable[str], seeds: int) -> Iterator[str]:
    """The lines of how well mixed batches are known from rows of their own, and of whole ones."""
    for model in models:
        mixed, whole = (Case(profile, hardware, dtype, model, run, "denoise") for run in ("patched", "whole"))
        for source in (mixed, whole):
            for rows in INTERVAL_ROWS:
                if rows <= len(source.data.frame):
                    error, inside, width = mixed.interval(source, rows, seeds)
                    yield f"{model:13} {source.executor:>10} {rows:5} {error:7.1f} {inside:8.0f} {width:+10.0f}"


if __name__ == "__main__":
    main()
