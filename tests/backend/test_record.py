"""Recording signals: exact trajectories, drawn ages, and the truth of what reuse would have cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from backend.patched.record import COLUMNS, record_signals, relative_change  # noqa: E402
from traces.errors import BadInput  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def recording(model_folder: Path) -> pd.DataFrame:
    return record_signals(str(model_folder), [(16, 16, 1), (16, 32, 1)], requests=3, steps=6, patch=4, max_age=3)


def test_every_unit_of_every_block_is_recorded_from_the_second_step_on(recording: pd.DataFrame) -> None:
    assert list(recording.columns) == list(COLUMNS)
    assert sorted(recording["step"].unique()) == [1, 2, 3, 4, 5]
    units = recording.groupby("request_id")["unit"].nunique()
    assert units.to_dict() == {"r0": 8, "r1": 16, "r2": 8}  # both guidance rows, patches of 4x4 latent pixels
    assert (recording.groupby(["request_id", "unit", "step"]).size() == 5).all()
    assert (recording["blocks"] == 5).all()
    assert (recording["block_s"] > 0).all()


def test_ages_are_drawn_and_bounded_and_older_references_have_changed_more(recording: pd.DataFrame) -> None:
    assert sorted(recording["age"].unique()) == [1, 2, 3]
    assert (recording["age"] <= recording["step"]).all()
    change = recording[recording["step"] >= 3].groupby("age")[["input_change", "output_change"]].median()
    assert change["input_change"].is_monotonic_increasing
    assert change["output_change"].is_monotonic_increasing
    assert (recording.loc[recording["block"] < 2, "skip_change"] == 0).all()
    assert (recording.loc[recording["block"] >= 3, "skip_change"] > 0).all()


def test_the_same_seed_gives_the_same_recording(recording: pd.DataFrame, model_folder: Path) -> None:
    again = record_signals(str(model_folder), [(16, 16, 1), (16, 32, 1)], requests=3, steps=6, patch=4, max_age=3)
    pd.testing.assert_frame_equal(recording.drop(columns="block_s"), again.drop(columns="block_s"))


def test_relative_change_by_hand() -> None:
    old = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 2.0]]]])
    np.testing.assert_allclose(relative_change(old + 1, old), [1 / 5, 1 / 4])


def test_a_size_the_model_cannot_make_is_named(model_folder: Path) -> None:
    with pytest.raises(BadInput, match="height 17 is not a multiple"):
        record_signals(str(model_folder), [(17, 16, 1)], requests=1, steps=2)
