"""How wrong the latency models are, on measurements they did not see.

Three questions, three ways to hold measurements out:

- ``composition``: an unmeasured mix of measured sizes (`GroupKFold` by composition).
- ``size``: an unmeasured size; every composition that contains it is held out. The honest test of
  extrapolation.
- ``repeat``: the same batch again. Here the median of its other repeats competes, which bounds what
  memorising the measurements could gain over a smooth model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import GroupKFold

from predictors.latency import LATENCY_MODELS, Floats, fitted
from predictors.measurements import Measurements
from predictors.noise import perfect_mape
from predictors.profile import SAME, Profile
from traces.geometry import GEOMETRIES, ModelGeometry, geometry_of

HELD_OUT = ("composition", "size", "repeat")
MEDIAN = "median of repeats"

Fold = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Rows to fit on, rows to test on."""


def evaluate(
    profile: Profile,
    latency_models: Iterable[str] = tuple(LATENCY_MODELS),
    held_out: Iterable[str] = HELD_OUT,
    folds: int = 5,
    geometries: Mapping[str, ModelGeometry] = GEOMETRIES,
) -> pd.DataFrame:
    """Cross-validated error of each latency model.

    Returns:
        One row a model, executor, stage, way of holding out and latency model: ``mape`` (mean absolute
        percentage error over the held-out rows as a fraction; NaN where the profile is too small), ``tested``
        (how many), ``perfect`` (what a perfect predictor would show, see `predictors.noise.perfect_mape`).

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
                perfect = perfect_mape(data.frame)
                for way in held_out:
                    splits = list(_folds(way, data, folds))
                    for name in (*latency_models, MEDIAN) if way == "repeat" else latency_models:
                        errors = _errors(name, data, splits)
                        mape = float(np.mean(errors)) if len(errors) else float("nan")
                        rows.append((model, executor, stage, way, name, mape, len(errors), perfect))
    batch = ["model", "executor", "stage"]
    return pd.DataFrame(rows, columns=[*batch, "held_out", "latency_model", "mape", "tested", "perfect"])


def _errors(name: str, data: Measurements, splits: list[Fold]) -> Floats:
    errors = [np.empty(0)]
    for train, test in splits:
        if name == MEDIAN:
            known = data.frame.iloc[train].assign(per_step=data.per_step[train])
            medians = known.groupby(SAME)["per_step"].median()
            keys = pd.MultiIndex.from_frame(data.frame.iloc[test][SAME])
            predicted = medians.reindex(keys).to_numpy()
        else:
            predicted = fitted(name, data.matrix[train], data.per_step[train]).predict(data.matrix[test])
        errors.append(np.abs(predicted / data.per_step[test] - 1))
    return np.concatenate(errors)


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
    else:
        batches = data.frame.groupby(SAME)["seconds"]
        order, repeats = batches.cumcount().to_numpy(), batches.transform("size").to_numpy()
        for fold in range(folds):
            test = (order % folds == fold) & (repeats > 1)
            if test.any():
                yield np.flatnonzero(~test), np.flatnonzero(test)
