"""How wrong the latency models are, on measurements they did not see.

Three questions, three ways to hold measurements out, and what is left of them when nothing is:

- ``composition``: an unmeasured mix of measured sizes (`GroupKFold` by composition).
- ``size``: an unmeasured size; every composition that contains it is held out. The honest test of
  extrapolation.
- ``repeat``: the same batch again. Here the median of its other repeats competes, which bounds what
  memorising the measurements could gain over a smooth model.
- ``nothing``: the rows that were fitted to.

Each is asked of all batches and, because deadlines hang on single images, by number of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import GroupKFold

from predictors.choice import BANDS
from predictors.latency import LATENCY_MODELS, fitted
from predictors.measurements import Measurements
from predictors.noise import attainable_mape, perfect_mape
from predictors.profile import SAME, Profile
from predictors.validation import Floats
from traces.geometry import GEOMETRIES, ModelGeometry, geometry_of

HELD_OUT = ("composition", "size", "repeat")
MEDIAN = "median of repeats"
ALL = "all"
"""Batches of any number of images."""
COMPARED = tuple(name for name in LATENCY_MODELS if name != "auto")
"""Every latency model but the choice among some of them, which asks these questions itself."""

Fold = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Rows to fit on, rows to test on."""


def evaluate(
    profile: Profile,
    latency_models: Iterable[str] = COMPARED,
    held_out: Iterable[str] = HELD_OUT,
    folds: int = 5,
    geometries: Mapping[str, ModelGeometry] = GEOMETRIES,
) -> pd.DataFrame:
    """Cross-validated error of each latency model.

    Returns:
        One row a model, executor, stage, way of holding out, number of images (``all``, ``1``, ``2-4``, ``5+``; those
        that were tested) and latency model: ``mape`` (mean absolute percentage error over the held-out rows as a
        fraction; NaN where the profile is too small), ``tested`` (how many), ``perfect`` (what a perfect predictor
        would show on such batches, see `predictors.noise.perfect_mape`), ``attainable`` (what their own repeats leave,
        see `predictors.noise.attainable_mape`).

    Raises:
        BadInput: a model without a known geometry, or an unknown latency model.
    """
    latency_models, held_out = tuple(latency_models), tuple(held_out)
    rows = []
    for model in profile.models:
        geometry = geometries[model] if model in geometries else geometry_of(model)
        for executor in profile.executors(model):
            selected = profile.select(model, executor)
            for stage in selected.stages(model):
                data = Measurements.of(selected, stage, geometry)
                bands = _bands(data)
                perfect = {
                    band: (perfect_mape(data.frame[of_band]), attainable_mape(data.frame[of_band]))
                    for band, of_band in bands.items()
                }
                for way in held_out:
                    splits = list(_folds(way, data, folds))
                    for name in (*latency_models, MEDIAN) if way == "repeat" else latency_models:
                        errors, tested = _errors(name, data, splits)
                        for band, of_band in bands.items():
                            own = errors[of_band[tested]]
                            if band == ALL or len(own):
                                mape = float(np.mean(own)) if len(own) else float("nan")
                                rows.append((model, executor, stage, way, band, name, mape, len(own), *perfect[band]))
    batch = ["model", "executor", "stage", "held_out", "images"]
    return pd.DataFrame(rows, columns=[*batch, "latency_model", "mape", "tested", "perfect", "attainable"])


def _bands(data: Measurements) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows are of so many images."""
    images = np.array([sum(n for _, n in composition) for composition in data.compositions])
    bands = {ALL: np.ones(len(images), dtype=bool)}
    for least, most in BANDS:
        name = f"{least}+" if most is None else str(least) if least == most else f"{least}-{most}"
        bands[name] = (images >= least) & (images <= (np.inf if most is None else most))
    return bands


def _errors(name: str, data: Measurements, splits: list[Fold]) -> tuple[Floats, npt.NDArray[np.intp]]:
    """The absolute relative errors of the rows that were tested, and which rows these are."""
    errors, rows = [np.empty(0)], [np.empty(0, dtype=np.intp)]
    for train, test in splits:
        if name == MEDIAN:
            known = data.frame.iloc[train].assign(per_step=data.per_step[train])
            medians = known.groupby(SAME)["per_step"].median()
            keys = pd.MultiIndex.from_frame(data.frame.iloc[test][SAME])
            predicted = medians.reindex(keys).to_numpy()
        else:
            predicted = fitted(name, data.matrix[train], data.per_step[train]).predict(data.matrix[test])
        errors.append(np.abs(predicted / data.per_step[test] - 1))
        rows.append(test)
    return np.concatenate(errors), np.concatenate(rows)


def _folds(way: str, data: Measurements, folds: int) -> Iterator[Fold]:
    if way == "composition":
        groups = data.frame["composition"]
        if (count := min(folds, groups.nunique())) > 1:
            yield from GroupKFold(count).split(data.matrix, groups=groups)
    elif way == "size":
        for size in data.features.sizes:
            has = np.array([any(size == s for s, _ in c) for c in data.compositions])
            if not has.all():
                yield np.flatnonzero(~has), np.flatnonzero(has)
    elif way == "nothing":
        yield np.arange(len(data.frame)), np.arange(len(data.frame))
    else:
        batches = data.frame.groupby(SAME)["seconds"]
        order, repeats = batches.cumcount().to_numpy(), batches.transform("size").to_numpy()
        for fold in range(folds):
            test = (order % folds == fold) & (repeats > 1)
            if test.any():
                yield np.flatnonzero(~test), np.flatnonzero(test)
