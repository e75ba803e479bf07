"""A few measurements of a stage: how far to trust what they say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.calibration import SHIPPED, Case
from predictors.calibration import calibrated
from predictors.efficiency import Z80, Efficiencies, Setting, Work, error_class, forward_seconds, shipped_efficiencies
from predictors.efficiency_fit import ALIKE, PublishedCase, cases_of
from predictors.features import FeatureMap
from predictors.profile import Profile
from predictors.published import shipped_published
from predictors.roofline import Roofline
from predictors.shapes import shape_of
from predictors.shipped import find
from traces.errors import BadInput
from traces.geometry import geometry_of
from traces.streams import stream


def denoiser_of(case: PublishedCase, known: Efficiencies) -> tuple[Setting, Work, float]:
    """How a case's denoiser was run, its work, and its seconds: what the estimate leaves of the measurement."""
    rest = sum(n * forward_seconds(work, known.rates(s)) for n, s, work in case.stages if s.network != "denoiser")
    n, setting, work = next(stage for stage in case.stages if stage[1].network == "denoiser")
    plain = Setting(setting.hardware, setting.engine, setting.precision, setting.network, setting.model)
    return plain, work, (case.row.seconds - rest) / n


def published_groups() -> list[list[tuple[Setting, Work, float]]]:
    """Denoisers of one source, device, model and way to run them at five batches or more."""
    known = shipped_efficiencies()
    groups: dict[tuple[object, ...], list[PublishedCase]] = {}
    for case in cases_of(shipped_published()):
        row = case.row
        if row.measures == "request" and error_class(case.setting) in ALIKE:
            key = (row.source, row.hardware, row.model, row.precision, row.engine, row.remarks)
            groups.setdefault(key, []).append(case)
    return [
        [denoiser_of(case, known) for case in cases]
        for cases in groups.values()
        if len({case.row.batch for case in cases}) >= 5
    ]


def test_three_published_batches_predict_the_others_within_their_interval() -> None:
    known, covered = shipped_efficiencies(), []
    groups = published_groups()
    assert len(groups) > 10
    for place, group in enumerate(groups):
        setting = group[0][0]
        shape, features = shape_of(setting.model), FeatureMap(geometry_of(setting.model), "denoise", "whole")
        roofline = Roofline(shape, features, setting, known.rates(setting))
        few = stream(place, "calibration").choice(len(group), 3, replace=False)
        found = calibrated(
            roofline,
            [[group[i][1]] for i in few],
            np.array([group[i][2] for i in few]),
            known.log_sd(setting),
            known.misfit,
        )
        errors = [
            np.log(found.roofline.seconds(work) / seconds) for i, (_, work, seconds) in enumerate(group) if i not in few
        ]
        covered.append(np.mean(np.abs(errors) <= Z80 * found.log_sd))
    assert 0.7 <= np.mean(covered) <= 0.95


@pytest.mark.parametrize(("rows", "least"), [(10, 0.55), (30, 0.7)])
def test_rows_of_tiny_image_predict_the_others_within_their_interval(rows: int, least: float) -> None:
    frame = Profile.load(find("cpu-1core")).frame
    profile, covered = Profile(frame[~frame["cached"]]), []
    for stage in SHIPPED:
        case = Case(profile, "cpu-1core", "float32", *stage)
        every = np.arange(len(case.data.frame))
        few = stream(0, "calibration").choice(every, rows, replace=False)
        cost = case._calibrated(few)
        others = np.setdiff1d(every, few)[::5]
        predicted = np.array([cost.of(case.data.compositions[row], 1.0, 1.0, False) for row in others])
        covered.append(np.mean(np.abs(np.log(predicted / case.data.per_step[others])) <= Z80 * cost.log_sd))
    assert least <= np.mean(covered) <= 0.95


def test_the_interval_narrows_with_every_measurement() -> None:
    known = shipped_efficiencies()
    group = max(published_groups(), key=len)
    setting = group[0][0]
    roofline = Roofline(
        shape_of(setting.model),
        FeatureMap(geometry_of(setting.model), "denoise", "whole"),
        setting,
        known.rates(setting),
    )
    works = [[work] for _, work, _ in group for _ in range(4)]
    truth = roofline.with_rates(known.rates(Setting(setting.hardware, "vendor", "float16", model=setting.model)))
    seconds = np.array([truth.seconds(work) for (work,) in works]) * stream(0, "noise").lognormal(0, 0.01, len(works))
    widths = [
        calibrated(roofline, works[:n], seconds[:n], known.log_sd(setting), known.misfit).log_sd for n in (3, 6, 12, 24)
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.6 * widths[0]
    assert widths[0] < known.log_sd(setting)
    with pytest.raises(BadInput, match="2 measurements cannot calibrate a stage, expected at least 3"):
        calibrated(roofline, works[:2], seconds[:2], known.log_sd(setting), known.misfit)
