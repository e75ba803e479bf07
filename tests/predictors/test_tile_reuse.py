"""Recordings of tile signals, and the model that gives them back for requests nobody recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from predictors.recording import Recording
from predictors.tile_recording import MAGNITUDES, TileRecording
from predictors.tile_reuse import TileReuse
from tests.predictors.recordings import made_up
from tests.predictors.tile_recordings import STEPS, made_up_tiles, speed
from traces.errors import BadInput

SIZE = (256, 384, 1)


@pytest.fixture(scope="module")
def recording() -> TileRecording:
    return made_up_tiles()


def test_a_recording_comes_back_from_its_file(recording: TileRecording, tmp_path: Path) -> None:
    recording.save(tmp_path / "tiles.parquet")
    again = TileRecording.load(tmp_path / "tiles.parquet")
    assert again.metadata == recording.metadata
    assert (again.model, again.latent_factor, again.steps, again.requests) == ("made-up", 8, STEPS, ["r0", "r1", "r2"])
    exact = [name for name in recording.frame if name not in MAGNITUDES]
    assert again.frame[exact].equals(recording.frame[exact])
    for name in MAGNITUDES:
        np.testing.assert_allclose(again.frame[name], recording.frame[name], rtol=0.002)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": 0}, "row 2 counting the header: step is 0, expected a whole number of at least 1"),
        ({"step": STEPS}, "expected a step below steps"),
        ({"age": STEPS - 1}, "expected an age of at most the step"),
        ({"down": 1.5}, "down is 1.5, expected a share from 0 to 1"),
        ({"input_shift": -1.0}, "input_shift is -1.0, expected a number of at least 0"),
        ({"output_shift": float("nan")}, "output_shift is nan"),
    ],
)
def test_wrong_rows_are_named(recording: TileRecording, change: dict[str, float], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        TileRecording(recording.frame.assign(**change), recording.metadata)  # type: ignore[arg-type]


def test_wrong_recordings_are_refused(recording: TileRecording, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="column 'age' is missing"):
        TileRecording(recording.frame.drop(columns="age"), recording.metadata)
    with pytest.raises(BadInput, match="names no model"):
        TileRecording(recording.frame, {"latent_factor": "8"})
    with pytest.raises(BadInput, match="latent_factor is 'x'"):
        TileRecording(recording.frame, {"model": "m", "latent_factor": "x"})
    two = recording.frame.assign(steps=np.where(recording.frame["request_id"] == "r0", 20, 30))
    with pytest.raises(BadInput, match=r"steps is \[20, 30\]"):
        TileRecording(two, recording.metadata)
    with pytest.raises(BadInput, match=r"no.parquet: no such recording"):
        TileRecording.load(tmp_path / "no.parquet")
    made_up(2).save(tmp_path / "patches.parquet")
    with pytest.raises(BadInput, match="not a recording of cache signals; 'tilecast cache record-tiles' writes one"):
        TileRecording.load(tmp_path / "patches.parquet")
    recording.save(tmp_path / "tiles.parquet")
    with pytest.raises(BadInput, match="'tilecast cache record' writes one"):
        Recording.load(tmp_path / "tiles.parquet")
    with pytest.raises(BadInput, match="only age 1"):
        TileReuse.fit(made_up_tiles(ages=1))


@pytest.mark.parametrize(
    ("steps", "step", "age"), [(STEPS, 5, 1), (STEPS, 11, 4), (STEPS, 9, 8), (36, 20, 6), (6, 4, 1)]
)
def test_magnitudes_are_the_recorded_ones_by_place_and_by_share_of_the_run(
    recording: TileRecording, steps: int, step: int, age: int
) -> None:
    track = TileReuse.fit(recording).track(SIZE, steps, draw=1)
    place = np.array([[0.25, 0.1], [0.75, 0.6]])
    now = track.magnitudes(step, place, np.array([age, 2 * age]))
    # A donor's tile lies within half a tile of any place, which is a quarter of the height here.
    for row, (down, _) in enumerate(place.tolist()):
        slowest, fastest = (speed(1, np.clip(down + by, 0, 1)) for by in (-0.26, 0.26))
        assert slowest < now.input_shift[row, 0] / (age * STEPS / steps) < fastest
    np.testing.assert_allclose(now.input_shift[:, 1], 2 * now.input_shift[:, 0], rtol=1e-6)
    np.testing.assert_allclose(now.output_shift, 1.5 * now.input_shift, rtol=1e-6)
    np.testing.assert_allclose(now.input_change, now.input_shift, rtol=1e-6)
    np.testing.assert_allclose(now.output_level, 4.0, rtol=1e-6)


def test_a_recorded_tile_gives_its_own_magnitudes(recording: TileRecording) -> None:
    track = TileReuse.fit(recording).track(SIZE, STEPS, draw=2)
    rows = recording.frame.query("request_id == 'r2' and step == 7 and age == 3")
    now = track.magnitudes(7, rows[["down", "across"]].to_numpy(float), np.array([3]))
    np.testing.assert_allclose(now.input_shift[:, 0], rows["input_shift"], rtol=1e-6)


def test_draws_are_donors_of_the_nearest_size() -> None:
    small, large = made_up_tiles(2), made_up_tiles(3, (512, 384))
    frame = large.frame.assign(request_id="large-" + large.frame["request_id"].astype(str))
    both = TileRecording(pd.concat([small.frame, frame], ignore_index=True), small.metadata)
    model = TileReuse.fit(both)
    assert model.draws == 5
    sizes = {model.track((480, 384, 1), STEPS, draw)._donor.size for draw in range(5)}
    assert sizes == {(512, 384, 1)}
    names = [f"q{i}" for i in range(40)]
    assert {model.draw_of(name) for name in names} == set(range(5))
    assert [model.draw_of(name, 1) for name in names] != [model.draw_of(name) for name in names]


def test_tiles_that_come_and_go_are_no_obstacle() -> None:
    """In ``clamp`` mode the last row and column of tiles are missing at some steps, the first at step 0."""
    track = TileReuse.fit(made_up_tiles(mode="clamp")).track(SIZE, STEPS, draw=0)
    for step in range(STEPS):
        now = track.magnitudes(step, np.array([[0.01, 0.01], [0.99, 0.99]]), np.arange(1, 5))
        assert all(np.isfinite(of).all() for of in now)
        assert now.input_shift[0, 0] < now.input_shift[1, 0]
