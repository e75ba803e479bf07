"""How far the chosen latency model is from what was measured, in units of the noise of its repeats.

    python -m benchmarks.latency_models [--data ../shared/data] [--quick]

On what ships (``tiny-image`` on one CPU core), on the measurements published with MixFusion (SDXL and SD3 on an H100)
where they are present, and on a made-up model that is bound by starting kernels: one image takes as long as five.

- *singles*: the worst miss of a single image that was fitted to, predicted over the median of its measurements.
- *compositions*, *sizes*: mean absolute error on batches and on sizes that were held out, as a multiple of what the
  noise of repeats would leave a predictor that knew the truth; in % where nothing was repeated. The latency model is
  chosen anew in every fold, from what was not held out.
- *attainable*: in the same unit, what a batch's own other repeats leave, freed of their own noise. Near 1, the unit is
  right, and what a model misses beyond it is the model's; no other batch's noise is in it.
- *repeats*: the mean absolute error on a repeat of a batch that was fitted to, and that of the median of its others.

SD3 and tiny-image chose coordinates, grids, penalties and features of the models, all of their rows, so that their
figures are a little too good; SDXL did not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from predictors.evaluate import ALL, MEDIAN, evaluate
from predictors.importers.mixfusion import import_mixfusion
from predictors.latency import fitted
from predictors.latency_model import LatencyModel
from predictors.measurements import Measurements
from predictors.noise import deviations
from predictors.profile import SAME, Profile
from predictors.shipped import find
from traces.composition import composition_of, format_composition
from traces.geometry import geometry_of
from traces.streams import stream

ROOT = Path(__file__).parents[1]
GOALS = {"singles": 0.05, "compositions": 1.2, "sizes": 1.5}


@dataclass(frozen=True)
class Row:
    """A stage's figures.

    Attributes:
        name: profile, executor and stage.
        chosen: the latency model.
        noise: mean absolute error that repeats leave, as a share; nan without repeats.
        attainable: likewise, by a batch's own other repeats.
        deviation: standard deviation of the logarithm of a measurement; nan without repeats.
        singles: the worst miss of a single image, as a share; nan where none was measured.
        compositions, sizes: mean absolute error on what was held out, as a share.
        repeats, median: on repeats: of the latency model, and of the median of the others.
    """

    name: str
    chosen: str
    noise: float
    attainable: float
    deviation: float
    singles: float
    compositions: float
    sizes: float
    repeats: float
    median: float

    def cells(self) -> list[str]:
        """As a table shows them; a goal that is missed has an exclamation mark."""
        within = max(GOALS["singles"], 0.0 if np.isnan(self.deviation) else self.deviation)
        mark = "!" if abs(self.singles) > within else ""
        singles = "-" if np.isnan(self.singles) else f"{100 * self.singles:+.1f} %{mark}"
        return [
            self.name,
            self.chosen,
            "-" if np.isnan(self.noise) else f"{100 * self.noise:.1f} %",
            singles,
            self._ratio(self.compositions, GOALS["compositions"]),
            self._ratio(self.sizes, GOALS["sizes"]),
            self._ratio(self.attainable, float("inf")),
            "-" if np.isnan(self.median) else f"{100 * self.repeats:.1f} % ({100 * self.median:.1f} %)",
        ]

    def _ratio(self, error: float, goal: float) -> str:
        if np.isnan(error):
            return "-"
        if np.isnan(self.noise):
            return f"{100 * error:.1f} %"
        return f"{error / self.noise:.2f}x{'!' if error / self.noise > goal else ''}"


def launch_bound(noise: float = 0.01, images: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10, 12)) -> Profile:
    """Whole batches of three sizes of SD3, thrice each: 50 ms a step, or what five images of 512x512 take in them."""
    rng = stream(0, "benchmarks/launch-bound")
    rows = []
    for side in (512, 768, 1024):
        for n in images:
            true_s = 0.05 * max(1.0, n * side**2 / (5 * 512**2))
            composition = format_composition(composition_of([((side, side, 1), n)]))
            rows += [(composition, 10 * true_s * rng.normal(1, noise)) for _ in range(3)]
    frame = pd.DataFrame(rows, columns=["composition", "seconds"]).assign(executor="whole", stage="denoise", steps=10)
    frame = frame.assign(hardware="made up", software="made up", model="sd3", guided=True)
    return Profile.from_frame(frame, {"source": "made up"})


def profiles(data: Path) -> Iterator[tuple[str, Profile]]:
    """Every profile, and what to call it."""
    yield "tiny-image", Profile.load(find("cpu-1core"))
    if files := sorted((data / "mixfusion" / "profile").glob("*.csv")):
        published = import_mixfusion(files)
        for model in ("sd3", "sdxl"):
            yield f"{model} H100", published.select(model)
    else:
        print(f"no published measurements under {data / 'mixfusion' / 'profile'}: left out")
    yield "launch-bound", launch_bound()


def measured(name: str, profile: Profile, quick: bool) -> Iterator[Row]:
    """The figures of every stage of a profile of one model; ``quick``: of the model that all rows choose."""
    (model,) = profile.models
    for executor in profile.executors(model):
        own = profile.select(model, executor)
        chosen = LatencyModel.fit(own, model, executor).fitted_models
        for stage in own.stages(model):
            one = Profile(own.frame[own.frame["stage"] == stage], profile.metadata)
            asked = chosen[stage] if quick else "auto"
            errors = evaluate(one, [asked])
            errors = errors[errors["images"] == ALL].set_index(["held_out", "latency_model"])
            data = Measurements.of(own, stage, geometry_of(model))
            groups = [group.to_numpy() for _, group in np.log(data.frame["seconds"]).groupby(_keys(data.frame))]
            found = deviations(groups)
            yield Row(
                name=f"{name} {executor} {stage}",
                chosen=chosen[stage],
                noise=float(errors["perfect"].iloc[0]),
                attainable=float(errors["attainable"].iloc[0]),
                deviation=float("nan") if found is None else found[0],
                singles=_worst_single(data, chosen[stage]),
                compositions=float(errors["mape"]["composition", asked]),
                sizes=float(errors["mape"]["size", asked]),
                repeats=float(errors["mape"]["repeat", asked]),
                median=float(errors["mape"]["repeat", MEDIAN]),
            )


def _keys(frame: pd.DataFrame) -> list[pd.Series[str]]:
    return [frame[column] for column in SAME]


def _worst_single(data: Measurements, latency_model: str) -> float:
    """The largest miss, predicted over measured minus 1, of a single image without a cache; nan: none was measured."""
    predicted = fitted(latency_model, data.matrix, data.per_step).predict(data.matrix)
    single = np.array([sum(n for _, n in composition) == 1 for composition in data.compositions])
    single &= ~data.frame["cached"].to_numpy(dtype=bool)
    frame = data.frame.assign(predicted=predicted, measured=data.per_step)[single]
    medians = frame.groupby(_keys(frame))[["predicted", "measured"]].median()
    misses = (medians["predicted"] / medians["measured"] - 1).tolist()
    return max(misses, key=abs, default=float("nan"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder with mixfusion/")
    parser.add_argument("--quick", action="store_true", help="do not choose the model anew in every fold")
    asked = parser.parse_args(arguments)
    heads = ["stage", "chosen", "noise", "singles", "compositions", "sizes", "attainable", "repeats (median of others)"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name, profile in profiles(asked.data):
        for row in measured(name, profile, asked.quick):
            print("| " + " | ".join(row.cells()) + " |", flush=True)
    print(
        "\n! not within the goal: singles 5 % or the noise of one measurement, compositions "
        f"{GOALS['compositions']}x, sizes {GOALS['sizes']}x"
    )


if __name__ == "__main__":
    main()
