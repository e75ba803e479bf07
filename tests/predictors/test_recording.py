"""Recordings of cache signals: checked, split by request, thinned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predictors.recording import RECORDING, Recording
from tests.predictors.recordings import BLOCKS, STEPS, made_up
from traces.errors import BadInput


@pytest.fixture(scope="module")
def recording() -> Recording:
    return made_up(6)


def test_it_comes_back_from_its_file(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "r.parquet")
    again = Recording.load(tmp_path / "r.parquet")
    pd.testing.assert_frame_equal(again.frame, recording.frame)
    assert again.metadata == recording.metadata
    assert again.block_weights == pytest.approx([(1 + block) / 15 for block in range(BLOCKS)])
    assert (again.blocks, again.steps, again.model) == (BLOCKS, STEPS, "made-up")


def test_a_split_shares_no_request_and_loses_none(recording: Recording) -> None:
    left, right = recording.split(0.3, seed=1)
    assert len(right.requests) == 2
    assert sorted(left.requests + right.requests) == recording.requests
    assert len(left.frame) + len(right.frame) == len(recording.frame)


def test_thinning_keeps_whole_units_and_rounds_a_little(recording: Recording, tmp_path: Path) -> None:
    thin = recording.thinned(4)
    assert thin.frame.groupby("request_id")["unit"].nunique().tolist() == [4] * 6
    key = ["request_id", "unit", "block", "step"]
    both = thin.frame.merge(recording.frame, on=key, suffixes=("", "_before"))
    assert len(both) == len(thin.frame) == 6 * 4 * BLOCKS * (STEPS - 1)
    for name in ("input_change", "skip_change", "output_change"):
        np.testing.assert_allclose(both[name], both[name + "_before"], rtol=2e-3)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("step", 10, "row 2 counting the header: step is 10, expected a step below steps"),
        ("age", 9, "row 2 counting the header: age is 9, expected an age of at most the step"),
        ("block", -1, "row 2 counting the header: block is -1, expected a whole number of at least 0"),
        ("input_change", float("inf"), "row 2 counting the header: input_change is inf, expected a number"),
        ("blocks", 7, "blocks is .*expected one value a recording"),
    ],
)
def test_wrong_rows_are_named(recording: Recording, column: str, value: float, complaint: str) -> None:
    frame = recording.frame.copy()
    frame.loc[0, column] = value
    with pytest.raises(BadInput, match=complaint):
        Recording(frame, recording.metadata)


def test_other_files_are_refused(recording: Recording, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such recording"):
        Recording.load(tmp_path / "r.parquet")
    recording.frame.to_parquet(tmp_path / "r.parquet")
    with pytest.raises(BadInput, match="not a recording of cache signals"):
        Recording.load(tmp_path / "r.parquet")
    table = pa.table({"age": [1]}).replace_schema_metadata({RECORDING.key: b"[1, 2]"})
    pq.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(BadInput, match="not a recording of cache signals"):
        Recording.load(tmp_path / "r.parquet")
    with pytest.raises(BadInput, match="names no patch"):
        Recording(recording.frame, {"model": "m"})
    with pytest.raises(BadInput, match="column 'age' is missing"):
        Recording(recording.frame.drop(columns="age"), recording.metadata)
