"""Fitting a cache forest with scikit-learn, and how good it is on requests it did not see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from predictors.forest import SMALLEST_CHANGE, Floats, Forest, features
from predictors.recording import Recording


def fit_forest(recording: Recording, trees: int = 8, leaves: int = 24, depth: int = 6, seed: int = 0) -> Forest:
    """One small forest a block: changes and age -> logarithm of the output change.

    Small, because a step of a model has milliseconds and asks before every block.
    """
    parts: list[list[np.ndarray]] = []
    start = 0
    for number in range(recording.blocks):
        rows = recording.frame[recording.frame["block"] == number]
        target = np.log10(np.maximum(rows["output_change"].to_numpy(np.float64), SMALLEST_CHANGE))
        few = min(20, max(1, len(rows) // 50))
        model = RandomForestRegressor(
            trees, max_depth=depth, max_leaf_nodes=leaves, min_samples_leaf=few, random_state=seed
        )
        fitted = model.fit(_features(rows), target)
        for index, estimator in enumerate(fitted.estimators_):
            nodes = _siblings_together(estimator.tree_, start)
            parts.append([np.full(len(nodes[0]), number), np.full(len(nodes[0]), index), *nodes])
            start += len(nodes[0])
    block, tree, left, column, threshold, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    facts = {
        "model": recording.model,
        "fitted_from": f"{len(recording.frame)} rows of {len(recording.requests)} requests, {recording.steps} steps",
        "patch": recording.metadata["patch"],
        "trees": str(trees),
    }
    return Forest.of_nodes(
        block=block, tree=tree, left=left, column=column, threshold=threshold, value=value, metadata=facts
    )


def predicted(forest: Forest, recording: Recording) -> Floats:
    """The output change the forest expects for each row of a recording."""
    result = np.empty(len(recording.frame))
    for block in range(recording.blocks):
        here = (recording.frame["block"] == block).to_numpy()
        result[here] = forest.output_change(block, _features(recording.frame[here]))
    return result


def trade_off(forest: Forest, held_out: Recording, thresholds: Sequence[float]) -> pd.DataFrame:
    """How a forest's answers compare with the truth of requests it did not see.

    Returns:
        One row a threshold: ``possible`` (share of units whose output changed less), ``reused`` (share the forest
        would reuse), ``violations`` (share of the reused that changed more), ``accuracy`` (share answered rightly),
        ``constant`` (accuracy of always giving the more frequent answer), ``threshold_rule`` (accuracy of the best
        single threshold on the input change).
    """
    truth = held_out.frame["output_change"].to_numpy(np.float64)
    guess = predicted(forest, held_out)
    simple = np.maximum(held_out.frame["input_change"].to_numpy(), held_out.frame["skip_change"].to_numpy())
    cuts = np.quantile(simple, np.linspace(0, 1, 101))
    rows = []
    for threshold in thresholds:
        fine, reuse = truth < threshold, guess < threshold
        rows.append(
            (
                threshold,
                fine.mean(),
                reuse.mean(),
                (reuse & ~fine).sum() / max(1, reuse.sum()),
                (reuse == fine).mean(),
                max(fine.mean(), 1 - fine.mean()),
                max(((simple < cut) == fine).mean() for cut in cuts),
            )
        )
    names = ["threshold", "possible", "reused", "violations", "accuracy", "constant", "threshold_rule"]
    return pd.DataFrame(rows, columns=names)


def _features(rows: pd.DataFrame) -> np.ndarray:
    names = ("step", "steps", "age", "input_change", "skip_change")
    return features(*(rows[name].to_numpy() for name in names))


def _siblings_together(tree: object, start: int) -> list[np.ndarray]:
    """Left child, column, threshold and value of a fitted tree's nodes, numbered from ``start`` level by level."""
    left, right = tree.children_left, tree.children_right  # type: ignore[attr-defined]
    order = [0]
    first_child = []
    for node in order:  # grows while it is walked: breadth first
        first_child.append(len(order))
        if left[node] >= 0:
            order += [left[node], right[node]]
    old = np.array(order)
    leaf = left[old] < 0
    index = np.arange(len(old))
    return [
        np.where(leaf, index, first_child) + start,
        np.where(leaf, 0, tree.feature[old]),  # type: ignore[attr-defined]
        np.where(leaf, 0.0, tree.threshold[old]),  # type: ignore[attr-defined]
        tree.value[old, 0, 0],  # type: ignore[attr-defined]
    ]
