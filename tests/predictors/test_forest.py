"""The cache forest: the same answers as scikit-learn's, from a table of nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import RandomForestRegressor

from predictors.forest import FEATURES, Forest
from predictors.forest_fit import _siblings_together, fit_forest, predicted, trade_off
from predictors.recording import Recording
from tests.predictors.recordings import BLOCKS, made_up
from traces.errors import BadInput


@pytest.fixture(scope="module")
def parts() -> tuple[Recording, Recording]:
    return made_up(16).split(0.25)


@pytest.fixture(scope="module")
def forest(parts: tuple[Recording, Recording]) -> Forest:
    return fit_forest(parts[0])


def test_the_walk_gives_what_scikit_learn_gives() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, len(FEATURES))).astype(np.float32)
    y = x[:, 0] + np.sin(3 * x[:, 2]) + 0.1 * rng.normal(size=400)
    estimator = RandomForestRegressor(5, max_depth=7, random_state=2).fit(x, y)
    nodes: list[list[np.ndarray]] = []
    for number, tree in enumerate(estimator.estimators_):
        of_tree = _siblings_together(tree.tree_, sum(len(part[0]) for part in nodes))
        nodes.append([np.zeros(len(of_tree[0]), dtype=int), np.full(len(of_tree[0]), number), *of_tree])
    ours = Forest.of_nodes(*(np.concatenate(column) for column in zip(*nodes, strict=True)), metadata={})
    unseen = rng.normal(size=(500, len(FEATURES))).astype(np.float32)
    np.testing.assert_allclose(np.log10(ours.output_change(0, unseen)), estimator.predict(unseen), atol=1e-12)


def test_a_forest_comes_back_from_its_file(forest: Forest, parts: tuple[Recording, Recording], tmp_path: Path) -> None:
    forest.save(tmp_path / "f.parquet")
    again = Forest.load(tmp_path / "f.parquet")
    assert np.array_equal(predicted(again, parts[1]), predicted(forest, parts[1]))
    assert again.metadata == forest.metadata
    assert again.blocks == BLOCKS


def test_it_predicts_requests_it_did_not_see(forest: Forest, parts: tuple[Recording, Recording]) -> None:
    truth = np.log10(parts[1].frame["output_change"].to_numpy())
    error = np.abs(np.log10(predicted(forest, parts[1])) - truth)
    assert np.median(error) < 0.15  # the made-up truth is noisy by 0.1 in log10
    table = trade_off(forest, parts[1], [0.03, 0.1]).set_index("threshold")
    assert (table["accuracy"] > 0.9).all()
    assert (table["accuracy"] > table["constant"]).all()
    assert (table["violations"] < 0.15).all()


def test_a_looser_threshold_reuses_more(forest: Forest, parts: tuple[Recording, Recording]) -> None:
    assert trade_off(forest, parts[1], np.geomspace(0.001, 1, 9))["reused"].is_monotonic_increasing


def test_the_same_recording_in_another_order_gives_the_same_forest(parts: tuple[Recording, Recording]) -> None:
    shuffled = Recording(parts[0].frame.sample(frac=1, random_state=0), parts[0].metadata)
    assert np.array_equal(predicted(fit_forest(shuffled), parts[1]), predicted(fit_forest(parts[0]), parts[1]))


@pytest.mark.parametrize("fault", ["text", "profile", "loop", "column", "missing"])
def test_files_that_are_no_forest_are_refused(forest: Forest, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "f.parquet"
    forest.save(path)
    table = pq.read_table(path)
    nodes = table.to_pandas()
    if fault == "text":
        path.write_text("no")
    elif fault == "profile":
        pd.DataFrame({"a": [1]}).to_parquet(path)
    elif fault == "missing":
        path.unlink()
    else:
        nodes.loc[5, {"loop": "left", "column": "column"}[fault]] = {"loop": 0, "column": 99}[fault]
        changed = type(table).from_pandas(nodes, preserve_index=False).replace_schema_metadata(table.schema.metadata)
        pq.write_table(changed, path)
    with pytest.raises(BadInput, match="cache forest"):
        Forest.load(path)
