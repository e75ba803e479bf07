"""The reuse model gives back the signals it was fitted on, for requests nobody recorded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from predictors.costs import Batch
from predictors.expected import ExpectedReuse
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from predictors.recording import PatchGrid, Recording
from predictors.reuse import ReuseModel, rows_of
from tests.predictors.recordings import BLOCKS, STEPS, made_up, mean_log_change
from traces.composition import composition_of
from traces.errors import BadInput
from traces.request import Request

SIZE = (96, 96, 1)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return made_up(40)


@pytest.fixture(scope="module")
def model(recording: Recording) -> ReuseModel:
    return ReuseModel.fit(recording)


def log_changes(model: ReuseModel, block: int, step: int, age: int, steps: int = STEPS) -> np.ndarray:
    """[draws, units]"""
    tracks = [model.track(SIZE, steps, 2, True, draw) for draw in range(model.draws)]
    return np.log10([track.input_change(block, step, np.full(track.units, age)) for track in tracks])


@pytest.mark.parametrize(("block", "step", "age"), [(0, 2, 1), (2, 5, 3), (4, 9, 4)])
def test_typical_changes_are_the_recorded_ones(model: ReuseModel, block: int, step: int, age: int) -> None:
    typical = float(mean_log_change(block, np.array(step), np.array(age)))
    assert log_changes(model, block, step, age).mean() == pytest.approx(typical, abs=0.12)


def test_requests_and_units_differ_as_the_recorded_ones_do(model: ReuseModel, recording: Recording) -> None:
    rows = recording.frame.query("height == 96")
    typical = np.concatenate(
        [mean_log_change(b, of["step"].to_numpy(), of["age"].to_numpy()) for b, of in rows.groupby("block")]
    )
    lively = rows.sort_values("block", kind="stable").assign(by=lambda f: np.log10(f["input_change"]) - typical)
    by_unit = lively.groupby(["request_id", "unit"])["by"].mean().unstack()
    changes = np.mean([log_changes(model, block, 5, 2) for block in range(BLOCKS)], axis=0)
    assert changes.mean(axis=1).std() == pytest.approx(by_unit.mean(axis=1).std(ddof=0), rel=0.1)
    assert changes.std(axis=1).mean() == pytest.approx(by_unit.std(axis=1, ddof=0).mean(), rel=0.1)


def test_ages_and_steps_are_shares_of_the_run(model: ReuseModel) -> None:
    for steps, step, age in ((20, 10, 6), (50, 30, 10), (5, 3, 1)):
        typical = float(mean_log_change(1, np.array(step), np.array(age), steps))
        assert log_changes(model, 1, step, age, steps).mean() == pytest.approx(typical, abs=0.15)


def test_change_grows_with_age_beyond_the_recorded_ones(model: ReuseModel) -> None:
    track = model.track(SIZE, STEPS, 2, True, 0)
    changes = np.array([track.input_change(0, 8, np.full(track.units, age)) for age in range(9)])
    assert (changes[0] == 0).all()
    assert (np.diff(changes, axis=0) > 0).all()
    assert np.log10(changes[8] / changes[4]).mean() == pytest.approx(2 * np.log10(2), abs=0.1)


def test_only_blocks_with_skips_have_skip_changes(model: ReuseModel) -> None:
    track = model.track(SIZE, STEPS, 2, True, 0)
    old = np.full(track.units, 2)
    assert [bool(track.skip_change(block, 4, old).any()) for block in range(BLOCKS)] == [False] * 3 + [True] * 2


def test_equal_draws_give_equal_signals_and_others_do_not(model: ReuseModel) -> None:
    assert np.array_equal(log_changes(model, 1, 4, 1), log_changes(model, 1, 4, 1))
    assert len(np.unique(log_changes(model, 1, 4, 1).round(9), axis=0)) == model.draws
    names = [f"r{i}" for i in range(400)]
    draws = [model.draw_of(name) for name in names]
    assert draws == [model.draw_of(name) for name in names]
    assert draws != [model.draw_of(name, seed=1) for name in names]
    assert len(set(draws)) == model.draws


def test_units_are_patches_of_rows(model: ReuseModel) -> None:
    for request in (Request("a", 0.0, 96, 128, 4), Request("a", 0.0, 80, 128, 4, images=3, guidance_scale=1.0)):
        track = model.track(request.size, request.steps, rows_of(request), request.guided, 1)
        assert track.units == request.images * (2 if request.guided else 1) * (12 if request.height == 96 else 4)
        assert track.blocks == BLOCKS
    assert model.grid.of(80, 128) == (1, 4)  # 80 and 32 share only 16, which is below the floor
    assert PatchGrid(64, 16).of(96, 80) == (3, 5)


def test_larger_units_change_like_what_lies_in_them(model: ReuseModel, recording: Recording) -> None:
    whole = ReuseModel.fit(recording, patch=0)
    for size in (SIZE, (128, 64, 1)):
        fine, coarse = model.track(size, STEPS, 2, True, 3), whole.track(size, STEPS, 2, True, 3)
        assert coarse.units == 2
        assert fine.units == 2 * (9 if size == SIZE else 8)
        by_row = [
            np.mean(
                [np.log10(track.input_change(b, s, np.full(track.units, 2))) for b in range(BLOCKS) for s in (3, 5, 7)],
                axis=0,
            ).reshape(2, -1).mean(axis=1)
            for track in (fine, coarse)
        ]  # fmt: skip
        assert by_row[1] == pytest.approx(by_row[0], abs=0.05)
    half = ReuseModel.fit(recording, patch=64)
    assert half.track((128, 64, 1), STEPS, 1, False, 0).units == 2


def test_a_request_takes_after_a_recorded_one_of_its_size() -> None:
    wild = made_up(4, sizes=((64, 64),), seed=1).frame
    calm = made_up(4, sizes=((128, 128),), seed=2).frame.assign(request_id=lambda f: "c" + f["request_id"])
    calm[["input_change", "output_change"]] *= 0.01
    both = Recording(pd.concat([wild, calm]), made_up(2).metadata)
    model = ReuseModel.fit(both)
    lively = {}
    for side in (64, 160):
        tracks = [model.track((side, side, 1), STEPS, 2, True, draw) for draw in range(8)]
        lively[side] = np.mean([track.input_change(0, 5, np.ones(track.units, dtype=int)) for track in tracks])
    assert lively[64] > 20 * lively[160]


def test_what_is_below_a_threshold_agrees_with_requests_it_did_not_see(recording: Recording) -> None:
    seen, unseen = recording.split(0.5)
    model = ReuseModel.fit(seen)
    rows = unseen.frame[(unseen.frame["step"] == 6) & (unseen.frame["age"] == 2) & (unseen.frame["block"] == 1)]
    modelled = 10 ** log_changes(model, 1, 6, 2)
    for threshold in np.quantile(rows["input_change"], [0.25, 0.5, 0.75]):
        assert (modelled < threshold).mean() == pytest.approx((rows["input_change"] < threshold).mean(), abs=0.12)


def test_a_thinned_recording_gives_nearly_the_same_model(model: ReuseModel, recording: Recording) -> None:
    full, thin = model, ReuseModel.fit(recording.thinned(6))
    assert abs(full.input_curve - thin.input_curve).mean() < 0.05
    assert full.content_hash != thin.content_hash == ReuseModel.fit(recording.thinned(6)).content_hash


def test_a_recording_of_one_age_is_refused() -> None:
    recording = made_up(2)
    with pytest.raises(BadInput, match="only age 1"):
        ReuseModel.fit(Recording(recording.frame[recording.frame["age"] == 1], recording.metadata))


def test_a_predictor_that_expects_reuse(made_up: Profile) -> None:
    table = LatencyModel.fit(made_up, "sd3")
    small, large = (512, 512, 1), (1024, 1024, 1)
    expecting = ExpectedReuse(table, {small: 0.5, large: 0.75})
    alone, both = composition_of([(small, 2)]), composition_of([(small, 4), (large, 1)])
    assert expecting.step_s("denoise", Batch("sd3", alone)) == table.step_s(
        "denoise", Batch("sd3", alone, 1.0, computed=0.5)
    )
    assert expecting.share(both) == pytest.approx(0.625)
    assert expecting.step_s("denoise", Batch("sd3", both, 0.5)) == table.step_s(
        "denoise", Batch("sd3", both, 0.5, computed=0.625)
    )
    assert expecting.step_s("decode", Batch("sd3", alone)) == table.step_s("decode", Batch("sd3", alone))
    assert expecting.share(composition_of([((768, 768, 1), 1)])) == pytest.approx(0.625)
    request = Request("a", 0.0, 512, 512, 10)
    one = composition_of([(small, 1)])
    saved = 10 * (
        table.step_s("denoise", Batch("sd3", one)) - table.step_s("denoise", Batch("sd3", one, 1.0, computed=0.5))
    )
    assert saved > 0
    assert table.standalone_s(request) - expecting.standalone_s(request) == pytest.approx(saved)
