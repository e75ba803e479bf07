"""The fit of efficiencies to published measurements, and what it is worth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from predictors.efficiency import Z80, Efficiencies, Prior, prior, shipped_efficiencies
from predictors.efficiency_fit import (
    LEAST_GROUPS,
    SPLITS,
    Assessment,
    EfficiencyModel,
    ErrorSummary,
    PublishedCase,
    _Design,
    assess,
    cases_of,
    effective_groups,
    estimated_errors,
    reported_class,
    robust_sd,
    spreads,
)
from predictors.efficiency_halves import SHIPPED, halves, held_out_halves
from predictors.published import shipped_published
from tools.efficiencies import HEADER, spelled
from traces.streams import stream

FEW = 40


@pytest.fixture(scope="module")
def cases() -> list[PublishedCase]:
    return cases_of(shipped_published())


@pytest.fixture(scope="module")
def assessed(cases: list[PublishedCase]) -> Assessment:
    return assess(cases)


def test_the_arrays_say_what_the_formula_says(cases: list[PublishedCase]) -> None:
    known = shipped_efficiencies()
    design = _Design(cases)
    values = np.array([known.value(name) for name in design.names])
    log_seconds, _ = design.log_seconds(values)
    errors, _ = estimated_errors(cases, known)
    measured = np.log([case.row.seconds for case in cases])
    np.testing.assert_allclose(log_seconds, errors + measured, rtol=0, atol=1e-9)


def test_the_derivatives_are_those_of_the_formula(cases: list[PublishedCase]) -> None:
    few = cases[:: len(cases) // FEW]
    design = _Design(few)
    values = np.array([prior(name).mean for name in design.names])
    at, slopes = design.log_seconds(values)
    for place in range(len(values)):
        step = np.zeros(len(values))
        step[place] = 1e-6
        np.testing.assert_allclose((design.log_seconds(values + step)[0] - at) / 1e-6, slopes[:, place], atol=1e-4)


def test_a_known_truth_is_found(cases: list[PublishedCase]) -> None:
    """Terms drawn from their priors, seconds of them with 3 % noise: half of the rows predict the others."""
    draw = stream(0, "test")
    names = _Design(cases).names
    truth = EfficiencyModel()
    truth.terms_ = {name: draw.normal(prior(name).mean, prior(name).sd) for name in names}
    seconds = truth.predict(cases) * draw.lognormal(0, 0.03, len(cases))
    half = draw.permutation(len(cases))[: len(cases) // 2]
    found = EfficiencyModel(noise=0.03).fit([cases[place] for place in half], seconds[half])
    errors = np.log(found.predict(cases) / seconds)
    rest = np.setdiff1d(np.arange(len(cases)), half)
    before = np.log(NOTHING.predict(cases) / seconds)
    assert np.mean(np.abs(errors[rest])) < 0.06
    assert np.mean(np.abs(errors[rest])) < np.mean(np.abs(before[rest])) / 3


NOTHING = EfficiencyModel()
NOTHING.terms_ = {}


def test_one_wrong_measurement_bends_little(cases: list[PublishedCase]) -> None:
    seconds = np.array([case.row.seconds for case in cases])
    wrong = seconds.copy()
    wrong[5] *= 20
    straight, bent = EfficiencyModel().fit(cases, seconds), EfficiencyModel().fit(cases, wrong)
    ratio = np.log(bent.predict(cases) / straight.predict(cases))
    assert np.median(np.abs(ratio)) < 0.01


def test_it_is_an_estimator(cases: list[PublishedCase]) -> None:
    model = EfficiencyModel(noise=0.2)
    assert clone(model).get_params() == model.get_params() == {"noise": 0.2, "start": None, "priors": None}
    few = cases[:FEW]
    seconds = np.array([case.row.seconds for case in few])
    again = [clone(model).fit(few, seconds).terms_ for _ in range(2)]
    assert again[0] == again[1]


def test_what_ships_is_what_the_fit_says(assessed: Assessment) -> None:
    shipped = shipped_efficiencies()
    assert shipped.terms.keys() == assessed.model.terms_.keys()
    for name, value in assessed.model.terms_.items():
        assert shipped.terms[name] == pytest.approx(value, abs=0.02), name
    assert set(shipped.spreads) == set(assessed.classes.tolist())


def test_what_is_written_is_what_is_read() -> None:
    import tomllib

    shipped = shipped_efficiencies()
    text = spelled(shipped)
    assert text.startswith(HEADER)
    assert Efficiencies.model_validate(tomllib.loads(text)) == shipped
    assert spelled(Efficiencies.model_validate(tomllib.loads(text))) == text


LIMITS = {
    "eager": 13.5,
    "compiled": 15.0,
    "vendor": 11.5,
    "float32": 13.5,
    "quantised compiled": 19.5,
    "decode": 6.0,
}
"""Mean absolute error in %, of estimates that did not see the device."""

OF_SOURCES = {
    "eager": 14.0,
    "compiled": 14.0,
    "float32": 21.5,
    "quantised compiled": 17.5,
    "vendor": 20.0,
    "decode": 40.0,
}
"""Likewise, of estimates that did not see the source; one source measured all decoders, so nothing of these is left."""


@pytest.mark.parametrize("name", LIMITS)
def test_a_device_that_was_left_out_is_estimated(assessed: Assessment, name: str) -> None:
    among = assessed.classes == name
    left_out = ErrorSummary.of(assessed.errors["device"][among])
    fitted = ErrorSummary.of(assessed.errors["fitted"][among])
    assert left_out.count >= 20
    assert fitted.mape < 10
    assert left_out.mape < LIMITS[name]
    assert abs(left_out.bias) < 0.2


def test_four_of_five_measurements_of_a_device_that_was_left_out_are_in_their_interval(assessed: Assessment) -> None:
    inside = np.abs(assessed.errors["device"]) <= Z80 * assessed.log_sds("device")
    assert 0.75 < inside.mean() < 0.92
    for name in LIMITS:
        assert 0.69 < inside[assessed.classes == name].mean() < 0.91, name
    sources = assessed.groups("source")
    of_sources = [inside[sources == source].mean() for source in np.unique(sources)]
    assert 0.7 < np.mean(of_sources) < 0.95


def test_groups_are_counted_by_what_they_weigh() -> None:
    assert effective_groups(["a", "b", "c", "d"] * 5) == pytest.approx(4)
    assert effective_groups(["a"] * 99 + ["b"]) == pytest.approx(1, abs=0.03)


def test_engines_that_one_project_could_hide_are_reported_apart(cases: list[PublishedCase]) -> None:
    vendor = [case for case in cases if case.row.engine == "vendor" and case.row.precision == "float16"]
    software = {
        name: {c.row.software.partition("/")[0] for c in vendor if reported_class(c) == name} for name in OTHERS
    }
    assert software["OneDiff"] == {"OneDiff"}
    assert {"TensorRT", "AITemplate", "stable-fast"} <= software["other engines"]


OTHERS = ("OneDiff", "other engines")


def test_what_is_chosen_on_half_of_the_sources_is_not_chosen_on_the_other(cases: list[PublishedCase]) -> None:
    few = cases[::8]
    first = halves(few)
    sources = np.array([case.row.repository for case in few])
    assert set(sources[first]).isdisjoint(sources[~first])
    assert 0.3 < first.mean() < 0.7
    absurd = {"products": Prior(np.log(0.01), 0.01)}
    reports = held_out_halves(few, {SHIPPED: {}, "absurd": absurd})
    assert [len(report.other) for report in reports] == [(~first).sum(), first.sum()]
    for report in reports:
        assert report.chosen == SHIPPED
        assert report.scores[SHIPPED] < report.scores["absurd"]
        assert report.left_out.tolist() == report.shipped.tolist()
        assert (report.log_sds[~np.isnan(report.log_sds)] > 0).mean() == 1
        assert 0 < np.abs(report.alone).mean() < 0.4


def test_groups_are_left_out_whole(assessed: Assessment) -> None:
    assert set(SPLITS) == {"source", "device", "generation", "model", "class"}
    slices = {
        case.row.hardware
        for case, group in zip(assessed.cases, assessed.groups("device"), strict=True)
        if group == "h100-pcie"
    }
    assert {"h100-pcie", "h100-pcie-mig-1g"} <= slices
    elsewhere = assessed.measured_elsewhere
    assert elsewhere.any()
    assert not elsewhere[assessed.classes == "decode"].any()  # one source measured all of them
    sources = assessed.groups("source")
    for name in np.unique(assessed.classes[elsewhere]):
        assert len(set(sources[assessed.classes == name])) > 1


@pytest.mark.parametrize("name", OF_SOURCES)
def test_a_source_that_was_left_out_is_estimated(assessed: Assessment, name: str) -> None:
    left_out = ErrorSummary.of(assessed.errors["source"][assessed.classes == name])
    assert left_out.mape < OF_SOURCES[name]


def test_four_of_five_measurements_of_a_source_that_was_left_out_are_in_their_interval(assessed: Assessment) -> None:
    inside = np.abs(assessed.errors["source"]) <= Z80 * assessed.log_sds("source")
    assert 0.75 < inside.mean() < 0.9
    sources = assessed.groups("source")
    judged = [name for name in LIMITS if effective_groups(sources[assessed.classes == name]) >= LEAST_GROUPS]
    assert judged == ["eager", "compiled"]
    for name in judged:
        assert 0.7 < inside[assessed.classes == name].mean() < 0.91, name


def test_a_class_that_nobody_measured_has_a_wider_interval_than_one_of_a_new_source(assessed: Assessment) -> None:
    decodes = assessed.classes == "decode"
    without = spreads(assessed, ~decodes)["decode"]
    known = spreads(assessed)["decode"]
    assert without.seen > known.seen
    assert without.source > known.source
    assert without.devices == ()


def test_a_group_with_many_measurements_says_no_more_of_the_next_than_one_with_few() -> None:
    groups = np.array(["many"] * 99 + ["few"])
    errors = np.array([0.1] * 99 + [0.3])
    assert robust_sd(errors, groups) > 0.15 / Z80
    assert robust_sd(errors, np.array(["one"] * 100)) == pytest.approx(0.1 / Z80)
    alike = robust_sd(np.linspace(-1, 1, 1001), np.array(["one"] * 1001))
    assert alike == pytest.approx(0.8 / Z80, rel=0.01)
