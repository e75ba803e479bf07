"""Cross-validation: nothing that is tested was fitted on, and the published figures are what we say."""

from __future__ import annotations

import numpy as np
import pytest

from predictors.evaluate import ALL, HELD_OUT, _folds, evaluate
from predictors.measurements import Measurements
from predictors.profile import Profile
from traces.errors import BadInput
from traces.geometry import geometry_of


@pytest.mark.parametrize("way", HELD_OUT)
def test_folds_hold_out_what_they_say(made_up: Profile, way: str) -> None:
    data = Measurements.of(made_up.select("sd3", "patched"), "denoise", geometry_of("sd3"))
    folds = list(_folds(way, data, 5))
    assert folds
    for train, test in folds:
        assert len(train)
        assert len(test)
        assert not set(train) & set(test)
        fitted_on = {data.compositions[row] for row in train}
        tested = {data.compositions[row] for row in test}
        if way == "composition":
            assert not fitted_on & tested
        elif way == "size":
            shared = set.intersection(*({size for size, _ in c} for c in tested))
            assert not any(size in shared for c in fitted_on for size, _ in c)
        else:
            assert tested <= fitted_on


def test_one_row_a_question(made_up: Profile) -> None:
    by_images = evaluate(made_up, ["linear"])
    errors = by_images[by_images["images"] == ALL]
    assert len(errors) == 4 * (1 + 1 + 2)  # whole has three stages, patched one
    assert (errors["mape"] < 0.3).all()
    by_composition = errors[(errors["held_out"] == "composition") & (errors["latency_model"] == "linear")]
    assert (by_composition["mape"] < 0.05).all()  # 3 % noise
    assert (errors["perfect"] < 0.04).all()
    assert evaluate(made_up, ["linear"]).equals(by_images)


def test_errors_by_images_are_those_of_all(made_up: Profile) -> None:
    errors = evaluate(made_up, ["linear"], ["composition", "nothing"])
    for _, rows in errors.groupby(["executor", "stage", "held_out"]):
        of = rows.set_index("images")
        bands = of.loc[["1", "2-4", "5+"]]
        assert bands["tested"].sum() == of.loc[ALL, "tested"]
        assert (bands["mape"] * bands["tested"]).sum() == pytest.approx(of.loc[ALL, "mape"] * of.loc[ALL, "tested"])
    whole = errors[(errors["executor"] == "whole") & (errors["stage"] == "denoise")].set_index(["held_out", "images"])
    assert whole.loc[("composition", "1"), "tested"] == 4  # two sizes, two repeats
    assert whole.loc[("nothing", ALL), "mape"] < whole.loc[("composition", ALL), "mape"]


def test_what_cannot_be_held_out_is_nan(made_up: Profile) -> None:
    errors = evaluate(Profile(made_up.frame.iloc[:1]), ["linear"])
    assert errors["tested"].tolist() == [0, 0, 0, 0]
    assert np.isnan(errors["mape"]).all()


def test_an_unknown_geometry_is_named(made_up: Profile) -> None:
    with pytest.raises(BadInput, match="unknown model 'mine'"):
        evaluate(Profile(made_up.frame.assign(model="mine")))


def test_published_figures(published: Profile) -> None:
    models = ["linear", "boosted", "floor-gaussian"]
    errors = evaluate(published.select(executor="patched"), models, ["composition", "repeat"])
    errors = errors[errors["images"] == ALL]
    mape = errors.set_index(["model", "executor", "stage", "held_out", "latency_model"])["mape"]
    assert mape["sd3", "patched", "denoise", "composition", "linear"] < 0.025
    assert mape["sd3", "patched", "denoise", "composition", "boosted"] < 0.024
    assert mape["sdxl", "patched", "denoise", "composition", "boosted"] < 0.100
    perfect = errors.set_index("model")["perfect"]
    assert mape["sd3", "patched", "denoise", "composition", "floor-gaussian"] < 0.95 * perfect["sd3"].iloc[0]
    assert mape["sdxl", "patched", "denoise", "composition", "boosted"] < 1.28 * perfect["sdxl"].iloc[0]
    for model in published.models:  # why LatencyModel needs no median of repeats
        way = (model, "patched", "denoise", "repeat")
        assert mape[*way, "floor-gaussian"] < 0.95 * mape[*way, "median of repeats"]
