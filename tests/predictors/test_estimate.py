"""Tables without measurements, and calibrated by a few."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from predictors.basis import CALIBRATED, ESTIMATED, MEASURED
from predictors.costs import Batch
from predictors.estimate import RooflineCost, estimated_table
from predictors.hardware import find_hardware
from predictors.latency_model import LatencyModel, check_supported
from predictors.profile import Profile
from traces.composition import composition_of, format_composition, parse
from traces.errors import BadInput
from traces.request import Request
from traces.streams import stream

H100 = find_hardware("h100-sxm")
TEN = [f"{n}@{side}x{side}" for side in (512, 768) for n in (1, 2, 3, 5, 8)]


def table(profile: Profile | None = None, executor: str = "whole", model: str = "sdxl") -> LatencyModel:
    return estimated_table(model, H100, executor, calibration=profile)


def measured(compositions: list[str], executor: str = "whole", stages: tuple[str, ...] = ("denoise",)) -> Profile:
    """What a device would measure that reaches other shares of its peaks than is thought; 1 % noise."""
    draw = stream(0, "test")
    rows = []
    for stage in stages:
        roofline = cost(table(executor=executor), stage).roofline
        rates = roofline.rates
        compute = {kind: 0.6 * getattr(rates, kind) for kind in ("products", "convolutions", "attention")}
        real = replace(rates, **compute, memory=0.7 * rates.memory, launch=2 * rates.launch)
        true = RooflineCost(roofline.with_rates(real), 0.0)
        for text in compositions:
            seconds = 10 * true.of(parse(text), 1.0, 1.0, False) * draw.normal(1, 0.01)
            rows.append(
                {"stage": stage, "composition": format_composition(parse(text)), "steps": 10, "seconds": seconds}
            )
    facts = {"hardware": "a fast one", "software": "test", "model": "sdxl", "executor": executor, "guided": True}
    return Profile.from_frame(pd.DataFrame(rows).assign(**facts), {})


def cost(of: LatencyModel, stage: str = "denoise") -> RooflineCost:
    found = of.costs[stage]
    assert isinstance(found, RooflineCost)
    return found


@pytest.mark.parametrize(("hardware", "most"), [("h100-sxm", 0.75), ("b200", 0.5)])
def test_measurements_would_narrow_an_estimate_and_more_of_them_more(hardware: str, most: float) -> None:
    cost = estimated_table("sdxl", find_hardware(hardware)).costs["denoise"]
    assert isinstance(cost, RooflineCost)
    batches = [composition_of([((side, side, 1), images)]) for images in (1, 2, 4, 8) for side in (512, 768, 1024)]
    three, ten = cost.log_sd_if_measured(batches[:3]), cost.log_sd_if_measured(batches[:10])
    assert ten < three < cost.log_sd
    assert ten < most * cost.log_sd


def test_an_estimate_is_a_latency_table_without_a_measured_range() -> None:
    estimated = table()
    request = Request("r", 0, 1024, 1024, 30)
    alone = parse("1@1024x1024")
    each = [estimated.step_s(stage, Batch("sd3", alone)) for stage in ("encode", "denoise", "decode")]
    assert min(each) > 0
    assert estimated.standalone_s(request) == pytest.approx(each[0] + 30 * each[1] + each[2])
    assert estimated.basis == ESTIMATED
    assert set(estimated.bases.values()) == {ESTIMATED}
    assert estimated.unmeasured_stages == ()
    assert not estimated.extrapolates("denoise", parse("9@4096x4096"))
    check_supported(estimated, [(8192, 8192, 1)])
    assert estimated.noise("denoise").ratios == (1.0,)
    assert estimated.scaled(1.5).step_s("denoise", Batch("sd3", alone)) == pytest.approx(1.5 * each[1])
    assert estimated.hardware == H100.name
    estimated.tabulate([(512, 512, 1)], 2)
    assert pickle.loads(pickle.dumps(estimated)).step_s("denoise", Batch("sd3", alone)) == each[1]


def test_a_shifted_table_is_off_in_every_stage_by_so_many_of_its_standard_deviations() -> None:
    partly = table(measured(TEN))
    assert 0 < partly.log_sds["denoise"] < partly.log_sds["decode"] == table().log_sds["decode"]
    assert partly.shifted(0) is partly
    for z in (-1.2816, 0.5):
        shifted = partly.shifted(z)
        for stage, log_sd in partly.log_sds.items():
            batch = Batch("sdxl", parse("2@512x512"))
            ratio = shifted.step_s(stage, batch) / partly.step_s(stage, batch)
            assert ratio == pytest.approx(np.exp(z * log_sd))
        assert shifted.content_hash != partly.content_hash
        assert shifted.shifted(-z).content_hash == partly.content_hash
    with pytest.raises(BadInput, match="expected a finite number"):
        partly.shifted(float("nan"))


def test_whole_images_of_several_sizes_take_turns_and_packed_ones_do_not() -> None:
    both, each = parse("1@512x512+1@768x768"), [parse("1@512x512"), parse("1@768x768")]
    whole, packed = table(executor="whole"), table(executor="packed")
    assert whole.step_s("denoise", Batch("sd3", both)) == pytest.approx(
        sum(whole.step_s("denoise", Batch("sd3", c)) for c in each)
    )
    assert packed.step_s("denoise", Batch("sd3", both)) < sum(packed.step_s("denoise", Batch("sd3", c)) for c in each)
    assert packed.stage_executors == {"encode": "whole", "denoise": "packed", "decode": "whole"}


def test_the_content_hash_follows_everything_that_decides() -> None:
    tables = [
        table(),
        table(executor="patched"),
        table(model="sd3"),
        table(measured(TEN)),
        estimated_table("sdxl", H100, dtype="float32"),
        estimated_table("sdxl", find_hardware("l40s")),
    ]
    assert len({t.content_hash for t in tables}) == len(tables)
    assert table().content_hash == table().content_hash


@pytest.mark.parametrize("executor", ["whole", "patched", "packed"])
def test_ten_measurements_find_the_device(executor: str) -> None:
    calibrated = table(measured(TEN, executor), executor)
    unseen = ["1@1024x1024", "4@1024x1024", "6@512x512", "2@768x1024"]
    truth = measured(unseen, executor).frame.set_index("composition")["seconds"] / 10
    for text in unseen:
        assert calibrated.step_s("denoise", Batch("sd3", parse(text))) == pytest.approx(
            truth[format_composition(parse(text))], rel=0.05
        )
        assert table(executor=executor).step_s("denoise", Batch("sd3", parse(text))) != pytest.approx(
            truth[text], rel=0.2
        )


def test_its_label_range_and_noise_are_those_of_its_measurements() -> None:
    calibrated = table(measured(TEN))
    assert calibrated.basis == CALIBRATED
    assert calibrated.bases == {"encode": ESTIMATED, "denoise": CALIBRATED, "decode": ESTIMATED}
    assert calibrated.extrapolation("denoise", parse("3@512x512")) == 1.0
    assert calibrated.extrapolation("denoise", parse("1@1024x1024")) == pytest.approx(16 / 9)
    assert len(calibrated.noise("denoise").ratios) == 10
    assert np.std(calibrated.noise("denoise").ratios) < 0.03
    with pytest.raises(BadInput, match=r"size 4096x4096 has 28\.4 times the tokens"):
        check_supported(calibrated, [(4096, 4096, 1)])


def test_a_measurement_that_took_three_times_as_long_bends_it_little() -> None:
    profile = measured(TEN)
    frame = profile.frame.copy()
    frame.loc[3, "seconds"] *= 3
    straight, bent = table(profile), table(Profile(frame))
    for text in ("1@512x512", "8@512x512", "4@1024x1024"):
        assert bent.step_s("denoise", Batch("sd3", parse(text))) == pytest.approx(
            straight.step_s("denoise", Batch("sd3", parse(text))), rel=0.1
        )


def test_a_calibrated_roofline_says_which_of_its_measurements_it_misses() -> None:
    profile = measured(TEN)
    assert table(profile).misfits == []
    frame = profile.frame.copy()
    frame.loc[3, "seconds"] *= 3
    [said] = table(Profile(frame)).misfits
    assert said.startswith("denoise: the fit misses 1 of the 10 batches it was fitted to by more than noise")


def test_three_measurements_are_enough_and_two_are_not() -> None:
    three, two = table(measured(TEN[:3])), table(measured(TEN[:2]))
    assert (three.basis, two.basis) == (CALIBRATED, ESTIMATED)
    assert two.step_s("denoise", Batch("sd3", parse(TEN[0]))) == table().step_s("denoise", Batch("sd3", parse(TEN[0])))
    truth = measured(TEN[:1]).frame["seconds"].iat[0] / 10
    assert three.step_s("denoise", Batch("sd3", parse(TEN[0]))) == pytest.approx(truth, rel=0.05)


def test_decode_measured_whole_calibrates_a_patched_run() -> None:
    profile = Profile.merge([measured(TEN, "patched"), measured(TEN, "whole", ("decode",))])
    mixed = table(profile, "patched")
    assert mixed.bases == {"encode": ESTIMATED, "denoise": CALIBRATED, "decode": CALIBRATED}
    assert mixed.stage_executors["decode"] == "whole"
    assert table(profile, "whole").bases["denoise"] == ESTIMATED


def test_whole_measurements_calibrate_another_executor_with_a_wider_interval(published: Profile) -> None:
    sd3 = published.select("sd3")
    whole = sd3.select("sd3", "whole").frame
    ten = Profile(whole[whole["stage"] == "denoise"].iloc[::3])
    assert len(ten.frame) == 10
    borrowed, estimated = table(ten, "patched", "sd3"), table(None, "patched", "sd3")
    assert borrowed.bases["denoise"] == CALIBRATED
    assert table(ten, "whole", "sd3").log_sds["denoise"] < borrowed.log_sds["denoise"] < estimated.log_sds["denoise"]
    unseen = sd3.select("sd3", "patched").frame

    def logarithms(of: LatencyModel) -> np.ndarray:
        predicted = [of.step_s("denoise", Batch("sd3", parse(text))) for text in unseen["composition"]]
        return np.log(unseen["seconds"] / unseen["steps"] / predicted).to_numpy()

    assert np.abs(logarithms(borrowed)).mean() < 0.05 < 0.15 < np.abs(logarithms(estimated)).mean()
    assert (np.abs(logarithms(borrowed)) < 1.2816 * borrowed.log_sds["denoise"]).mean() > 0.8


def test_own_measurements_are_preferred_to_whole_ones() -> None:
    own = measured(TEN, "patched")
    assert table(Profile.merge([own, measured(TEN[:5], "whole")]), "patched").log_sds["denoise"] == pytest.approx(
        table(own, "patched").log_sds["denoise"], rel=1e-12
    )


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown model 'other'"):
        estimated_table("other", H100)
    with pytest.raises(BadInput, match="unknown model shape 'tiny-video'"):
        estimated_table("tiny-video", H100)
    with pytest.raises(BadInput, match="NVIDIA H100 SXM 80GB cannot run 'float64'"):
        estimated_table("sdxl", H100, dtype="float64")
    with pytest.raises(BadInput, match="has no sd3"):
        estimated_table("sd3", H100, calibration=measured(TEN))


def test_a_measured_table_says_so(made_up: Profile) -> None:
    assert LatencyModel.fit(made_up, "sd3").basis == MEASURED


def test_ten_published_measurements_predict_a_size_that_is_not_among_them(published: Profile) -> None:
    whole = published.select("sd3", "whole").frame
    denoise = whole[whole["stage"] == "denoise"]
    unseen = denoise[denoise["composition"].str.contains("768x768")]
    rest = denoise.drop(unseen.index)
    images = rest["composition"].str.partition("@")[0].astype(int)
    ten = rest[images.isin([1, 2, 4, 6, 8])]
    assert len(ten) == 10
    calibrated = table(Profile(ten), model="sd3")
    predicted = np.array([calibrated.step_s("denoise", Batch("sd3", parse(text))) for text in unseen["composition"]])
    errors = np.abs(predicted / (unseen["seconds"] / unseen["steps"]).to_numpy() - 1)
    assert errors.mean() < 0.05
